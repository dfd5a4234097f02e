// Keys and values in device memory: those of the layers whose attention the device computes, in page groups as in
// SequenceState, which has the same positions in DRAM as far as they were parked.
//
// Sequences share a device's memory.  When it is full the one that was used longest ago is parked and gives its pages
// back; its next step copies them up again.
//
// Threading: any thread; a pool's mutex is held by whoever submits to the device, and by these functions.
// Ownership: a DeviceKv owns its pages.  The device outlives the pool, the pool its DeviceKvs.
// Errors: kOutOfMemory when the device's budget has no room for another page group and nobody else has one; those of the
// device.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "device/device.h"
#include "memory/kv_layout.h"

namespace tandem {

class DeviceKv;

class DeviceKvPool {
 public:
  // `layers`: ascending.  kv_slot i of an operation is layers[i].
  DeviceKvPool(Device& device, StreamId stream, std::vector<int64_t> layers)
      : device_(device), stream_(stream), layers_(std::move(layers)) {}

  const std::vector<int64_t>& layers() const { return layers_; }
  std::recursive_mutex& mutex() { return mutex_; }

 private:
  friend class DeviceKv;
  // A page group for `kv`, at whose cost it may be.
  Result<std::byte*> take_page(const DeviceKv& kv);

  Device& device_;
  const StreamId stream_;
  const std::vector<int64_t> layers_;
  std::recursive_mutex mutex_;
  std::vector<DeviceKv*> kvs_;  // guarded by mutex_, used longest ago first
};

class DeviceKv {
 public:
  DeviceKv(DeviceKvPool& pool, const KvLayout& layout);
  ~DeviceKv();
  DeviceKv(const DeviceKv&) = delete;
  DeviceKv& operator=(const DeviceKv&) = delete;

  size_t group_bytes() const { return pool_.layers_.size() * 2 * layout_.page_bytes(); }
  // Where each page group begins.  Requires: the pool's mutex is held, as for prepare().
  const std::vector<std::byte*>& pages() const { return pages_; }

  // Before a step: every position below n_held, held by the sequence, lies on the device, and there is room for those
  // below n_wanted.  Copies up what only DRAM has.  host_pages must stay what they are until release().
  Status prepare(std::byte* const* host_pages, int64_t n_held, int64_t n_wanted);
  // The device has written the positions below n.
  void appended(int64_t n) {
    const std::lock_guard lock(pool_.mutex());
    n_on_device_ = n;
  }
  // Positions from n on are forgotten.
  void truncate(int64_t n);
  // Copies to DRAM what only the device has, in whole pages, and waits for it.
  Status park();
  // What lies on the device is worth nothing any more: gives the memory back.  DRAM has the first n_held positions.
  void release(int64_t n_held);

  uint64_t bytes_copied_down() const { return bytes_copied_down_; }

 private:
  friend class DeviceKvPool;
  Status copy_page(int64_t page, bool up);

  DeviceKvPool& pool_;
  const KvLayout layout_;
  std::byte* const* host_pages_ = nullptr;
  std::vector<std::byte*> pages_;
  int64_t n_on_device_ = 0;  // positions that are right there
  int64_t n_on_host_ = 0;    // and in DRAM
  uint64_t bytes_copied_down_ = 0;
};

}  // namespace tandem

// A sequence's keys and values in device memory: those of the layers whose attention the device computes, in page groups
// as in SequenceState, which keeps the same positions in DRAM as far as they were parked.
//
// Threading: one caller at a time, the one that submits to the device.
// Ownership: owns the pages; the device and the SequenceState that owns this must outlive it.
// Errors: kOutOfMemory when the device's budget has no room for another page group; those of the device.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "device/device.h"
#include "memory/kv_layout.h"

namespace tandem {

class DeviceKv {
 public:
  // `layers`: ascending.  kv_slot i of an operation is layers[i].
  DeviceKv(Device& device, StreamId stream, const KvLayout& layout, std::vector<int64_t> layers);
  ~DeviceKv();
  DeviceKv(const DeviceKv&) = delete;
  DeviceKv& operator=(const DeviceKv&) = delete;

  const std::vector<int64_t>& layers() const { return layers_; }
  size_t group_bytes() const { return layers_.size() * 2 * layout_.page_bytes(); }
  // [n_pages()] where each page group begins.
  const std::vector<std::byte*>& pages() const { return pages_; }
  uint64_t bytes() const { return pages_.size() * group_bytes(); }

  // Before a step: every position below n_held, held by the sequence, lies on the device, and there is room for those
  // below n_wanted.  Copies up what only DRAM has.
  Status prepare(std::byte* const* host_pages, int64_t n_held, int64_t n_wanted);
  // The device has written the positions below n.
  void appended(int64_t n) { n_on_device_ = n; }
  // Positions from n on are forgotten.
  void truncate(int64_t n);
  // Copies to DRAM what only the device has of the first n_held positions, in whole pages, and waits for it.
  Status park(std::byte* const* host_pages, int64_t n_held);
  // DRAM holds other positions now.
  void host_changed(int64_t n_held);
  // Gives the device's memory back.  Requires: parked, or the sequence is of no more use.
  void release();

  uint64_t bytes_copied_down() const { return bytes_copied_down_; }

 private:
  Status copy_page(std::byte* const* host_pages, int64_t page, bool up);

  Device& device_;
  const StreamId stream_;
  const KvLayout layout_;
  const std::vector<int64_t> layers_;
  std::vector<std::byte*> pages_;
  int64_t n_on_device_ = 0;  // positions that are right there
  int64_t n_on_host_ = 0;    // and in DRAM
  uint64_t bytes_copied_down_ = 0;
};

}  // namespace tandem

// Keys and values in device memory: those of the layers whose attention the device computes, in page groups as in
// SequenceState.
//
// Of a sequence the first pages lie on the device, as many as there is room for, and the others in DRAM: the one run of
// pages that a processor may fold by itself (see Partials) begins with the first, and no page has to move while the
// sequence grows.  DRAM also has what was parked of the pages on the device.
//
// Sequences share a device's memory.  When it is full, those that have not been used for a while give their last pages
// back, then whatever else is of less use than pages, and those that have more pages than the one that wants some: two
// that take turns come to halves, not to copying everything at every turn.  When the budget is smaller than what is used,
// pages go to DRAM before the next step.
//
// No step waits long for copies, however far the budget moves: pages of what was said before come back a few per step, and
// pages that are full are copied to DRAM a few per step while they stay, so that those that have to go are there already.
//
// Threading: any thread; a pool's mutex is held by whoever submits to the device, and by these functions.
// Ownership: a DeviceKv owns its pages.  The device outlives the pool, the pool its DeviceKvs.
// Errors: those of the device, but for kOutOfMemory, which leaves pages in DRAM.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
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
  // What pages will take that prepare() has left for later steps, of all sequences in use.
  uint64_t missing_bytes() const;
  // Asked when memory is short: gives some back that pages may use, or says that there is none.  Called by prepare().
  void set_make_room(std::function<bool()> make_room) { make_room_ = std::move(make_room); }

 private:
  friend class DeviceKv;
  // A page group for `kv`, at whose cost it may be; null when there is no room.
  Result<std::byte*> take_page(const DeviceKv& kv);
  bool has_room(size_t bytes) const;
  bool in_use(const DeviceKv& kv) const;
  bool make_room() const { return make_room_ && make_room_(); }
  // Who gives a page to `kv`: one that has not been used for a while, or one that has more; null: nobody.
  DeviceKv* unused_giver_to(const DeviceKv& kv) const;
  DeviceKv* richer_giver_to(const DeviceKv& kv) const;
  // Whoever was used longest ago gives pages first.
  Status fit_budget();

  Device& device_;
  const StreamId stream_;
  const std::vector<int64_t> layers_;
  std::function<bool()> make_room_;
  std::recursive_mutex mutex_;
  std::vector<DeviceKv*> kvs_;  // guarded by mutex_, used longest ago first
  int64_t n_steps_ = 0;
  // The device had less room than its budget says: what was used then, and the budget.  Asked again when either changes.
  uint64_t refused_used_ = UINT64_MAX, refused_budget_ = UINT64_MAX;
};

class DeviceKv {
 public:
  DeviceKv(DeviceKvPool& pool, const KvLayout& layout);
  ~DeviceKv();
  DeviceKv(const DeviceKv&) = delete;
  DeviceKv& operator=(const DeviceKv&) = delete;

  size_t group_bytes() const { return pool_.layers_.size() * 2 * layout_.page_bytes(); }
  // Where each page group on the device begins, from the sequence's first page on.  Requires: the pool's mutex is held, as
  // for holds() and prepare().
  const std::vector<std::byte*>& pages() const { return pages_; }
  // Do all positions below n lie on the device?
  bool holds(int64_t n) const { return static_cast<int64_t>(pages_.size()) * kPageTokens >= n; }

  // Of what the sequence holds, pages that one step brings to the device or copies to DRAM, beside those that have to go: two
  // are in the order of a hundredth of the weights that a token reads.
  static constexpr int64_t kCopiesPerStep = 2;

  // Before a step: pages of the positions below n_wanted lie on the device, with what the sequence holds, its positions below
  // n_held: as many as there is room for, of those that hold something kCopiesPerStep more than in the step before.
  // Submits copies.  host_pages must stay what they are until release().
  Status prepare(std::byte* const* host_pages, int64_t n_held, int64_t n_wanted);
  // The positions below n have been written, each where its page is.  Requires: the step's work is done.
  void appended(int64_t n);
  // Positions from n on are forgotten.
  void truncate(int64_t n);
  // Copies to DRAM what only the device has, in whole pages, and waits for it.
  Status park();
  // What lies on the device is worth nothing any more: gives the memory back.
  void release();

  uint64_t bytes_copied_down() const { return bytes_copied_down_; }
  uint64_t bytes_copied_up() const { return bytes_copied_up_; }

 private:
  friend class DeviceKvPool;
  // Of the page's positions, how many are below n.
  static int64_t in_page(int64_t page, int64_t n) {
    return std::clamp<int64_t>(n - page * kPageTokens, 0, kPageTokens);
  }
  Status grow(int64_t n_held, int64_t n_wanted);
  Status add_page(std::byte* memory, int64_t n_held);
  // Begins to copy pages to DRAM that will not change.
  Status write_behind(int64_t n_most);
  void written_behind();
  Status drop_last_page();
  void free_last_page();
  // Does only the device have some of the page's positions?
  bool unparked(int64_t page) const {
    return n_parked_[static_cast<size_t>(page)] < in_page(page, n_on_device_);
  }
  // Copies them and waits.
  Status park_pages(int64_t first, int64_t end);
  Status copy_page(int64_t page, bool up);

  DeviceKvPool& pool_;
  const KvLayout layout_;
  std::byte* const* host_pages_ = nullptr;
  std::vector<std::byte*> pages_;
  std::vector<int64_t> n_parked_;  // [pages_] of their positions, how many DRAM has too
  int64_t n_on_device_ = 0;        // positions that are right there
  // Pages that were there when the last step ended well.  Those added since, by a step that failed or was cancelled, may
  // not hold what they should; DRAM has it.
  size_t n_certain_ = 0;
  std::vector<int64_t> behind_;  // pages that the step under way copies to DRAM
  uint64_t missing_bytes_ = 0;   // of pages that the last prepare() left for later steps
  int64_t last_step_ = 0;
  uint64_t bytes_copied_down_ = 0, bytes_copied_up_ = 0;
};

}  // namespace tandem

// What a sequence remembers: keys and values of every layer, in pages of 64 tokens.
//
// A page group is one page of every layer, contiguous, so that it can move as one block:
//   group p: layer 0 K, layer 0 V, layer 1 K, ...;  each K or V page is [G,64,E] in the KV type.
//
// Threading: one writer, or many readers.
// Ownership: owns its memory, reserved whole at creation; pages are backed by the system when first written.
// Errors: kOutOfMemory with the bytes.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "device/operation.h"
#include "memory/device_kv.h"
#include "memory/kv_layout.h"

namespace tandem {

class SequenceState {
 public:
  static Result<std::unique_ptr<SequenceState>> create(const KvLayout& layout, int64_t n_context);
  ~SequenceState();
  SequenceState(const SequenceState&) = delete;
  SequenceState& operator=(const SequenceState&) = delete;

  const KvLayout& layout() const { return layout_; }
  int64_t capacity() const { return n_context_; }
  int64_t size() const { return n_tokens_; }
  uint64_t reserved_bytes() const { return layout_.bytes_for(n_context_); }
  // What the system has given so far: pages stay when the sequence shrinks.  Any thread.
  uint64_t touched_bytes() const {
    return layout_.bytes_for(most_tokens_.load(std::memory_order_relaxed));
  }

  // [G,64,E] of the page that holds positions page*64 ..
  std::byte* keys(int64_t layer, int64_t page) const { return page_at(layer, page, 0); }
  std::byte* values(int64_t layer, int64_t page) const { return page_at(layer, page, 1); }

  // [pages of the capacity] where each page group begins: what StepInput::pages points to.
  std::byte* const* pages() const { return pages_.data(); }

  // The keys and values of the next n positions have been written.  Requires: size() + n <= capacity().
  void append(int64_t n) {
    n_tokens_ += n;
    if (n_tokens_ > most_tokens_.load(std::memory_order_relaxed))
      most_tokens_.store(n_tokens_, std::memory_order_relaxed);
  }
  // Requires: 0 <= n <= size().
  void truncate(int64_t n) {
    n_tokens_ = n;
    if (device_ != nullptr) device_->truncate(n);
  }

  // Keys and values of some layers live on a device from now on; null: of none.  Requires: the sequence is empty, or of
  // no more use.
  void set_device(std::unique_ptr<DeviceKv> device) { device_ = std::move(device); }
  DeviceKv* device() const { return device_.get(); }
  // Everything lies in DRAM when it returns, as used(), save and fork need it.  Waits while a step runs on the device.
  Status park() { return device_ == nullptr ? ok_status() : device_->park(); }

  // Zeroes the positions from size() to the end of the last page group in use: what was truncated.
  void clear_unused();
  // Exchanges contents.  Requires: the same layout and capacity; parked.
  void swap(SequenceState& other);

  // The page groups in use, for saving.  Requires: parked.
  std::span<const std::byte> used() const {
    return {base_, static_cast<size_t>(layout_.bytes_for(n_tokens_))};
  }
  // Replaces the contents by the page groups of n_tokens positions.  Requires: bytes as used() would give.
  void restore(std::span<const std::byte> groups, int64_t n_tokens);
  // The same, with `fill` writing them in place; a failure leaves the sequence empty.
  template <typename Fill>
  Status restore_from(int64_t n_tokens, Fill fill) {
    n_tokens_ = 0;
    TANDEM_RETURN_IF_ERROR(
        fill(std::span<std::byte>(base_, static_cast<size_t>(layout_.bytes_for(n_tokens)))));
    append(n_tokens);
    if (device_ != nullptr) device_->release();
    return ok_status();
  }

 private:
  SequenceState(const KvLayout& layout, int64_t n_context, std::byte* base);
  std::byte* page_at(int64_t layer, int64_t page, int64_t which) const {
    return base_ + static_cast<size_t>(page) * layout_.group_bytes() +
           static_cast<size_t>(layer * 2 + which) * layout_.page_bytes();
  }

  KvLayout layout_;
  int64_t n_context_;
  std::byte* base_;
  std::vector<std::byte*> pages_;
  int64_t n_tokens_ = 0;
  std::atomic<int64_t> most_tokens_{0};
  std::unique_ptr<DeviceKv> device_;
};

}  // namespace tandem

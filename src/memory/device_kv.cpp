#include "memory/device_kv.h"

#include <algorithm>
#include <utility>

namespace tandem {
namespace {

int64_t pages_of(int64_t n_positions) { return (n_positions + kPageTokens - 1) / kPageTokens; }

}  // namespace

Result<std::byte*> DeviceKvPool::take_page(const DeviceKv& kv) {
  for (;;) {
    Result<std::byte*> page = device_.allocate(kv.group_bytes(), "a page of keys and values");
    if (page.ok() || page.status().code() != Code::kOutOfMemory) return page;
    const auto other = std::find_if(kvs_.begin(), kvs_.end(), [&](const DeviceKv* candidate) {
      return candidate != &kv && !candidate->pages_.empty();
    });
    if (other == kvs_.end()) return page;
    TANDEM_RETURN_IF_ERROR((*other)->park());
    (*other)->release((*other)->n_on_host_);
  }
}

DeviceKv::DeviceKv(DeviceKvPool& pool, const KvLayout& layout) : pool_(pool), layout_(layout) {
  const std::lock_guard lock(pool_.mutex_);
  pool_.kvs_.push_back(this);
}

DeviceKv::~DeviceKv() {
  const std::lock_guard lock(pool_.mutex_);
  release(0);
  std::erase(pool_.kvs_, this);
}

void DeviceKv::release(int64_t n_held) {
  const std::lock_guard lock(pool_.mutex_);
  for (std::byte* page : pages_) pool_.device_.free(page);
  pages_.clear();
  n_on_device_ = 0;
  n_on_host_ = n_held;
}

Status DeviceKv::prepare(std::byte* const* host_pages, int64_t n_held, int64_t n_wanted) {
  host_pages_ = host_pages;
  const auto mine = std::find(pool_.kvs_.begin(), pool_.kvs_.end(), this);
  std::rotate(mine, mine + 1, pool_.kvs_.end());
  while (static_cast<int64_t>(pages_.size()) < pages_of(n_wanted)) {
    TANDEM_ASSIGN_OR_RETURN(std::byte* const page, pool_.take_page(*this));
    pages_.push_back(page);
  }
  if (n_on_device_ >= n_held) return ok_status();
  for (int64_t page = n_on_device_ / kPageTokens; page < pages_of(n_held); ++page) {
    TANDEM_RETURN_IF_ERROR(copy_page(page, /*up=*/true));
  }
  n_on_device_ = n_held;
  return ok_status();
}

void DeviceKv::truncate(int64_t n) {
  const std::lock_guard lock(pool_.mutex_);
  n_on_device_ = std::min(n_on_device_, n);
  n_on_host_ = std::min(n_on_host_, n);
}

Status DeviceKv::park() {
  const std::lock_guard lock(pool_.mutex_);
  if (n_on_host_ >= n_on_device_) return ok_status();
  for (int64_t page = n_on_host_ / kPageTokens; page < pages_of(n_on_device_); ++page) {
    TANDEM_RETURN_IF_ERROR(copy_page(page, /*up=*/false));
    bytes_copied_down_ += group_bytes();
  }
  TANDEM_RETURN_IF_ERROR(pool_.device_.synchronize(pool_.stream_));
  for (int64_t page = n_on_host_ / kPageTokens; page < pages_of(n_on_device_); ++page) {
    const MemoryRange parked{host_pages_[page], layout_.group_bytes()};
    pool_.device_.host_access({&parked, 1}, {}, "parked keys and values");
  }
  n_on_host_ = n_on_device_;
  return ok_status();
}

// Keys and values of one layer lie side by side in both groups.
Status DeviceKv::copy_page(int64_t page, bool up) {
  const size_t bytes = 2 * layout_.page_bytes();
  for (size_t slot = 0; slot < pool_.layers_.size(); ++slot) {
    std::byte* host = host_pages_[page] + static_cast<size_t>(pool_.layers_[slot]) * bytes;
    std::byte* there = pages_[static_cast<size_t>(page)] + slot * bytes;
    TANDEM_RETURN_IF_ERROR(up ? pool_.device_.copy(pool_.stream_, there, host, bytes)
                              : pool_.device_.copy(pool_.stream_, host, there, bytes));
  }
  return ok_status();
}

}  // namespace tandem

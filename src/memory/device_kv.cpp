#include "memory/device_kv.h"

#include <algorithm>
#include <utility>

namespace tandem {
namespace {

int64_t pages_of(int64_t n_positions) { return (n_positions + kPageTokens - 1) / kPageTokens; }

}  // namespace

DeviceKv::DeviceKv(Device& device, StreamId stream, const KvLayout& layout,
                   std::vector<int64_t> layers)
    : device_(device), stream_(stream), layout_(layout), layers_(std::move(layers)) {}

DeviceKv::~DeviceKv() { release(); }

void DeviceKv::release() {
  for (std::byte* page : pages_) device_.free(page);
  pages_.clear();
  n_on_device_ = 0;
}

Status DeviceKv::prepare(std::byte* const* host_pages, int64_t n_held, int64_t n_wanted) {
  while (static_cast<int64_t>(pages_.size()) < pages_of(n_wanted)) {
    TANDEM_ASSIGN_OR_RETURN(std::byte* const page,
                            device_.allocate(group_bytes(), "a page of keys and values"));
    pages_.push_back(page);
  }
  if (n_on_device_ >= n_held) return ok_status();
  for (int64_t page = n_on_device_ / kPageTokens; page < pages_of(n_held); ++page) {
    TANDEM_RETURN_IF_ERROR(copy_page(host_pages, page, /*up=*/true));
  }
  n_on_device_ = n_held;
  return ok_status();
}

void DeviceKv::truncate(int64_t n) {
  n_on_device_ = std::min(n_on_device_, n);
  n_on_host_ = std::min(n_on_host_, n);
}

Status DeviceKv::park(std::byte* const* host_pages, int64_t n_held) {
  if (n_on_host_ >= n_held) return ok_status();
  for (int64_t page = n_on_host_ / kPageTokens; page < pages_of(n_held); ++page) {
    TANDEM_RETURN_IF_ERROR(copy_page(host_pages, page, /*up=*/false));
    bytes_copied_down_ += group_bytes();
  }
  TANDEM_RETURN_IF_ERROR(device_.synchronize(stream_));
  n_on_host_ = n_held;
  return ok_status();
}

void DeviceKv::host_changed(int64_t n_held) {
  n_on_host_ = n_held;
  n_on_device_ = 0;
}

// Keys and values of one layer lie side by side in both groups.
Status DeviceKv::copy_page(std::byte* const* host_pages, int64_t page, bool up) {
  const size_t bytes = 2 * layout_.page_bytes();
  for (size_t slot = 0; slot < layers_.size(); ++slot) {
    std::byte* host = host_pages[page] + static_cast<size_t>(layers_[slot]) * bytes;
    std::byte* there = pages_[static_cast<size_t>(page)] + slot * bytes;
    TANDEM_RETURN_IF_ERROR(up ? device_.copy(stream_, there, host, bytes)
                              : device_.copy(stream_, host, there, bytes));
  }
  return ok_status();
}

}  // namespace tandem

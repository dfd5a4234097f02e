#include "memory/device_kv.h"

#include <utility>

namespace tandem {
namespace {

// Steps of others after which a sequence counts as unused: two chats that take turns do so token by token.
constexpr int64_t kUnusedSteps = 64;

int64_t n_pages_of(int64_t n_positions) { return (n_positions + kPageTokens - 1) / kPageTokens; }

}  // namespace

// ---- the pool ----

bool DeviceKvPool::has_room(size_t bytes) const {
  const uint64_t used = device_.used_bytes(), budget = device_.budget_bytes();
  if (used == refused_used_ && budget == refused_budget_) return false;
  return used <= budget && bytes <= budget - used;
}

bool DeviceKvPool::in_use(const DeviceKv& kv) const {
  return n_steps_ - kv.last_step_ <= kUnusedSteps;
}

uint64_t DeviceKvPool::missing_bytes() const {
  uint64_t bytes = 0;
  for (const DeviceKv* kv : kvs_) bytes += in_use(*kv) ? kv->missing_bytes_ : 0;
  return bytes;
}

DeviceKv* DeviceKvPool::unused_giver_to(const DeviceKv& kv) const {
  const auto found = std::find_if(kvs_.begin(), kvs_.end(), [&](const DeviceKv* other) {
    return other != &kv && !other->pages_.empty() && !in_use(*other);
  });
  return found == kvs_.end() ? nullptr : *found;
}

DeviceKv* DeviceKvPool::richer_giver_to(const DeviceKv& kv) const {
  const auto found = std::find_if(kvs_.begin(), kvs_.end(), [&](const DeviceKv* other) {
    return other != &kv && other->pages_.size() > kv.pages_.size() + 1;
  });
  return found == kvs_.end() ? nullptr : *found;
}

Result<std::byte*> DeviceKvPool::take_page(const DeviceKv& kv) {
  for (;;) {
    if (has_room(kv.group_bytes())) {
      Result<std::byte*> page = device_.allocate(kv.group_bytes(), "a page of keys and values");
      if (page.ok() || page.status().code() != Code::kOutOfMemory) return page;
      refused_used_ = device_.used_bytes();
      refused_budget_ = device_.budget_bytes();
    }
    DeviceKv* giver = unused_giver_to(kv);
    if (giver == nullptr && make_room()) continue;
    if (giver == nullptr) giver = richer_giver_to(kv);
    if (giver == nullptr) return nullptr;
    TANDEM_RETURN_IF_ERROR(giver->drop_last_page());
  }
}

Status DeviceKvPool::fit_budget() {
  while (device_.used_bytes() > device_.budget_bytes()) {
    if (make_room()) continue;
    const auto has_pages = [](const DeviceKv* candidate) { return !candidate->pages_.empty(); };
    const auto giver = std::find_if(kvs_.begin(), kvs_.end(), has_pages);
    if (giver == kvs_.end()) break;  // what else is used is not ours to give
    TANDEM_RETURN_IF_ERROR((*giver)->drop_last_page());
  }
  return ok_status();
}

// ---- one sequence ----

DeviceKv::DeviceKv(DeviceKvPool& pool, const KvLayout& layout) : pool_(pool), layout_(layout) {
  const std::lock_guard lock(pool_.mutex_);
  pool_.kvs_.push_back(this);
}

DeviceKv::~DeviceKv() {
  const std::lock_guard lock(pool_.mutex_);
  release();
  std::erase(pool_.kvs_, this);
}

void DeviceKv::release() {
  const std::lock_guard lock(pool_.mutex_);
  missing_bytes_ = 0;
  while (!pages_.empty()) free_last_page();
}

Status DeviceKv::prepare(std::byte* const* host_pages, int64_t n_held, int64_t n_wanted) {
  host_pages_ = host_pages;
  last_step_ = ++pool_.n_steps_;
  const auto mine = std::find(pool_.kvs_.begin(), pool_.kvs_.end(), this);
  std::rotate(mine, mine + 1, pool_.kvs_.end());
  while (pages_.size() > n_certain_) free_last_page();
  behind_.clear();
  TANDEM_RETURN_IF_ERROR(pool_.fit_budget());
  TANDEM_RETURN_IF_ERROR(grow(n_held, n_wanted));
  // Those of a long prompt as fast as it fills them.
  return write_behind(std::max(kCopiesPerStep, n_pages_of(n_wanted - n_held)));
}

Status DeviceKv::grow(int64_t n_held, int64_t n_wanted) {
  int64_t n_copies = 0;
  const int64_t n_pages = n_pages_of(n_wanted);
  missing_bytes_ = 0;
  while (static_cast<int64_t>(pages_.size()) < n_pages) {
    const auto page = static_cast<int64_t>(pages_.size());
    if (in_page(page, n_held) > 0 && ++n_copies > kCopiesPerStep) {
      missing_bytes_ = static_cast<uint64_t>(n_pages - page) * group_bytes();
      break;
    }
    TANDEM_ASSIGN_OR_RETURN(std::byte* const memory, pool_.take_page(*this));
    if (memory == nullptr) break;
    TANDEM_RETURN_IF_ERROR(add_page(memory, n_held));
  }
  return ok_status();
}

Status DeviceKv::write_behind(int64_t n_most) {
  const auto n_full = std::min<int64_t>(n_on_device_ / kPageTokens, std::ssize(pages_));
  for (int64_t page = 0; page < n_full && std::ssize(behind_) < n_most; ++page) {
    if (!unparked(page)) continue;
    TANDEM_RETURN_IF_ERROR(copy_page(page, /*up=*/false));
    behind_.push_back(page);
  }
  return ok_status();
}

void DeviceKv::written_behind() {
  for (const int64_t page : behind_) {
    n_parked_[static_cast<size_t>(page)] = kPageTokens;
    const MemoryRange parked{host_pages_[page], layout_.group_bytes()};
    pool_.device_.host_access({&parked, 1}, {}, "parked keys and values");
  }
  behind_.clear();
}

Status DeviceKv::add_page(std::byte* memory, int64_t n_held) {
  const auto page = static_cast<int64_t>(pages_.size());
  const int64_t n = in_page(page, n_held);
  pages_.push_back(memory);
  n_parked_.push_back(n);
  n_on_device_ = std::min(n_held, (page + 1) * kPageTokens);
  return n == 0 ? ok_status() : copy_page(page, /*up=*/true);
}

Status DeviceKv::drop_last_page() {
  const auto n_pages = static_cast<int64_t>(pages_.size());
  TANDEM_RETURN_IF_ERROR(park_pages(n_pages - 1, n_pages));
  free_last_page();
  return ok_status();
}

void DeviceKv::free_last_page() {
  pool_.device_.free(pages_.back());
  pages_.pop_back();
  n_parked_.pop_back();
  n_certain_ = std::min(n_certain_, pages_.size());
  n_on_device_ = std::min(n_on_device_, static_cast<int64_t>(pages_.size()) * kPageTokens);
}

void DeviceKv::appended(int64_t n) {
  const std::lock_guard lock(pool_.mutex());
  n_certain_ = pages_.size();
  written_behind();
  n_on_device_ = std::min(n, static_cast<int64_t>(pages_.size()) * kPageTokens);
}

void DeviceKv::truncate(int64_t n) {
  const std::lock_guard lock(pool_.mutex());
  n_on_device_ = std::min(n_on_device_, n);
  for (size_t page = 0; page < pages_.size(); ++page) {
    n_parked_[page] = std::min(n_parked_[page], in_page(static_cast<int64_t>(page), n));
  }
}

Status DeviceKv::park() {
  const std::lock_guard lock(pool_.mutex());
  return park_pages(0, static_cast<int64_t>(pages_.size()));
}

Status DeviceKv::park_pages(int64_t first, int64_t end) {
  while (first < end && !unparked(first)) ++first;
  if (first == end) return ok_status();
  Status copied;
  for (int64_t page = first; page < end && copied.ok(); ++page) {
    if (unparked(page)) copied = copy_page(page, /*up=*/false);
  }
  // Even after one that was refused: no copy may be under way to pages that others will use.
  Status ended = pool_.device_.synchronize(pool_.stream_);
  if (!copied.ok()) return copied;
  TANDEM_RETURN_IF_ERROR(std::move(ended));
  for (int64_t page = first; page < end; ++page) {
    int64_t& n_parked = n_parked_[static_cast<size_t>(page)];
    n_parked = std::max(n_parked, in_page(page, n_on_device_));
    const MemoryRange parked{host_pages_[page], layout_.group_bytes()};
    pool_.device_.host_access({&parked, 1}, {}, "parked keys and values");
  }
  return ok_status();
}

// Keys and values of one layer lie side by side in both groups, and so do those of layers that follow each other.
Status DeviceKv::copy_page(int64_t page, bool up) {
  const size_t layer_bytes = 2 * layout_.page_bytes();
  const std::vector<int64_t>& layers = pool_.layers_;
  for (size_t slot = 0, end = 0; slot < layers.size(); slot = end) {
    end = slot + 1;
    while (end < layers.size() && layers[end] == layers[end - 1] + 1) ++end;
    const size_t bytes = (end - slot) * layer_bytes;
    std::byte* host = host_pages_[page] + static_cast<size_t>(layers[slot]) * layer_bytes;
    std::byte* there = pages_[static_cast<size_t>(page)] + slot * layer_bytes;
    TANDEM_RETURN_IF_ERROR(up ? pool_.device_.copy(pool_.stream_, there, host, bytes)
                              : pool_.device_.copy(pool_.stream_, host, there, bytes));
  }
  (up ? bytes_copied_up_ : bytes_copied_down_) += group_bytes();
  return ok_status();
}

}  // namespace tandem

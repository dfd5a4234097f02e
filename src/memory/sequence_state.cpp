#include "memory/sequence_state.h"

#include <sys/mman.h>

#include <cstring>
#include <string>
#include <utility>

#include "base/bytes.h"

namespace tandem {

SequenceState::SequenceState(const KvLayout& layout, int64_t n_context, std::byte* base)
    : layout_(layout), n_context_(n_context), base_(base) {
  const int64_t n_pages = (n_context + kPageTokens - 1) / kPageTokens;
  pages_.reserve(static_cast<size_t>(n_pages));
  for (int64_t page = 0; page < n_pages; ++page) pages_.push_back(page_at(0, page, 0));
}

Result<std::unique_ptr<SequenceState>> SequenceState::create(const KvLayout& layout,
                                                             int64_t n_context) {
  const uint64_t bytes = layout.bytes_for(n_context);
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    return out_of_memory("keys and values for " + std::to_string(n_context) + " tokens need " +
                         format_bytes(bytes) + ", which the system refused")
        .with_bytes(bytes, 0)
        .suggest("use a smaller context");
  }
  ::madvise(memory, bytes,
            MADV_HUGEPAGE);  // only a hint: without huge pages it is slower, not wrong
  return std::unique_ptr<SequenceState>(
      new SequenceState(layout, n_context, static_cast<std::byte*>(memory)));
}

SequenceState::~SequenceState() { ::munmap(base_, layout_.bytes_for(n_context_)); }

void SequenceState::clear_unused() {
  const auto used = static_cast<size_t>(n_tokens_ % kPageTokens);
  if (used == 0) return;
  const size_t row_bytes = layout_.head_bytes() / static_cast<size_t>(kPageTokens);
  const int64_t group = n_tokens_ / kPageTokens;
  // All heads of all pages of the group lie side by side, [64,E] each.
  std::byte* const end = base_ + static_cast<size_t>(group + 1) * layout_.group_bytes();
  for (std::byte* head = base_ + static_cast<size_t>(group) * layout_.group_bytes(); head < end;
       head += layout_.head_bytes()) {
    std::memset(head + used * row_bytes, 0, layout_.head_bytes() - used * row_bytes);
  }
}

void SequenceState::swap(SequenceState& other) {
  TANDEM_ASSERT(layout_ == other.layout_ && n_context_ == other.n_context_);
  // Each keeps its place on a device, but nothing of the old contents may be parked into the new.
  for (SequenceState* state : {this, &other}) {
    if (state->device_ != nullptr) state->device_->release();
  }
  std::swap(base_, other.base_);
  std::swap(pages_, other.pages_);
  std::swap(n_tokens_, other.n_tokens_);
  other.most_tokens_.store(most_tokens_.exchange(other.most_tokens_.load()));
}

void SequenceState::restore(std::span<const std::byte> groups, int64_t n_tokens) {
  TANDEM_ASSERT(groups.size() == layout_.bytes_for(n_tokens) && n_tokens <= n_context_);
  if (!groups.empty()) std::memcpy(base_, groups.data(), groups.size());
  n_tokens_ = 0;
  append(n_tokens);
  if (device_ != nullptr) device_->release();
}

}  // namespace tandem

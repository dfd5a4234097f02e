#include "memory/sequence_state.h"

#include <sys/mman.h>

#include <cstring>
#include <string>

#include "base/bytes.h"

namespace tandem {

Result<std::unique_ptr<SequenceState>> SequenceState::create(const KvLayout& layout, int64_t n_context) {
  const uint64_t bytes = layout.bytes_for(n_context);
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    return out_of_memory("keys and values for " + std::to_string(n_context) + " tokens need " +
                         format_bytes(bytes) + ", which the system refused")
        .with_bytes(bytes, 0)
        .suggest("use a smaller context");
  }
  ::madvise(memory, bytes, MADV_HUGEPAGE);  // only a hint: without huge pages it is slower, not wrong
  return std::unique_ptr<SequenceState>(
      new SequenceState(layout, n_context, static_cast<std::byte*>(memory)));
}

SequenceState::~SequenceState() { ::munmap(base_, layout_.bytes_for(n_context_)); }

void SequenceState::restore(std::span<const std::byte> groups, int64_t n_tokens) {
  TANDEM_ASSERT(groups.size() == layout_.bytes_for(n_tokens) && n_tokens <= n_context_);
  if (!groups.empty()) std::memcpy(base_, groups.data(), groups.size());
  n_tokens_ = 0;
  append(n_tokens);
}

}  // namespace tandem

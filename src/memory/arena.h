// One anonymous mapping in huge pages where the system gives them: what the slots of a BlockStore
// are cut from.
//
// Threading: const methods from any thread.
// Ownership: owns the mapping; move-only.
// Errors: kOutOfMemory with bytes needed and bytes free.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/result.h"

namespace tandem {

class Arena {
 public:
  static constexpr uint64_t kAlignment = uint64_t{2} << 20;  // of its start; a huge page on x86-64

  // Rounded up to whole huge pages.  Memory is taken from the system when it is first written.
  static Result<Arena> create(uint64_t bytes);
  ~Arena();
  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&&) = delete;

  std::byte* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }
  // Empty when the system agreed to use huge pages, else why not.
  const std::string& huge_page_refusal() const { return huge_page_refusal_; }
  // How much of it lies in huge pages now; asks the kernel, takes milliseconds.  0 when unknown.
  uint64_t huge_page_bytes() const;

 private:
  Arena(std::byte* data, uint64_t bytes) : data_(data), bytes_(bytes) {}

  std::byte* data_ = nullptr;
  uint64_t bytes_ = 0;
  std::string huge_page_refusal_;
};

}  // namespace tandem

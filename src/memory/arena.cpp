#include "memory/arena.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <fstream>
#include <utility>

#include "base/bytes.h"
#include "base/checked.h"

namespace tandem {
namespace {

uint64_t free_bytes() {
  const long pages = ::sysconf(_SC_AVPHYS_PAGES);
  const long page = ::sysconf(_SC_PAGESIZE);
  return pages > 0 && page > 0 ? static_cast<uint64_t>(pages) * static_cast<uint64_t>(page) : 0;
}

Status no_memory(uint64_t bytes) {
  const uint64_t free = free_bytes();
  return out_of_memory("the weights need " + std::to_string(bytes) + " bytes of memory (" +
                       format_bytes(bytes) + "), the system refused them; " + format_bytes(free) +
                       " are free")
      .with_bytes(bytes, free);
}

}  // namespace

Result<Arena> Arena::create(uint64_t bytes) {
  const auto rounded = checked_align_up(bytes == 0 ? 1 : bytes, kAlignment);
  const auto with_slack = rounded ? checked_add(*rounded, kAlignment) : std::nullopt;
  if (!with_slack) return no_memory(bytes);
  void* mapping =
      ::mmap(nullptr, *with_slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) return no_memory(*rounded);
  // The ends that stand over the alignment go back.
  auto* start = static_cast<std::byte*>(mapping);
  const uint64_t before =
      align_up(reinterpret_cast<uintptr_t>(start), kAlignment) - reinterpret_cast<uintptr_t>(start);
  if (before > 0) ::munmap(start, before);
  if (before < kAlignment) ::munmap(start + before + *rounded, kAlignment - before);
  Arena arena(start + before, *rounded);
  if (::madvise(arena.data_, arena.bytes_, MADV_HUGEPAGE) != 0) {
    arena.huge_page_refusal_ = errno == EINVAL ? "this kernel has no transparent huge pages"
                                               : status_from_errno(errno, "madvise").message();
  }
  // Weights are in the model's file already; a core dump needs no second copy.
  ::madvise(arena.data_, arena.bytes_, MADV_DONTDUMP);
  return arena;
}

Arena::~Arena() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

Arena::Arena(Arena&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      huge_page_refusal_(std::move(other.huge_page_refusal_)) {}

uint64_t Arena::huge_page_bytes() const {
  // A mapping's line "begin-end ..." is followed by its fields; ours may be several neighbours.
  std::ifstream smaps("/proc/self/smaps");
  const auto begin = reinterpret_cast<uintptr_t>(data_);
  const uintptr_t end = begin + bytes_;
  bool inside = false;
  uint64_t total = 0;
  for (std::string line; std::getline(smaps, line);) {
    unsigned long long from = 0, to = 0, kib = 0;
    if (std::sscanf(line.c_str(), "%llx-%llx ", &from, &to) == 2) {
      inside = from < end && to > begin;
    } else if (inside && std::sscanf(line.c_str(), "AnonHugePages: %llu kB", &kib) == 1) {
      total += kib << 10;
    }
  }
  return total < bytes_ ? total : bytes_;
}

}  // namespace tandem

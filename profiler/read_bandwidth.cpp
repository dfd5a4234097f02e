#include "profiler/read_bandwidth.h"

#include <emmintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/clock.h"

namespace tandem::profile {
namespace {

constexpr uint64_t kHugePage = 2 * kMiB;
constexpr uint64_t kSliceAlignment = 4096;
constexpr uint64_t kMaxBufferBytes = uint64_t{1} << 46;
constexpr uint64_t kReserveBytes = 64 * kMiB;  // left to everybody else
constexpr size_t kPrefetchAhead = 1024;        // bytes
constexpr size_t kStep = 128;                  // two lines per turn of the loop
// Between two looks at the cancel flag: a few milliseconds, and a look costs nothing beside it.
constexpr uint64_t kChunkBytes = 8 * kMiB;

// The sum of n bytes as 64-bit words.  Sixteen-byte loads of every x86-64 do: eight independent
// sums keep more lines on the way than a core has buffers for.  Requires: n % kStep == 0, 16-byte
// aligned.
template <bool kPrefetch>
uint64_t sum(const std::byte* from, size_t n) {
  __m128i sums[8];
  for (__m128i& s : sums) s = _mm_setzero_si128();
  for (size_t i = 0; i < n; i += kStep) {
    if constexpr (kPrefetch) {  // beyond the end it does nothing
      _mm_prefetch(reinterpret_cast<const char*>(from) + i + kPrefetchAhead, _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(from) + i + kPrefetchAhead + 64, _MM_HINT_T0);
    }
    const auto* words = reinterpret_cast<const __m128i*>(from + i);
    for (size_t k = 0; k < 8; ++k) sums[k] = _mm_add_epi64(sums[k], _mm_load_si128(words + k));
  }
  uint64_t total = 0;
  for (__m128i s : sums) {
    total += static_cast<uint64_t>(_mm_cvtsi128_si64(_mm_add_epi64(s, _mm_unpackhi_epi64(s, s))));
  }
  return total;
}

// One huge page more than asked for, so that the start can be aligned.
constexpr uint64_t mapped_bytes(uint64_t buffer_bytes) { return buffer_bytes + kHugePage; }

Status require_free(uint64_t buffer_bytes, const FreeMemory& memory) {
  const uint64_t needed = 2 * mapped_bytes(buffer_bytes) + kReserveBytes;
  if (!memory.known() || needed <= memory.bytes()) return ok_status();
  return out_of_memory("to measure memory takes " + format_bytes(needed) + " (two buffers of " +
                       format_bytes(buffer_bytes) + "), " + format_bytes(memory.bytes()) +
                       " are free")
      .with_bytes(needed, memory.bytes())
      .suggest("end other programs, or measure with a smaller buffer");
}

Status measuring_cancelled() { return cancelled("cancelled while the memory was measured"); }

}  // namespace

// One run of the team: every thread fills or reads the slice of its number.
struct ReadBandwidth::Work {
  std::byte* start = nullptr;
  uint64_t slice_bytes = 0;
  bool prefetch = false;
  const CancelFlag* cancel = nullptr;  // never null in a run
  struct alignas(64) Sum {
    uint64_t value = 0;
  };
  std::vector<Sum> sums;

  static void fill(void* context, unsigned thread_index) noexcept {
    const auto& work = *static_cast<Work*>(context);
    work.for_each_chunk(thread_index,
                        [](std::byte* chunk, uint64_t n) { std::memset(chunk, 1, n); });
  }
  static void read(void* context, unsigned thread_index) noexcept {
    auto& work = *static_cast<Work*>(context);
    uint64_t total = 0;
    work.for_each_chunk(thread_index, [&](const std::byte* chunk, uint64_t n) {
      total += work.prefetch ? sum<true>(chunk, n) : sum<false>(chunk, n);
    });
    work.sums[thread_index].value = total;
  }

 private:
  // All chunks of the thread's slice, or as many as were done when the flag was set.
  template <typename Each>
  void for_each_chunk(unsigned thread_index, Each each) const {
    std::byte* slice = start + thread_index * slice_bytes;
    for (uint64_t at = 0; at < slice_bytes && !cancel->cancelled(); at += kChunkBytes) {
      each(slice + at, std::min(kChunkBytes, slice_bytes - at));
    }
  }
};

double ReadBandwidth::Pass::best() const {
  return *std::max_element(gb_per_s.begin(), gb_per_s.end());
}

uint64_t ReadBandwidth::recommended_bytes(uint64_t largest_caches_bytes) {
  if (largest_caches_bytes > kMaxBufferBytes)
    return UINT64_MAX;  // nobody's caches; create() refuses
  return align_up(std::max(512 * kMiB, 2 * largest_caches_bytes), kHugePage);
}

void ReadBandwidth::Unmap::operator()(std::byte* address) const { ::munmap(address, bytes); }

Result<ReadBandwidth::Buffer> ReadBandwidth::map(uint64_t bytes, bool huge_pages) {
  const uint64_t mapped = mapped_bytes(bytes);
  void* address = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) {
    return status_from_errno(errno, "map " + format_bytes(mapped) + " to measure memory");
  }
  // Refused where the kernel has no huge pages; huge_page_bytes() tells.
  ::madvise(address, mapped, huge_pages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  return Buffer(static_cast<std::byte*>(address), Unmap{mapped});
}

std::byte* ReadBandwidth::start_of(const Buffer& buffer) {
  const auto address = reinterpret_cast<uintptr_t>(buffer.get());
  return buffer.get() + (align_up(address, kHugePage) - address);
}

Result<std::unique_ptr<ReadBandwidth>> ReadBandwidth::create(Team& team, uint64_t buffer_bytes,
                                                             const FreeMemory& memory,
                                                             const CancelFlag* cancel) {
  const uint64_t unit = team.size() * kSliceAlignment;
  if (buffer_bytes < unit || buffer_bytes > kMaxBufferBytes) {
    return invalid_argument("a buffer of " + format_bytes(buffer_bytes) + " cannot be shared by " +
                            std::to_string(team.size()) + " threads");
  }
  const uint64_t bytes = buffer_bytes / unit * unit;
  TANDEM_RETURN_IF_ERROR(require_free(bytes, memory));
  std::unique_ptr<ReadBandwidth> self(new ReadBandwidth(team, bytes));
  TANDEM_ASSIGN_OR_RETURN(self->small_pages_, map(bytes, false));
  TANDEM_ASSIGN_OR_RETURN(self->huge_pages_, map(bytes, true));
  for (const Buffer* buffer : {&self->small_pages_, &self->huge_pages_}) {
    Work work;
    work.start = start_of(*buffer);
    work.slice_bytes = bytes / team.size();
    work.cancel = &or_never(cancel);
    team.run(Work::fill, &work);
    if (or_never(cancel).cancelled()) return measuring_cancelled();
  }
  return self;
}

Result<ReadBandwidth::Pass> ReadBandwidth::measure(const CancelFlag* cancel) {
  Pass pass;
  for (size_t i = 0; i < kVariants.size(); ++i) {
    pass.gb_per_s[i] = read_once(kVariants[i], cancel);
    if (or_never(cancel).cancelled()) return measuring_cancelled();
  }
  return pass;
}

double ReadBandwidth::read_once(Variant variant, const CancelFlag* cancel) {
  Work work;
  work.start = start_of(variant.huge_pages ? huge_pages_ : small_pages_);
  work.slice_bytes = bytes_ / team_.size();
  work.prefetch = variant.prefetch;
  work.sums.resize(team_.size());
  work.cancel = &or_never(cancel);
  const auto start = Clock::now();
  team_.run(Work::read, &work);
  const double seconds = std::max(seconds_since(start), 1e-9);
  for (const Work::Sum& s : work.sums) checksum_ += s.value;
  return static_cast<double>(bytes_) / seconds * 1e-9;
}

uint64_t ReadBandwidth::huge_page_bytes() const {
  const auto wanted = reinterpret_cast<uintptr_t>(start_of(huge_pages_));
  std::ifstream maps("/proc/self/smaps");
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    unsigned long first = 0, last = 0, kib = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &first, &last) == 2) {
      inside = first <= wanted && wanted < last;
    } else if (inside && std::sscanf(line.c_str(), "AnonHugePages: %lu kB", &kib) == 1) {
      return kib * kKiB;
    }
  }
  return 0;
}

}  // namespace tandem::profile

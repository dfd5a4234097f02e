// How fast memory can be read, in GB/s: the limit that decoding is compared with.
//
// The same bytes are read in four ways, with 4 KiB and with huge pages, with and without software
// prefetch, because which one wins depends on the machine; the limit is the best of them.  One pass
// takes about 0.1 s, so that passes can stand between the runs of a benchmark and see the same
// load.
//
// Threading: one thread at a time, and no run of the team beside it.
// Ownership: owns two buffers of buffer_bytes until it is destroyed; borrows the team.
// Errors: create() gives kInvalidArgument for a buffer too small to share out, kOutOfMemory with
// the bytes needed and free before it takes any; both calls kCancelled within 50 ms of their flag.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "base/progress.h"
#include "base/result.h"
#include "dispatch/team.h"
#include "machine/free_memory.h"

namespace tandem::profile {

class ReadBandwidth {
 public:
  struct Variant {
    bool huge_pages = false;
    bool prefetch = false;
  };
  static constexpr std::array<Variant, 4> kVariants = {
      {{false, false}, {false, true}, {true, false}, {true, true}}};

  struct Pass {
    std::array<double, kVariants.size()> gb_per_s = {};  // 10^9 bytes per second, as in kVariants
    double best() const;
  };

  // At least 512 MiB and twice what the largest caches hold together: a buffer that is read round
  // and round then finds nearly none of itself in them.  UINT64_MAX where no number is twice that.
  static uint64_t recommended_bytes(uint64_t largest_caches_bytes);

  // Fills the buffers on the threads that will read them, so that on a machine with several memory
  // nodes every thread reads from its own.  Refused when both do not fit in `memory`, because they
  // are mapped without being reserved and filling them would end in the kernel's out-of-memory
  // killer.  Requires: the team outlives this object.  `cancel` may be null, here and below.
  static Result<std::unique_ptr<ReadBandwidth>> create(Team& team, uint64_t buffer_bytes,
                                                       const FreeMemory& memory,
                                                       const CancelFlag* cancel = nullptr);

  // Reads each buffer twice.
  Result<Pass> measure(const CancelFlag* cancel = nullptr);

  // Bytes of the huge-page buffer that lie in huge pages; less than its size where the kernel has
  // none to give or is told not to.  From /proc/self/smaps; 0 when that cannot be read.
  uint64_t huge_page_bytes() const;
  uint64_t buffer_bytes() const { return bytes_; }

 private:
  struct Unmap {
    uint64_t bytes;  // mapped
    void operator()(std::byte* address) const;
  };
  using Buffer = std::unique_ptr<std::byte, Unmap>;
  struct Work;

  ReadBandwidth(Team& team, uint64_t bytes) : team_(team), bytes_(bytes) {}
  static Result<Buffer> map(uint64_t bytes, bool huge_pages);
  static std::byte* start_of(const Buffer& buffer);
  double read_once(Variant variant, const CancelFlag* cancel);

  Team& team_;
  const uint64_t bytes_;  // a multiple of the team's size times kSliceAlignment
  Buffer small_pages_, huge_pages_;
  uint64_t checksum_ = 0;  // of everything read: keeps the reads
};

}  // namespace tandem::profile

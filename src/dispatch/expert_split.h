// Which of a layer's chosen experts the device computes and which the CPU, so that the later of the two ends soonest.
//
// The list of HybriMoE's released scheduler (algorithm only): experts that the device has come first, heaviest first,
// then the others, heaviest first.  The device takes from the head and the link copies what it lacks; the CPU takes from
// the tail.  What is decided is therefore one border in the list.  The released form moves both ends towards each other
// by comparing clocks; here the border is walked until the device's clock passes the CPU's and the better of the two
// splits around it is taken.  The one only grows and the other only falls with the border, so no border is better, and the
// greedy's is one of them.
//
// Threading: pure.  Allocates nothing; O(E log E).
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace tandem {

// An expert with at least one token, as measured or predicted for its number of tokens.
struct SplitExpert {
  int32_t expert = 0;
  int32_t n_tokens = 1;
  bool on_device = false;  // in device memory now
  double cpu_seconds = 0;
  double device_seconds = 0;
};

// All seconds are >= 0.
struct SplitCosts {
  // One expert over the link; infinite where misses are not copied.
  double transfer_seconds = std::numeric_limits<double>::infinity();
  double cpu_first_seconds = 0;     // once, if the CPU computes any: cold caches
  double device_first_seconds = 0;  // once, if the device computes any: launches
  // When each becomes free; the device after a shared expert, for instance.
  double cpu_free_at = 0, device_free_at = 0, link_free_at = 0;
};

struct ExpertSplit {
  size_t n_device =
      0;  // experts[0, n_device) go to the device, in this order; the CPU takes the rest from the end
  size_t n_copied = 0;                         // the last of those n_device, in order
  double cpu_seconds = 0, device_seconds = 0;  // when each is done, counted as the clocks above

  double seconds() const { return cpu_seconds > device_seconds ? cpu_seconds : device_seconds; }
};

// Reorders `experts` as said above; equal ones by their number, so that the order given does not matter.
ExpertSplit split_experts(std::span<SplitExpert> experts, const SplitCosts& costs);

}  // namespace tandem

#include "dispatch/expert_split.h"

#include <algorithm>

namespace tandem {
namespace {

bool goes_before(const SplitExpert& a, const SplitExpert& b) {
  if (a.on_device != b.on_device) return a.on_device;
  if (a.n_tokens != b.n_tokens) return a.n_tokens > b.n_tokens;
  return a.expert < b.expert;
}

// The device's clock while it takes experts from the head.
class DeviceClock {
 public:
  explicit DeviceClock(const SplitCosts& costs)
      : costs_(costs), link_(costs.link_free_at), device_(costs.device_free_at) {}

  double now() const { return device_; }

  void take(const SplitExpert& expert) {
    if (first_) device_ += costs_.device_first_seconds;  // while the first copy is under way
    first_ = false;
    if (!expert.on_device) {
      link_ += costs_.transfer_seconds;
      device_ = std::max(device_, link_);
    }
    device_ += expert.device_seconds;
  }

 private:
  const SplitCosts& costs_;
  double link_, device_;
  bool first_ = true;
};

// The CPU's clock when it computes experts[first ..).  Summed from the end, the order in which it takes them, so that
// the result does not depend on what was tried before.
double cpu_clock(std::span<const SplitExpert> experts, size_t first, const SplitCosts& costs) {
  double clock = costs.cpu_free_at + (first < experts.size() ? costs.cpu_first_seconds : 0);
  for (size_t i = experts.size(); i-- > first;) clock += experts[i].cpu_seconds;
  return clock;
}

}  // namespace

ExpertSplit split_experts(std::span<SplitExpert> experts, const SplitCosts& costs) {
  std::sort(experts.begin(), experts.end(), goes_before);
  double cpu = cpu_clock(experts, 0, costs);
  DeviceClock device(costs);
  size_t border = 0;
  double device_before = device.now();
  // Stops behind the first expert with which the device is done no sooner than the CPU.
  while (border < experts.size() && device.now() < cpu) {
    device_before = device.now();
    device.take(experts[border]);
    cpu -= experts[border].cpu_seconds;
    ++border;
    if (border == experts.size()) cpu = costs.cpu_free_at;
  }
  ExpertSplit split;
  split.n_device = border;
  split.cpu_seconds = cpu_clock(experts, border, costs);
  split.device_seconds = device.now();
  if (border > 0) {
    ExpertSplit one_less;
    one_less.n_device = border - 1;
    one_less.cpu_seconds = cpu_clock(experts, border - 1, costs);
    one_less.device_seconds = device_before;
    if (one_less.seconds() < split.seconds()) split = one_less;
  }
  for (size_t i = 0; i < split.n_device; ++i) split.n_copied += experts[i].on_device ? 0 : 1;
  return split;
}

}  // namespace tandem

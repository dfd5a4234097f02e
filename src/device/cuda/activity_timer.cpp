#include "device/cuda/activity_timer.h"

#include <algorithm>
#include <chrono>

#include "base/clock.h"
#include "kernels_gpu/launch.h"

namespace tandem::cuda {
namespace {

Result<EventOwner> make_event() {
  cudaEvent_t event = nullptr;
  TANDEM_RETURN_IF_ERROR(
      gpu::status_from_cuda(cudaEventCreateWithFlags(&event, cudaEventDefault), "making an event"));
  return EventOwner(event);
}

// 0 where the card does not say.
int64_t ns_between(cudaEvent_t from, cudaEvent_t to) {
  float milliseconds = 0;
  if (cudaEventElapsedTime(&milliseconds, from, to) == cudaSuccess)
    return static_cast<int64_t>(static_cast<double>(milliseconds) * 1e6);
  (void)cudaGetLastError();
  return 0;
}

int64_t now_ns() { return std::chrono::nanoseconds(Clock::now().time_since_epoch()).count(); }

}  // namespace

Status ActivityTimer::set(DeviceObserver* observer) {
  first_ = n_ = 0;
  observer_ = nullptr;
  if (observer != nullptr && timed_.empty()) {
    std::vector<Timed> timed(kCapacity);
    for (Timed& each : timed) {
      TANDEM_ASSIGN_OR_RETURN(each.before, make_event());
      TANDEM_ASSIGN_OR_RETURN(each.behind, make_event());
    }
    timed_ = std::move(timed);
  }
  observer_ = observer;
  return ok_status();
}

void ActivityTimer::begin(cudaStream_t stream) {
  begun_ = false;
  if (!listens() || n_ == kCapacity) return;
  begun_ = cudaEventRecord(timed_[(first_ + n_) % kCapacity].before.get(), stream) == cudaSuccess;
  if (!begun_) (void)cudaGetLastError();
}

void ActivityTimer::end(cudaStream_t stream, const DeviceActivity& activity) {
  if (!begun_) return;
  begun_ = false;
  Timed& timed = timed_[(first_ + n_) % kCapacity];
  timed.activity = activity;
  if (cudaEventRecord(timed.behind.get(), stream) == cudaSuccess) {
    ++n_;
  } else {
    (void)cudaGetLastError();
  }
}

bool ActivityTimer::passed(const Timed& timed) const {
  const bool has = cudaEventQuery(timed.behind.get()) == cudaSuccess;
  if (!has) (void)cudaGetLastError();
  return has;
}

// Streams do not end in the order of submission: one that has not yet holds the others back, until the next time.
void ActivityTimer::tell() {
  if (!listens()) return;
  size_t n_passed = 0;
  while (n_passed < n_ && passed(timed_[(first_ + n_passed) % kCapacity])) ++n_passed;
  if (n_passed == 0) return;
  const cudaEvent_t start = timed_[first_].before.get();
  int64_t newest = 0;
  for (size_t i = 0; i < n_passed; ++i) {
    Timed& timed = timed_[(first_ + i) % kCapacity];
    timed.activity.begin_ns = ns_between(start, timed.before.get());
    timed.activity.end_ns = ns_between(start, timed.behind.get());
    newest = std::max(newest, timed.activity.end_ns);
  }
  const int64_t start_ns = now_ns() - newest;
  for (size_t i = 0; i < n_passed; ++i) {
    DeviceActivity& activity = timed_[(first_ + i) % kCapacity].activity;
    activity.begin_ns += start_ns;
    activity.end_ns += start_ns;
    observer_->observed(activity);
  }
  first_ = (first_ + n_passed) % kCapacity;
  n_ -= n_passed;
}

}  // namespace tandem::cuda

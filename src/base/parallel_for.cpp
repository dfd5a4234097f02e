#include "base/parallel_for.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <utility>

#include "base/tbb_threads.h"

namespace tandem {
namespace {

class Loop {
 public:
  Loop(size_t n, const CancelFlag& cancel, const std::function<Status(size_t)>& body)
      : n_(n), cancel_(cancel), body_(body) {}

  Status run(unsigned n_threads) {
    begun_.store(true, std::memory_order_release);
    run_on_threads(
        n_threads, [](void* loop) noexcept { static_cast<Loop*>(loop)->take_part(); }, this);
    (void)n_ended_.load(std::memory_order_acquire);
    if (thrown_) std::rethrow_exception(thrown_);
    if (!error_.ok()) return error_;
    return n_drawn_.load(std::memory_order_relaxed) < n_ ? cancelled("cancelled") : ok_status();
  }

 private:
  // oneTBB orders its threads itself; begun_ and n_ended_ say it again for the thread sanitizer,
  // which cannot see inside. The counter says nothing, or it would hide from it that two bodies
  // touch the same.
  void take_part() {
    (void)begun_.load(std::memory_order_acquire);
    // A drawn index is always run. So all below a failed one are, and the lowest failure is always
    // found.
    while (!failed_.load(std::memory_order_relaxed) && !cancel_.cancelled()) {
      const size_t index = n_drawn_.fetch_add(1, std::memory_order_relaxed);
      if (index >= n_) break;
      run_one(index);
    }
    n_ended_.fetch_add(1, std::memory_order_release);
  }

  void run_one(size_t index) {
    try {
      Status status = body_(index);
      if (!status.ok()) fail(index, std::move(status), nullptr);
    } catch (...) {
      fail(index, ok_status(), std::current_exception());
    }
  }

  void fail(size_t index, Status error, std::exception_ptr thrown) {
    const std::lock_guard lock(mutex_);
    if (failed_.load(std::memory_order_relaxed) && index > failed_index_) return;
    failed_index_ = index;
    error_ = std::move(error);
    thrown_ = std::move(thrown);
    failed_.store(true, std::memory_order_relaxed);
  }

  const size_t n_;
  const CancelFlag& cancel_;
  const std::function<Status(size_t)>& body_;

  // Safe on their own.
  std::atomic<bool> begun_{false};
  std::atomic<size_t> n_drawn_{0};
  std::atomic<unsigned> n_ended_{0};
  std::atomic<bool> failed_{false};

  std::mutex mutex_;
  // Guarded by mutex_ while bodies run.
  size_t failed_index_ = 0;
  Status error_;
  std::exception_ptr thrown_;
};

}  // namespace

Status parallel_for(size_t n, unsigned n_threads, const CancelFlag& cancel,
                    const std::function<Status(size_t)>& body) {
  TANDEM_ASSERT(n_threads >= 1);
  return Loop(n, cancel, body).run(static_cast<unsigned>(std::min<size_t>(n_threads, n)));
}

}  // namespace tandem

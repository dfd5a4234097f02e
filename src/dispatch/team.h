// The engine's own persistent threads, used for steps.  A run hands one function to all of them at
// once and barriers order the pieces inside it; nothing is queued and nothing is allocated.
//
// Waiting threads spin for Options::spin and then sleep, so that the next piece of a step starts
// within about 100 ns while an engine without work takes no processor time.  While spinning is long
// enough no thread makes a system call.
//
// Threading: any thread may call run(), one at a time; it takes part as thread 0.  barrier() is only
// called inside a body, by every thread of the team the same number of times.
// Ownership: owns size() - 1 threads, which block all signals and end in the destructor.  Does not
// own the context.
// Errors: create() gives kInvalidArgument for impossible options, kOutOfMemory when the system has
// no more threads, kIo when a thread cannot be pinned.  run() and barrier() cannot fail.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "base/result.h"

namespace tandem {

class Team {
 public:
  static constexpr unsigned kMaxThreads = 1024;

  struct Options {
    unsigned n_threads = 1;
    // Processor of each thread; empty leaves them to the scheduler.  Entry 0 belongs to the caller of
    // run(), whose placement stays its own: it is kept free of workers and not applied.
    std::vector<int> cpus;
    // How long a waiting thread spins before it sleeps.  Unset: kDefaultSpin, or none at all when the
    // team has more threads than the process may use processors, where spinning delays the thread
    // that is waited for.
    std::optional<std::chrono::microseconds> spin;
  };
  // About what sleeping and waking costs on a virtual machine, so that a wait never takes more than
  // twice the best choice.  Longer looks free on an idle machine and is ruinous on a shared one: on a
  // 2-core Xeon VM with two compilers beside it, pieces of 200 us took 640, 740, 690-930 and 1790 us
  // with 0, 50, 100-200 and 1000 us of spin.
  static constexpr std::chrono::microseconds kDefaultSpin{50};

  // Runs on every thread, with the default floating-point environment (round to nearest, no flush
  // to zero), whatever the calling thread has set: results do not depend on the number of threads.
  using Body = void (*)(void* context, unsigned thread_index) noexcept;

  static Result<std::unique_ptr<Team>> create(const Options& options);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  unsigned size() const { return n_threads_; }
  std::chrono::microseconds spin() const { return spin_; }

  // Runs body(context, i) for every i < size(), i == 0 on this thread; returns when all are done.
  // What the caller wrote before is visible to every body, what they wrote to the caller after.
  void run(Body body, void* context);

  // Returns when all threads of the team have called it as often as this one.
  // What any thread wrote before is visible to all after.
  void barrier(unsigned thread_index);

 private:
  // A word that threads wait on until it changes.  In cache lines of its own.
  struct alignas(128) Gate {
    std::atomic<uint32_t> value{0};
    std::atomic<uint32_t> n_sleepers{0};
  };
  // What only thread i touches.
  struct alignas(128) Seat {
    uint32_t generation = 0;  // barriers passed
  };

  Team(unsigned n_threads, std::chrono::microseconds spin);
  Status start_workers(const std::vector<int>& cpus);
  void work(unsigned thread_index);
  void open(Gate& gate, uint32_t value);
  void wait_while(Gate& gate, uint32_t value);
  bool spin_while(const Gate& gate, uint32_t value) const;

  // Constant after construction.
  const unsigned n_threads_;
  const std::chrono::microseconds spin_;
  std::vector<std::thread> workers_;

  // Written by the caller of run() before start_ opens, read by the workers after.
  Body body_ = nullptr;  // null: end
  void* context_ = nullptr;

  std::vector<Seat> seats_;
  Gate start_;    // value: number of runs
  Gate barrier_;  // value: number of barriers
  alignas(128) std::atomic<uint32_t> n_arrived_{0};
  std::atomic<bool> running_{false};  // catches a second run() in debug builds
};

}  // namespace tandem

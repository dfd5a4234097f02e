// parallel_for() in a program that uses oneTBB itself.
#include <tbb/global_control.h>
#include <tbb/task_arena.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <set>
#include <thread>

#include "base/parallel_for.h"
#include "status_matchers.h"

namespace tandem {
namespace {

using namespace testing;
using Control = tbb::global_control;

size_t limit() { return Control::active_value(Control::max_allowed_parallelism); }
size_t stack_bytes() { return Control::active_value(Control::thread_stack_size); }

std::set<std::thread::id> threads_of_a_loop(unsigned n_threads) {
  const CancelFlag never;
  std::mutex mutex;
  std::set<std::thread::id> threads;  // guarded by mutex
  EXPECT_THAT(parallel_for(100, n_threads, never,
                           [&](size_t) {
                             std::this_thread::sleep_for(std::chrono::microseconds(200));
                             const std::lock_guard lock(mutex);
                             threads.insert(std::this_thread::get_id());
                             return ok_status();
                           }),
              is_ok());
  return threads;
}

TEST(ParallelForHost, ItsLimitIsObeyedAndKept) {
  const size_t before = limit(), stack_before = stack_bytes();
  {
    const Control one(Control::max_allowed_parallelism, 1);
    EXPECT_EQ(std::set{std::this_thread::get_id()}, threads_of_a_loop(8));
    EXPECT_EQ(1u, limit());
  }
  {
    const Control three(Control::max_allowed_parallelism, 3);
    EXPECT_LE(threads_of_a_loop(8).size(), 3u);
    EXPECT_EQ(3u, limit());
  }
  EXPECT_EQ(before, limit());
  EXPECT_EQ(stack_before, stack_bytes());
}

TEST(ParallelForHost, ItsArenaKeepsItsSizeAndItsThreadItsPlace) {
  tbb::task_arena arena(2);
  arena.execute([&] {
    const int place = tbb::this_task_arena::current_thread_index();
    EXPECT_LE(threads_of_a_loop(8).size(), 8u);
    EXPECT_EQ(2, tbb::this_task_arena::max_concurrency());
    EXPECT_EQ(place, tbb::this_task_arena::current_thread_index());
  });
  EXPECT_EQ(2, arena.max_concurrency());
}

// All the host's threads are busy in its arena: the loop does not wait for them.
TEST(ParallelForHost, BusyThreadsOfItsOwnHoldNothingUp) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the sanitizer cannot follow what this test itself hands to oneTBB";
#endif
  std::atomic<bool> stop{false};
  std::atomic<size_t> n_begun{0}, n_ended{0};
  tbb::task_arena arena(static_cast<int>(limit()), 0);
  for (size_t i = 0; i < limit(); ++i) {
    arena.enqueue([&] {
      ++n_begun;
      while (!stop) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      ++n_ended;
    });
  }
  while (n_begun == 0) std::this_thread::yield();
  EXPECT_GE(threads_of_a_loop(8).size(), 1u);
  EXPECT_EQ(0u, n_ended);
  stop = true;
  while (n_ended < limit()) std::this_thread::yield();
}

}  // namespace
}  // namespace tandem

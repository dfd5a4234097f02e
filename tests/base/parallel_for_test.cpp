#include "base/parallel_for.h"

#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "status_matchers.h"

namespace tandem {
namespace {

using namespace testing;
using ::testing::HasSubstr;

class ParallelFor : public ::testing::TestWithParam<unsigned> {
 protected:
  CancelFlag cancel_;
};
INSTANTIATE_TEST_SUITE_P(Threads, ParallelFor, ::testing::Values(1u, 2u, 3u, 16u));

TEST_P(ParallelFor, RunsEveryIndexOnce) {
  for (const size_t n : {size_t{0}, size_t{1}, size_t{2}, size_t{17}, size_t{10000}}) {
    std::vector<int> n_runs(n,
                            0);  // plain ints: the sanitizer sees the hand-over back to this thread
    ASSERT_THAT(parallel_for(n, GetParam(), cancel_,
                             [&](size_t i) {
                               ++n_runs[i];
                               return ok_status();
                             }),
                is_ok());
    EXPECT_EQ(n, static_cast<size_t>(std::count(n_runs.begin(), n_runs.end(), 1)));
  }
}

TEST_P(ParallelFor, SeesWhatTheCallerWroteBeforeEachCall) {
  std::vector<size_t> in(64), out(64);
  for (size_t round = 0; round < 200; ++round) {
    for (size_t i = 0; i < in.size(); ++i) in[i] = round * i;
    ASSERT_THAT(parallel_for(in.size(), GetParam(), cancel_,
                             [&](size_t i) {
                               out[i] = in[i] + 1;
                               return ok_status();
                             }),
                is_ok());
    for (size_t i = 0; i < in.size(); ++i) ASSERT_EQ(round * i + 1, out[i]);
  }
}

TEST_P(ParallelFor, NeverWorksOnMoreThreadsThanAsked) {
  std::atomic<unsigned> n_now{0}, n_most{0};
  ASSERT_THAT(parallel_for(200, GetParam(), cancel_,
                           [&](size_t) {
                             const unsigned now = ++n_now;
                             unsigned most = n_most;
                             while (most < now && !n_most.compare_exchange_weak(most, now)) {
                             }
                             std::this_thread::sleep_for(std::chrono::microseconds(50));
                             --n_now;
                             return ok_status();
                           }),
              is_ok());
  EXPECT_GE(n_most, 1u);
  EXPECT_LE(n_most, GetParam());
}

TEST_P(ParallelFor, ReturnsTheErrorOfTheLowestIndexThatFails) {
  for (int round = 0; round < 100; ++round) {
    EXPECT_THAT(parallel_for(1000, GetParam(), cancel_,
                             [](size_t i) {
                               return i == 40 || i == 41 || i == 42
                                          ? io_error("index " + std::to_string(i))
                                          : ok_status();
                             }),
                fails_with(Code::kIo, HasSubstr("index 40")));
  }
}

TEST_P(ParallelFor, StopsSoonAfterAnError) {
  std::atomic<size_t> n_run{0};
  EXPECT_THAT(parallel_for(1000000, GetParam(), cancel_,
                           [&](size_t i) {
                             ++n_run;
                             if (i == 3) return corrupt("three");
                             std::this_thread::sleep_for(std::chrono::microseconds(20));
                             return ok_status();
                           }),
              fails_with(Code::kCorrupt, HasSubstr("three")));
  EXPECT_LT(n_run, 100000u);
}

TEST_P(ParallelFor, RethrowsWhatTheLowestIndexThrewOnceAllBodiesEnded) {
  for (int round = 0; round < 100; ++round) {
    std::atomic<int> n_inside{0};
    try {
      (void)parallel_for(100, GetParam(), cancel_, [&](size_t i) -> Status {
        const struct Inside {
          explicit Inside(std::atomic<int>& counter) : n(counter) { ++n; }
          ~Inside() { --n; }
          std::atomic<int>& n;
        } inside(n_inside);
        if (i == 8) return io_error("a Status of a higher index");
        if (i == 7) throw std::runtime_error("seven");
        return ok_status();
      });
      ADD_FAILURE() << "nothing was thrown";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ("seven", error.what());
    }
    EXPECT_EQ(0, n_inside);
  }
}

TEST_P(ParallelFor, CancelledBeforehandRunsNothing) {
  cancel_.cancel();
  bool ran = false;
  const Status status = parallel_for(10, GetParam(), cancel_, [&](size_t) {
    ran = true;
    return ok_status();
  });
  EXPECT_THAT(status, fails_with(Code::kCancelled, HasSubstr("cancelled")));
  EXPECT_FALSE(ran);
}

TEST_P(ParallelFor, ACancelFromAnotherThreadStopsItEarly) {
  std::atomic<size_t> n_run{0};
  std::thread canceller;
  const Status status = parallel_for(100000, GetParam(), cancel_, [&](size_t i) {
    if (i == 0) canceller = std::thread([&] { cancel_.cancel(); });
    ++n_run;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return ok_status();
  });
  canceller.join();
  EXPECT_THAT(status, fails_with(Code::kCancelled, HasSubstr("cancelled")));
  EXPECT_LT(n_run, 50000u);
}

TEST_P(ParallelFor, ACancelAfterTheLastIndexBeganTakesNothingBack) {
  EXPECT_THAT(parallel_for(5, GetParam(), cancel_,
                           [&](size_t i) {
                             if (i == 4) cancel_.cancel();
                             return ok_status();
                           }),
              is_ok());
}

TEST_P(ParallelFor, RunsInsideItself) {
  std::vector<std::vector<int>> n_runs(20, std::vector<int>(50, 0));
  ASSERT_THAT(parallel_for(n_runs.size(), GetParam(), cancel_,
                           [&](size_t i) {
                             return parallel_for(n_runs[i].size(), GetParam(), cancel_,
                                                 [&, i](size_t j) {
                                                   ++n_runs[i][j];
                                                   return ok_status();
                                                 });
                           }),
              is_ok());
  for (const std::vector<int>& row : n_runs) EXPECT_EQ(50, std::count(row.begin(), row.end(), 1));
}

TEST_P(ParallelFor, AnErrorInsideItselfComesOutWithItsText) {
  EXPECT_THAT(parallel_for(8, GetParam(), cancel_,
                           [&](size_t i) {
                             return parallel_for(8, GetParam(), cancel_, [i](size_t j) {
                               return i == 2 && j == 5 ? corrupt("row 2, column 5") : ok_status();
                             });
                           }),
              fails_with(Code::kCorrupt, HasSubstr("row 2, column 5")));
}

// A caller that waits must not pick up another loop's body: this mutex would then be taken twice.
TEST_P(ParallelFor, ACallerThatHoldsALockIsNotGivenAnotherLoopsBody) {
  std::mutex mutex;
  ASSERT_THAT(parallel_for(50, GetParam(), cancel_,
                           [&](size_t) {
                             const std::lock_guard lock(mutex);
                             return parallel_for(20, GetParam(), cancel_,
                                                 [](size_t) { return ok_status(); });
                           }),
              is_ok());
}

TEST_P(ParallelFor, SeveralThreadsCallItAtOnce) {
  std::vector<std::vector<size_t>> out(4, std::vector<size_t>(500));
  std::vector<std::thread> callers;
  for (std::vector<size_t>& mine : out) {
    callers.emplace_back([&] {
      for (int round = 0; round < 20; ++round) {
        EXPECT_THAT(parallel_for(mine.size(), GetParam(), cancel_,
                                 [&](size_t i) {
                                   mine[i] += i;
                                   return ok_status();
                                 }),
                    is_ok());
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (const std::vector<size_t>& mine : out) EXPECT_EQ(20u * 499, mine[499]);
}

// Two bodies that wait for each other: ends only if a second thread came, or after the wait.
size_t n_threads_seen(unsigned n_threads, const CancelFlag& cancel) {
  std::mutex mutex;
  std::condition_variable changed;
  std::set<std::thread::id> seen;  // guarded by mutex
  const Status status = parallel_for(2, n_threads, cancel, [&](size_t) {
    std::unique_lock lock(mutex);
    seen.insert(std::this_thread::get_id());
    changed.notify_all();
    changed.wait_for(lock, std::chrono::milliseconds(n_threads > 1 ? 3000 : 10),
                     [&] { return seen.size() == 2; });
    return ok_status();
  });
  EXPECT_THAT(status, is_ok());
  return seen.size();
}

TEST(ParallelForThreads, OneThreadIsTheCallersAndTwoAreTwo) {
  const CancelFlag never;
  EXPECT_EQ(1u, n_threads_seen(1, never));
  if (std::thread::hardware_concurrency() < 2)
    GTEST_SKIP() << "one processor: oneTBB has no thread";
  EXPECT_EQ(2u, n_threads_seen(2, never));
}

// Each in a process of its own, so that the threads are started by the call and by no earlier test.
class ParallelForDeathTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (std::thread::hardware_concurrency() < 2)
      GTEST_SKIP() << "one processor: oneTBB has no thread";
    GTEST_FLAG_SET(death_test_style, "threadsafe");
  }
};

[[noreturn]] void look_at_signals() {
  const CancelFlag never;
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<int> n_wrong{0}, n_others{0};
  const Status status = parallel_for(200, 2, never, [&](size_t) {
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, nullptr, &mask);
    const bool is_caller = std::this_thread::get_id() == caller;
    if (!is_caller) ++n_others;
    if ((sigismember(&mask, SIGTERM) == 0) != is_caller) ++n_wrong;
    if (sigismember(&mask, SIGSEGV) != 0) ++n_wrong;  // a crash must reach the host's handler
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    return ok_status();
  });
  std::_Exit(status.ok() && n_wrong == 0 && n_others > 0 ? 0 : 1);
}

TEST_F(ParallelForDeathTest, ItsThreadsTakeNoneOfTheHostsSignalsAndTheCallerKeepsThem) {
  EXPECT_EXIT(look_at_signals(), ::testing::ExitedWithCode(0), "");
}

[[noreturn]] void ask_for_many() {
  const CancelFlag never;
  const Status status = parallel_for(5000, 1000, never, [](size_t) { return ok_status(); });
  std::_Exit(status.ok() ? 0 : 1);
}

// oneTBB warns on standard error when an arena is larger than its limit.
TEST_F(ParallelForDeathTest, AskingForMoreThreadsThanThereArePrintsNothing) {
  EXPECT_EXIT(ask_for_many(), ::testing::ExitedWithCode(0), ::testing::IsEmpty());
}

#if defined(__SANITIZE_THREAD__)
// That oneTBB is invisible to the sanitizer must not make our own mistakes invisible too.
[[noreturn]] void race_between_bodies() {
  const CancelFlag never;
  size_t shared = 0;
  const Status status = parallel_for(500, 2, never, [&](size_t i) {
    shared += i;  // the mistake
    std::this_thread::sleep_for(std::chrono::microseconds(100));
    return ok_status();
  });
  std::exit(status.ok() ? 0 : 1);
}

TEST_F(ParallelForDeathTest, ARaceBetweenBodiesIsReported) {
  EXPECT_EXIT(race_between_bodies(), ::testing::ExitedWithCode(66), "data race");
}

[[noreturn]] void race_with_a_stranger() {
  const CancelFlag never;
  size_t shared = 0;
  std::thread stranger([&] {
    for (int i = 0; i < 100; ++i) {
      ++shared;  // the mistake
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  });
  const Status status = parallel_for(100, 2, never, [&](size_t i) {
    if (i == 50) ++shared;
    std::this_thread::sleep_for(std::chrono::microseconds(100));
    return ok_status();
  });
  stranger.join();
  std::exit(status.ok() ? 0 : 1);
}

TEST_F(ParallelForDeathTest, ARaceOfABodyWithAnotherThreadIsReported) {
  EXPECT_EXIT(race_with_a_stranger(), ::testing::ExitedWithCode(66), "data race");
}
#endif

}  // namespace
}  // namespace tandem

#include "dispatch/team.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <xmmintrin.h>

#include <array>
#include <thread>

#include "base/clock.h"
#include "status_matchers.h"

namespace tandem {
namespace {

using testing::fails_with;
using ::testing::HasSubstr;
using testing::is_ok;

std::unique_ptr<Team> make_team(unsigned n_threads) {
  Team::Options options;
  options.n_threads = n_threads;
  auto team = Team::create(options);
  EXPECT_THAT(team, is_ok());
  return team.ok() ? std::move(team).value() : nullptr;
}

double process_cpu_seconds() {
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

struct Visits {
  std::array<int, 64> count = {};
  static void body(void* context, unsigned thread_index) noexcept {
    ++static_cast<Visits*>(context)->count[thread_index];
  }
};

// Before every barrier each thread writes its round, after it each reads its neighbour's.
struct Rounds {
  struct alignas(64) Cell {
    int value = -1;  // plain on purpose: only the barrier orders it
  };
  Team* team = nullptr;
  int n_rounds = 0;
  std::array<std::array<Cell, 64>, 2> cells;
  std::array<int, 64> mismatches = {};

  static void body(void* context, unsigned thread_index) noexcept {
    auto& self = *static_cast<Rounds*>(context);
    const unsigned neighbour = (thread_index + 1) % self.team->size();
    for (int round = 0; round < self.n_rounds; ++round) {
      auto& row = self.cells[static_cast<size_t>(round % 2)];
      row[thread_index].value = round;
      self.team->barrier(thread_index);
      if (row[neighbour].value != round) ++self.mismatches[thread_index];
    }
  }
  int total_mismatches() const {
    int sum = 0;
    for (int n : mismatches) sum += n;
    return sum;
  }
};

class TeamOfSize : public ::testing::TestWithParam<unsigned> {};
INSTANTIATE_TEST_SUITE_P(Threads, TeamOfSize, ::testing::Values(1u, 2u, 4u));

TEST_P(TeamOfSize, RunsTheBodyOnceOnEveryThread) {
  auto team = make_team(GetParam());
  Visits visits;
  team->run(Visits::body, &visits);
  for (unsigned i = 0; i < visits.count.size(); ++i) {
    EXPECT_EQ(visits.count[i], i < GetParam() ? 1 : 0) << "thread " << i;
  }
}

TEST_P(TeamOfSize, BarrierOrdersAHundredThousandRounds) {
  auto team = make_team(GetParam());
  auto rounds = std::make_unique<Rounds>();
  rounds->team = team.get();
  rounds->n_rounds = 100'000;
  team->run(Rounds::body, rounds.get());
  EXPECT_EQ(rounds->total_mismatches(), 0);
}

TEST_P(TeamOfSize, IsReusedThousandsOfTimesFromTwoCallers) {
  auto team = make_team(GetParam());
  Visits visits;
  for (int caller = 0; caller < 2; ++caller) {
    std::thread([&] {
      for (int i = 0; i < 5'000; ++i) team->run(Visits::body, &visits);
    }).join();
  }
  for (unsigned i = 0; i < GetParam(); ++i) EXPECT_EQ(visits.count[i], 10'000);
}

TEST_P(TeamOfSize, ProgressesWhenEveryWaitSleeps) {
  Team::Options options;
  options.n_threads = GetParam();
  options.spin = std::chrono::microseconds(0);
  auto team = Team::create(options);
  ASSERT_THAT(team, is_ok());
  auto rounds = std::make_unique<Rounds>();
  rounds->team = team->get();
  rounds->n_rounds = 5'000;
  (*team)->run(Rounds::body, rounds.get());
  EXPECT_EQ(rounds->total_mismatches(), 0);
}

TEST(Team, DoesNotSpinWithMoreThreadsThanProcessors) {
  auto team = make_team(std::thread::hardware_concurrency() + 3);
  EXPECT_EQ(team->spin().count(), 0);
  auto rounds = std::make_unique<Rounds>();
  rounds->team = team.get();
  rounds->n_rounds = 1'000;
  team->run(Rounds::body, rounds.get());
  EXPECT_EQ(rounds->total_mismatches(), 0);
}

TEST(Team, TakesNoProcessorTimeTwoSecondsAfterTheLastRun) {
  auto team = make_team(2);
  Visits visits;
  team->run(Visits::body, &visits);
  std::this_thread::sleep_for(std::chrono::seconds(2));
  const double cpu_before = process_cpu_seconds();
  const auto start = Clock::now();
  std::this_thread::sleep_for(std::chrono::seconds(1));
  EXPECT_LT(process_cpu_seconds() - cpu_before, 0.01 * seconds_since(start));
}

TEST(Team, WakesSleepingWorkers) {
  auto team = make_team(2);
  Visits visits;
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(Team::kDefaultSpin * 40);
    team->run(Visits::body, &visits);
  }
  EXPECT_EQ(visits.count[1], 20);
}

TEST(Team, WorkersBlockAllSignalsAndTheCallerKeepsItsOwn) {
  auto team = make_team(2);
  std::array<sigset_t, 2> masks;
  team->run(
      [](void* context, unsigned thread_index) noexcept {
        auto& seen = *static_cast<std::array<sigset_t, 2>*>(context);
        pthread_sigmask(SIG_SETMASK, nullptr, &seen[thread_index]);
      },
      &masks);
  EXPECT_EQ(sigismember(&masks[1], SIGINT), 1);
  EXPECT_EQ(sigismember(&masks[1], SIGTERM), 1);
  EXPECT_EQ(sigismember(&masks[0], SIGINT), 0);
}

TEST(Team, EveryThreadHasTheDefaultFloatEnvironment) {
  const unsigned saved = _mm_getcsr();
  const unsigned flushing = saved | 0x8040;  // as a host program linked with fast-math sets it
  _mm_setcsr(flushing);
  auto team = make_team(2);
  std::array<unsigned, 2> seen = {};
  team->run(
      [](void* context, unsigned thread_index) noexcept {
        (*static_cast<std::array<unsigned, 2>*>(context))[thread_index] = _mm_getcsr() & 0xFFC0;
      },
      &seen);
  const unsigned after = _mm_getcsr();
  _mm_setcsr(saved);
  EXPECT_EQ(seen[0], 0x1F80u);
  EXPECT_EQ(seen[1], 0x1F80u);
  EXPECT_EQ(after & 0x8040, 0x8040u) << "the caller's own environment was lost";
}

TEST(Team, PinsWorkersWhereToldAndLeavesTheCallerAlone) {
  cpu_set_t caller_before;
  ASSERT_EQ(::sched_getaffinity(0, sizeof(caller_before), &caller_before), 0);
  int last = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(static_cast<size_t>(cpu), &caller_before)) last = cpu;
  }
  Team::Options options;
  options.n_threads = 2;
  options.cpus = {last, last};
  auto team = Team::create(options);
  ASSERT_THAT(team, is_ok());
  std::array<cpu_set_t, 2> seen;
  (*team)->run(
      [](void* context, unsigned thread_index) noexcept {
        auto& masks = *static_cast<std::array<cpu_set_t, 2>*>(context);
        ::sched_getaffinity(0, sizeof(cpu_set_t), &masks[thread_index]);
      },
      &seen);
  EXPECT_TRUE(CPU_EQUAL(&seen[0], &caller_before));
  EXPECT_EQ(CPU_COUNT(&seen[1]), 1);
  EXPECT_TRUE(CPU_ISSET(static_cast<size_t>(last), &seen[1]));
}

TEST(Team, RefusesImpossibleOptions) {
  Team::Options options;
  options.n_threads = 0;
  EXPECT_THAT(Team::create(options), fails_with(Code::kInvalidArgument, HasSubstr("not 0")));
  options.n_threads = Team::kMaxThreads + 1;
  EXPECT_THAT(Team::create(options), fails_with(Code::kInvalidArgument, HasSubstr("1024")));
  options.n_threads = 2;
  options.cpus = {0};
  EXPECT_THAT(Team::create(options),
              fails_with(Code::kInvalidArgument, HasSubstr("1 processors for 2 threads")));
  options.cpus = {0, -1};
  EXPECT_THAT(Team::create(options), fails_with(Code::kInvalidArgument, HasSubstr("processor -1")));
  options.cpus = {0, CPU_SETSIZE - 1};
  EXPECT_FALSE(Team::create(options).ok()) << "pinned to a processor that is not there";
}

}  // namespace
}  // namespace tandem

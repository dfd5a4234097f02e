#include "profiler/read_bandwidth.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <thread>

#include "base/bytes.h"
#include "base/clock.h"
#include "machine/free_memory.h"
#include "status_matchers.h"

namespace tandem::profile {
namespace {

using tandem::testing::fails_with;
using tandem::testing::is_ok;
using ::testing::HasSubstr;

std::unique_ptr<Team> make_team(unsigned n_threads) {
  Team::Options options;
  options.n_threads = n_threads;
  auto team = Team::create(options);
  EXPECT_THAT(team, is_ok());
  return std::move(team).value();
}

uint64_t resident_bytes() {
  uint64_t size_pages = 0, resident_pages = 0;
  std::ifstream("/proc/self/statm") >> size_pages >> resident_pages;
  return resident_pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

TEST(ReadBandwidth, GivesAFigureForEveryVariantThatAgreesWithTheWallClock) {
  auto team = make_team(2);
  auto bandwidth = ReadBandwidth::create(*team, 32 * kMiB, free_memory());
  ASSERT_THAT(bandwidth, is_ok());
  const auto start = Clock::now();
  const auto measured = (*bandwidth)->measure();
  ASSERT_THAT(measured, is_ok());
  const ReadBandwidth::Pass& pass = *measured;
  const double seconds = seconds_since(start);
  double sum_of_parts = 0;
  for (double gb_per_s : pass.gb_per_s) {
    ASSERT_GT(gb_per_s, 0);
    EXPECT_LE(gb_per_s, pass.best());
    sum_of_parts += static_cast<double>((*bandwidth)->buffer_bytes()) / (gb_per_s * 1e9);
  }
  EXPECT_LE(sum_of_parts, seconds);
  EXPECT_GE(sum_of_parts, 0.2 * seconds) << "time was spent on something else than reading";
}

TEST(ReadBandwidth, TouchesBothBuffersWholeBeforeMeasuring) {
  auto team = make_team(1);
  const uint64_t before = resident_bytes();
  auto bandwidth = ReadBandwidth::create(*team, 32 * kMiB, free_memory());
  ASSERT_THAT(bandwidth, is_ok());
  EXPECT_GE(resident_bytes() - before, 2 * 32 * kMiB) << "reads would find the zero page in cache";
}

TEST(ReadBandwidth, SharesOutBuffersOfAnyLength) {
  auto team = make_team(3);
  auto bandwidth = ReadBandwidth::create(*team, 10 * kMiB + 12345, free_memory());
  ASSERT_THAT(bandwidth, is_ok());
  EXPECT_LE((*bandwidth)->buffer_bytes(), 10 * kMiB + 12345);
  EXPECT_EQ((*bandwidth)->buffer_bytes() % (3 * 4096), 0u);
  const auto pass = (*bandwidth)->measure();
  ASSERT_THAT(pass, is_ok());
  EXPECT_GT(pass->best(), 0);
}

// Both calls take more than 50 ms for this buffer, on any machine.
TEST(ReadBandwidth, EndsSoonWhenItIsCancelled) {
  auto team = make_team(2);
  const auto cancel_soon = [](CancelFlag& flag) {
    return std::thread([&flag] {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      flag.cancel();
    });
  };
  CancelFlag flag;
  std::thread canceller = cancel_soon(flag);
  EXPECT_THAT(ReadBandwidth::create(*team, 512 * kMiB, free_memory(), &flag),
              fails_with(Code::kCancelled, HasSubstr("cancelled")));
  canceller.join();
  auto bandwidth = ReadBandwidth::create(*team, 512 * kMiB, free_memory());
  ASSERT_THAT(bandwidth, is_ok());
  double least_ms = INFINITY;
  for (int i = 0; i < 3; ++i) {
    flag.reset();
    const auto start = Clock::now();
    canceller = cancel_soon(flag);
    EXPECT_THAT((*bandwidth)->measure(&flag), fails_with(Code::kCancelled, HasSubstr("cancelled")));
    canceller.join();
    least_ms = std::min(least_ms, 1000 * seconds_since(start));
  }
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  EXPECT_LT(least_ms, 2000);
#else
  EXPECT_LT(least_ms, 100);
#endif
}

TEST(ReadBandwidth, RefusesBuffersThatCannotBeSharedOut) {
  auto team = make_team(2);
  EXPECT_THAT(ReadBandwidth::create(*team, 4096, free_memory()),
              fails_with(Code::kInvalidArgument, HasSubstr("2 threads")));
  EXPECT_FALSE(ReadBandwidth::create(*team, UINT64_MAX, free_memory()).ok());
}

TEST(ReadBandwidth, RecommendsMoreThanTheCachesHold) {
  EXPECT_EQ(ReadBandwidth::recommended_bytes(32 * kMiB), 512 * kMiB);
  EXPECT_EQ(ReadBandwidth::recommended_bytes(480 * kMiB), 960 * kMiB);
  EXPECT_EQ(ReadBandwidth::recommended_bytes(UINT64_MAX), UINT64_MAX);
}

uint64_t mapped_at_most_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmPeak:", 0) == 0) return std::stoull(line.substr(7)) * kKiB;
  }
  return 0;
}

TEST(ReadBandwidth, IsRefusedBeforeItTakesMoreThanIsFree) {
  auto team = make_team(2);
  FreeMemory memory;
  memory.total_bytes = memory.available_bytes = 64 * 1024 * kMiB;
  memory.cgroup_free_bytes = 8 * 1024 * kMiB;
  const uint64_t before = mapped_at_most_bytes();
  const auto bandwidth = ReadBandwidth::create(*team, 4 * 1024 * kMiB, memory);
  EXPECT_THAT(bandwidth, fails_with(Code::kOutOfMemory, HasSubstr("two buffers of 4")));
  EXPECT_EQ(bandwidth.status().bytes_available(), *memory.cgroup_free_bytes);
  EXPECT_GE(bandwidth.status().bytes_needed(), 2 * 4 * 1024 * kMiB);
  EXPECT_LT(mapped_at_most_bytes() - before, 4 * 1024 * kMiB) << "it was mapped all the same";
}

TEST(ReadBandwidth, FitsWhereEnoughIsFreeOrNothingIsKnown) {
  auto team = make_team(1);
  FreeMemory memory;
  EXPECT_THAT(ReadBandwidth::create(*team, kMiB, memory), is_ok());
  memory.total_bytes = 64 * 1024 * kMiB;
  memory.available_bytes = 100 * kMiB;
  EXPECT_THAT(ReadBandwidth::create(*team, kMiB, memory), is_ok());
}

}  // namespace
}  // namespace tandem::profile

#include "dispatch/expert_split.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <vector>

namespace tandem {
namespace {

using Experts = std::vector<SplitExpert>;

// One-token experts of one kind.
Experts equal_experts(size_t n, size_t n_on_device, double cpu, double device) {
  Experts experts;
  for (size_t i = 0; i < n; ++i) {
    experts.push_back({static_cast<int32_t>(i), 1, i < n_on_device, cpu, device});
  }
  return experts;
}

std::vector<int32_t> on_device(const Experts& experts, const ExpertSplit& split) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < split.n_device; ++i) ids.push_back(experts[i].expert);
  return ids;
}

TEST(ExpertSplit, NothingToDoTakesNoTime) {
  const ExpertSplit split = split_experts({}, {});
  EXPECT_EQ(split.n_device, 0u);
  EXPECT_EQ(split.seconds(), 0);
}

TEST(ExpertSplit, MissesGoToTheCpuWhereNothingIsCopied) {
  Experts experts = equal_experts(8, 3, 1.0, 0.1);
  const ExpertSplit split = split_experts(experts, {});
  EXPECT_THAT(on_device(experts, split), ::testing::ElementsAre(0, 1, 2));
  EXPECT_DOUBLE_EQ(split.cpu_seconds, 5);
  EXPECT_DOUBLE_EQ(split.device_seconds, 0.1 + 0.1 + 0.1);
  EXPECT_EQ(split.n_copied, 0u);
}

TEST(ExpertSplit, WithNothingOnTheDeviceItIsLeftAlone) {
  Experts experts = equal_experts(8, 0, 1.0, 0.1);
  const ExpertSplit split = split_experts(experts, {});
  EXPECT_EQ(split.n_device, 0u);
  EXPECT_DOUBLE_EQ(split.cpu_seconds, 8);
}

TEST(ExpertSplit, TheCpuHelpsWithCachedExpertsWhereThatEndsSooner) {
  Experts experts = equal_experts(6, 6, 2.0, 1.0);
  const ExpertSplit split = split_experts(experts, {});
  EXPECT_EQ(split.n_device, 4u);
  EXPECT_DOUBLE_EQ(split.seconds(), 4);
}

TEST(ExpertSplit, TheCpuStaysIdleWhereItsFirstExpertCostsTooMuch) {
  Experts experts = equal_experts(6, 6, 2.0, 1.0);
  SplitCosts costs;
  costs.cpu_first_seconds = 5;
  EXPECT_EQ(split_experts(experts, costs).n_device, 6u);
  EXPECT_DOUBLE_EQ(split_experts(experts, costs).cpu_seconds, 0);
}

TEST(ExpertSplit, TheDeviceStaysIdleWhereItsFirstExpertCostsTooMuch) {
  Experts experts = equal_experts(3, 3, 1.0, 0.5);
  SplitCosts costs;
  costs.device_first_seconds = 10;
  EXPECT_EQ(split_experts(experts, costs).n_device, 0u);
}

TEST(ExpertSplit, HeavyMissesAreCopiedFirst) {
  Experts experts = equal_experts(4, 1, 1.0, 0.1);
  experts[2].n_tokens = 50;
  experts[2].cpu_seconds = 50;
  SplitCosts costs;
  costs.transfer_seconds = 2;
  const ExpertSplit split = split_experts(experts, costs);
  EXPECT_THAT(on_device(experts, split), ::testing::ElementsAre(0, 2));
  EXPECT_EQ(split.n_copied, 1u);
  EXPECT_DOUBLE_EQ(split.device_seconds, 2.1);
  EXPECT_DOUBLE_EQ(split.cpu_seconds, 2);
}

TEST(ExpertSplit, ASharedExpertOnTheDeviceMovesWorkToTheCpu) {
  Experts experts = equal_experts(4, 4, 1.0, 1.0);
  SplitCosts costs;
  EXPECT_EQ(split_experts(experts, costs).n_device, 2u);
  costs.device_free_at = 2;
  EXPECT_EQ(split_experts(experts, costs).n_device, 1u);
}

TEST(ExpertSplit, DoesNotDependOnTheOrderGiven) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    Experts experts;
    for (int32_t i = 0; i < 12; ++i) {
      const int32_t n = static_cast<int32_t>(1 + random() % 3);  // many ties
      experts.push_back({i, n, random() % 2 == 0, 1.0 * n, 0.3});
    }
    SplitCosts costs;
    costs.transfer_seconds = 0.8;
    Experts shuffled = experts;
    std::shuffle(shuffled.begin(), shuffled.end(), random);
    const ExpertSplit a = split_experts(experts, costs);
    const ExpertSplit b = split_experts(shuffled, costs);
    EXPECT_EQ(on_device(experts, a), on_device(shuffled, b));
    EXPECT_EQ(a.seconds(), b.seconds());
  }
}

// ---- against all assignments, and against the released form ----

struct Case {
  Experts experts;
  SplitCosts costs;
};

Case random_case(std::mt19937& random, size_t n) {
  const auto between = [&](double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random);
  };
  Case c;
  const double cpu = between(0.2, 2), device_fixed = between(0.05, 1), device = between(0, 0.05);
  const double share = between(0, 1);
  for (size_t i = 0; i < n; ++i) {
    const int32_t tokens = static_cast<int32_t>(1 + random() % 8);
    c.experts.push_back({static_cast<int32_t>(i), tokens, between(0, 1) < share, cpu * tokens,
                         device_fixed + device * tokens});
  }
  c.costs.transfer_seconds = between(0.1, 4);
  c.costs.cpu_first_seconds = between(0, 1);
  c.costs.device_first_seconds = between(0, 0.3);
  c.costs.device_free_at = random() % 2 == 0 ? between(0, 1) : 0;
  return c;
}

// The makespan when exactly the experts of the set go to the device, in the best order: those it has, then copies (all
// take equally long on the link, so the ones with the longest computation go first).
double makespan(const Case& c, unsigned device_set) {
  double device = c.costs.device_free_at, link = c.costs.link_free_at, cpu = c.costs.cpu_free_at;
  bool device_used = false, cpu_used = false;
  std::vector<double> copied;
  for (size_t i = 0; i < c.experts.size(); ++i) {
    if ((device_set >> i & 1) == 0) {
      cpu += c.experts[i].cpu_seconds + (cpu_used ? 0 : c.costs.cpu_first_seconds);
      cpu_used = true;
      continue;
    }
    if (!device_used) device += c.costs.device_first_seconds;
    device_used = true;
    if (c.experts[i].on_device) {
      device += c.experts[i].device_seconds;
    } else {
      copied.push_back(c.experts[i].device_seconds);
    }
  }
  std::sort(copied.rbegin(), copied.rend());
  for (double seconds : copied) {
    link += c.costs.transfer_seconds;
    device = std::max(device, link) + seconds;
  }
  return std::max(device, cpu);
}

// One list, two ends, three clocks, as in the released code.
double greedy(Case c) {
  std::sort(c.experts.begin(), c.experts.end(), [](const SplitExpert& a, const SplitExpert& b) {
    if (a.on_device != b.on_device) return a.on_device;
    return a.n_tokens != b.n_tokens ? a.n_tokens > b.n_tokens : a.expert < b.expert;
  });
  double cpu = c.costs.cpu_free_at, device = c.costs.device_free_at, link = c.costs.link_free_at;
  bool cpu_used = false, device_used = false;
  size_t head = 0, tail = c.experts.size();
  while (head < tail) {
    const SplitExpert& h = c.experts[head];
    const SplitExpert& t = c.experts[tail - 1];
    const double arrives = h.on_device ? device : std::max(device, link + c.costs.transfer_seconds);
    const double on_device =
        arrives + h.device_seconds + (device_used ? 0 : c.costs.device_first_seconds);
    const double on_cpu = cpu + t.cpu_seconds + (cpu_used ? 0 : c.costs.cpu_first_seconds);
    if (on_device <= on_cpu) {
      if (!h.on_device) link += c.costs.transfer_seconds;
      device = on_device;
      device_used = true;
      ++head;
    } else {
      cpu = on_cpu;
      cpu_used = true;
      --tail;
    }
  }
  return std::max(cpu, device);
}

TEST(ExpertSplit, IsNearTheBestOfAllAssignments) {
  std::mt19937 random(1);
  double worst = 1, sum = 0, greedy_worst = 1, greedy_sum = 0;
  const int n_cases = 3000;
  for (int i = 0; i < n_cases; ++i) {
    Case c = random_case(random, 2 + random() % 8);
    double best = makespan(c, 0);
    const unsigned n_sets = 1u << c.experts.size();
    for (unsigned set = 1; set < n_sets; ++set) best = std::min(best, makespan(c, set));
    const double one_processor = std::min(makespan(c, 0), makespan(c, n_sets - 1));
    const double released = greedy(c);
    const double ours = split_experts(c.experts, c.costs).seconds();
    ASSERT_GE(ours, best * (1 - 1e-12));
    ASSERT_LE(ours, released * (1 + 1e-12));
    ASSERT_LE(ours, one_processor * (1 + 1e-12));
    worst = std::max(worst, ours / best);
    sum += ours / best;
    greedy_worst = std::max(greedy_worst, released / best);
    greedy_sum += released / best;
  }
  std::printf("regret over %d cases: mean %.4f, worst %.3f; released form: mean %.4f, worst %.3f\n",
              n_cases, sum / n_cases, worst, greedy_sum / n_cases, greedy_worst);
  EXPECT_LE(sum / n_cases, 1.05);
  EXPECT_LE(worst, 2);
}

TEST(ExpertSplit, TakesAboutAMicrosecond) {
  std::mt19937 random(3);
  for (const size_t n : {8u, 128u}) {
    std::vector<Case> cases;
    for (int i = 0; i < 2048; ++i) cases.push_back(random_case(random, n));
    std::vector<Case> work = cases;
    double best = 1;
    double total = 0;
    for (int round = 0; round < 5; ++round) {
      for (size_t i = 0; i < cases.size(); ++i) work[i].experts = cases[i].experts;
      const auto start = std::chrono::steady_clock::now();
      for (Case& c : work) total += split_experts(c.experts, c.costs).seconds();
      const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
      best = std::min(best, taken.count() / static_cast<double>(cases.size()));
    }
    EXPECT_GT(total, 0);
    std::printf("split of %zu chosen experts: %.2f us\n", n, best * 1e6);
    EXPECT_LT(best, n == 8 ? 20e-6 : 200e-6) << "even under a sanitizer";
  }
}

}  // namespace
}  // namespace tandem

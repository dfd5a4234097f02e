#include "runtime/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <limits>
#include <new>
#include <set>
#include <string>
#include <vector>

#include "status_matchers.h"

namespace {
std::atomic<size_t> allocations{0};
}  // namespace

// Counts every allocation of this program.  Not inlined: gcc would then warn that free() ends what
// new began.
[[gnu::noinline]] void* operator new(size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace tandem {
namespace {

using ::testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Temperature 1 and every filter and penalty off: the plain softmax.
SamplingParameters plain(uint64_t seed = 1) {
  SamplingParameters p;
  p.temperature = 1;
  p.top_k = 0;
  p.top_p = 1;
  p.min_p = 0;
  p.seed = seed;
  return p;
}

std::vector<float> random_logits(size_t n, uint64_t seed, double scale = 3) {
  RandomStream random(seed);
  std::vector<float> logits(n);
  for (float& logit : logits) logit = static_cast<float>(scale * (2 * random.next_unit() - 1));
  return logits;
}

std::vector<double> softmax(const std::vector<float>& logits, double temperature = 1) {
  const double top = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  std::vector<double> p;
  double sum = 0;
  for (const float logit : logits) {
    p.push_back(std::exp((static_cast<double>(logit) - top) / temperature));
    sum += p.back();
  }
  for (double& x : p) x /= sum;
  return p;
}

std::vector<size_t> counts(const SamplingParameters& p, const std::vector<float>& logits, size_t n,
                           const std::vector<TokenId>& recent = {}) {
  Sampler sampler(p, logits.size());
  std::vector<size_t> seen(logits.size(), 0);
  for (size_t i = 0; i < n; ++i) ++seen[static_cast<size_t>(sampler.sample(logits, recent).token)];
  return seen;
}

std::set<size_t> support(const SamplingParameters& p, const std::vector<float>& logits,
                         const std::vector<TokenId>& recent = {}) {
  const std::vector<size_t> seen = counts(p, logits, 4000, recent);
  std::set<size_t> tokens;
  for (size_t i = 0; i < seen.size(); ++i) {
    if (seen[i] > 0) tokens.insert(i);
  }
  return tokens;
}

double chi_square(const std::vector<size_t>& seen, const std::vector<double>& expected) {
  double n = 0, sum = 0;
  for (const size_t count : seen) n += static_cast<double>(count);
  for (size_t i = 0; i < seen.size(); ++i) {
    const double difference = static_cast<double>(seen[i]) - n * expected[i];
    sum += difference * difference / (n * expected[i]);
  }
  return sum;
}

TEST(Sampler, DrawsFromTheSoftmax) {
  const std::vector<float> logits = {0, 1, -1, 2, 0.5f, 1.5f, -0.5f, 0.25f, 1, 0};
  for (const double temperature : {0.5, 1.0, 2.0}) {
    SamplingParameters p = plain(7);
    p.temperature = static_cast<float>(temperature);
    // 9 degrees of freedom: above 27.9 once in a thousand; the seed is fixed, so this is no gamble.
    EXPECT_LT(chi_square(counts(p, logits, 100'000), softmax(logits, temperature)), 27.9);
  }
  // The same test must notice the wrong temperature.
  EXPECT_GT(chi_square(counts(plain(7), logits, 100'000), softmax(logits, 1.1)), 27.9);
}

TEST(Sampler, SameSeedSameTokensOtherSeedOtherTokens) {
  const std::vector<float> logits = random_logits(1000, 3);
  const auto draw = [&](uint64_t seed) {
    Sampler sampler(plain(seed), logits.size());
    std::vector<TokenId> tokens;
    for (int i = 0; i < 50; ++i) tokens.push_back(sampler.sample(logits, {}).token);
    return tokens;
  };
  EXPECT_EQ(draw(5), draw(5));
  EXPECT_NE(draw(5), draw(6));
}

// Computed independently from the published definitions of splitmix64 and xoshiro256**.
TEST(Sampler, RandomNumbersAreTheSameOnEveryMachine) {
  RandomStream random(42);
  EXPECT_EQ(random.next(), 1546998764402558742u);
  EXPECT_EQ(random.next(), 6990951692964543102u);
  EXPECT_EQ(random.next(), 12544586762248559009u);
  for (int i = 0; i < 1000; ++i) {
    const double unit = random.next_unit();
    EXPECT_TRUE(unit >= 0 && unit < 1);
  }
}

TEST(Sampler, TemperatureZeroTakesTheLikeliestAndTheLowestOfEquals) {
  SamplingParameters p = plain();
  p.temperature = 0;
  Sampler sampler(p, 5);
  EXPECT_EQ(sampler.sample(std::vector<float>{1, 3, 2, 3, 0}, {}).token, 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{0, 0, 0, 0, 0}, {}).token, 0);
  EXPECT_EQ(sampler.sample(std::vector<float>{-5, -4, -3, -2, -1}, {}).token, 4);
}

TEST(Sampler, TopKOfOneIsTheLikeliest) {
  SamplingParameters p = plain();
  p.top_k = 1;
  const std::vector<float> logits = random_logits(500, 4);
  const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
  EXPECT_EQ(support(p, logits), std::set<size_t>{static_cast<size_t>(best)});
}

TEST(Sampler, TopKKeepsTheBest) {
  SamplingParameters p = plain();
  p.top_k = 3;
  EXPECT_EQ(support(p, {0, 1, 2, 1.5f, 0.5f}), (std::set<size_t>{1, 2, 3}));
  p.top_k = 2;  // of equals the lower id stays
  EXPECT_EQ(support(p, {1, 1, 1, 1}), (std::set<size_t>{0, 1}));
  p.top_k = 100;  // more than there are: all
  EXPECT_EQ(support(p, {1, 1, 1}), (std::set<size_t>{0, 1, 2}));
}

TEST(Sampler, TopPKeepsTheShortestStartThatReachesIt) {
  // Probabilities 0.5, 0.3, 0.15, 0.05.
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.15f),
                                     std::log(0.05f)};
  SamplingParameters p = plain();
  p.top_p = 0.49f;
  EXPECT_EQ(support(p, logits), (std::set<size_t>{0}));
  p.top_p = 0.51f;
  EXPECT_EQ(support(p, logits), (std::set<size_t>{0, 1}));
  p.top_p = 0.9f;
  EXPECT_EQ(support(p, logits), (std::set<size_t>{0, 1, 2}));
  p.top_p = 1;
  EXPECT_EQ(support(p, logits), (std::set<size_t>{0, 1, 2, 3}));
}

TEST(Sampler, MinPIsAShareOfTheLikeliest) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.15f),
                                     std::log(0.05f)};
  SamplingParameters p = plain();
  p.min_p = 0.29f;  // 0.15 / 0.5 = 0.3
  EXPECT_EQ(support(p, logits), (std::set<size_t>{0, 1, 2}));
  p.min_p = 0.31f;
  EXPECT_EQ(support(p, logits), (std::set<size_t>{0, 1}));
  p.min_p = 1;
  EXPECT_EQ(support(p, logits), (std::set<size_t>{0}));
}

TEST(Sampler, FiltersDoNotDependOnTheTemperature) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.15f),
                                     std::log(0.05f)};
  SamplingParameters p = plain();
  p.top_p = 0.9f;
  p.min_p = 0.29f;
  p.temperature = 50;
  EXPECT_EQ(support(p, logits), (std::set<size_t>{0, 1, 2}));
}

TEST(Sampler, TopPCountsWhatTopKLeft) {
  // Of 0.4, 0.3, 0.2, 0.1, top-k 2 leaves 4/7 and 3/7: 0.55 is reached by the first alone.
  const std::vector<float> logits = {std::log(0.4f), std::log(0.3f), std::log(0.2f),
                                     std::log(0.1f)};
  SamplingParameters p = plain();
  p.top_p = 0.55f;
  EXPECT_EQ(support(p, logits), (std::set<size_t>{0, 1}));
  p.top_k = 2;
  EXPECT_EQ(support(p, logits), (std::set<size_t>{0}));
}

TEST(Sampler, RepeatPenaltyMakesRecentTokensLessLikelyOnEitherSideOfZero) {
  SamplingParameters p = plain();
  p.temperature = 0;
  p.repeat_penalty = 2;
  const std::vector<TokenId> recent = {0};
  Sampler sampler(p, 2);
  EXPECT_EQ(sampler.sample(std::vector<float>{3, 2}, recent).token, 1);       // 1.5 < 2
  EXPECT_EQ(sampler.sample(std::vector<float>{5, 2}, recent).token, 0);       // 2.5 > 2
  EXPECT_EQ(sampler.sample(std::vector<float>{-1, -1.5f}, recent).token, 1);  // -2 < -1.5
}

TEST(Sampler, FrequencyPenaltyCountsAndPresencePenaltyDoesNot) {
  SamplingParameters p = plain();
  p.temperature = 0;
  p.frequency_penalty = 1;
  const std::vector<TokenId> thrice = {0, 0, 0};
  EXPECT_EQ(Sampler(p, 2).sample(std::vector<float>{2.5f, 0}, thrice).token, 1);
  EXPECT_EQ(Sampler(p, 2).sample(std::vector<float>{3.5f, 0}, thrice).token, 0);
  p.frequency_penalty = 0;
  p.presence_penalty = 1;
  EXPECT_EQ(Sampler(p, 2).sample(std::vector<float>{1.5f, 0}, thrice).token, 0);
  EXPECT_EQ(Sampler(p, 2).sample(std::vector<float>{0.5f, 0}, thrice).token, 1);
}

TEST(Sampler, OnlyTheLastTokensCountAsRecent) {
  SamplingParameters p = plain();
  p.temperature = 0;
  p.presence_penalty = 5;
  p.repeat_last_n = 2;
  const std::vector<float> logits = {1, 0, 0};
  EXPECT_EQ(Sampler(p, 3).sample(logits, std::vector<TokenId>{0, 1, 2}).token, 0);
  EXPECT_EQ(Sampler(p, 3).sample(logits, std::vector<TokenId>{1, 0, 2}).token, 1);
  p.repeat_last_n = 0;
  EXPECT_EQ(Sampler(p, 3).sample(logits, std::vector<TokenId>{0}).token, 0);
}

TEST(Sampler, RecentTokensOutsideOfTheVocabularyAreIgnored) {
  SamplingParameters p = plain();
  p.presence_penalty = 1;
  const std::vector<TokenId> recent = {-1, 99, INT32_MAX, INT32_MIN};
  EXPECT_EQ(support(p, {1, 1}, recent), (std::set<size_t>{0, 1}));
}

TEST(Sampler, LogProbabilityIsThatOfTheWholeUntemperedDistribution) {
  const std::vector<float> logits = random_logits(1000, 8);
  const std::vector<double> expected = softmax(logits);
  SamplingParameters p = plain();
  p.temperature = 0.3f;
  p.top_k = 5;
  p.presence_penalty = 3;
  Sampler sampler(p, logits.size());
  for (int i = 0; i < 20; ++i) {
    const Sampler::Choice choice = sampler.sample(logits, std::vector<TokenId>{1, 2, 3});
    EXPECT_NEAR(choice.log_probability, std::log(expected[static_cast<size_t>(choice.token)]),
                1e-4);
  }
}

TEST(Sampler, LargeLogitsDoNotOverflow) {
  for (const float offset : {3e38f, -3e38f, 1e30f}) {
    const std::vector<float> logits = {offset, offset, offset};
    const Sampler::Choice choice = Sampler(plain(), 3).sample(logits, {});
    EXPECT_NEAR(choice.log_probability, -std::log(3.0f), 1e-5f) << offset;
  }
}

TEST(Sampler, WhatIsNoNumberIsNeverPreferredToANumber) {
  for (const float temperature : {0.0f, 1.0f}) {
    SamplingParameters p = plain();
    p.temperature = temperature;
    EXPECT_EQ(support(p, {kNan, -kInfinity, 0.5f, kNan}), (std::set<size_t>{2}));
    p.top_k = 2;
    p.top_p = 0.9f;
    p.min_p = 0.1f;
    EXPECT_EQ(support(p, {kNan, -kInfinity, 0.5f, kNan}), (std::set<size_t>{2}));
  }
}

TEST(Sampler, LogitsThatAreAllBrokenGiveTheSameTokenEveryTime) {
  for (const float broken : {kNan, -kInfinity, kInfinity}) {
    for (const float temperature : {0.0f, 1.0f}) {
      SamplingParameters p = plain();
      p.temperature = temperature;
      EXPECT_EQ(support(p, std::vector<float>(8, broken)), (std::set<size_t>{0})) << broken;
      p.top_k = 3;
      p.top_p = 0.5f;
      p.min_p = 0.5f;
      p.presence_penalty = 1;
      EXPECT_EQ(support(p, std::vector<float>(8, broken)).size(), 1u) << broken;
    }
  }
}

TEST(Sampler, VocabularyOfOneTokenWorks) {
  const Sampler::Choice choice =
      Sampler(SamplingParameters(), 1).sample(std::vector<float>{-4}, {});
  EXPECT_EQ(choice.token, 0);
  EXPECT_NEAR(choice.log_probability, 0, 1e-6);
}

TEST(Sampler, SamplingAllocatesNothing) {
  const std::vector<float> logits = random_logits(5000, 2);
  std::vector<TokenId> recent(200);
  for (size_t i = 0; i < recent.size(); ++i) recent[i] = static_cast<TokenId>(i * 7);
  std::vector<SamplingParameters> all = {plain(), SamplingParameters(), plain()};
  all[1].presence_penalty = 0.5f;
  all[1].repeat_last_n = 1000;
  all[2].temperature = 0;
  for (const SamplingParameters& p : all) {
    Sampler sampler(p, logits.size());
    const size_t before = allocations;
    for (int i = 0; i < 10; ++i) (void)sampler.sample(logits, recent);
    EXPECT_EQ(allocations - before, 0u);
  }
}

TEST(Sampler, TopPWithoutTopKAgreesWithACompleteSort) {
  // Flat enough that the cut lies deep inside of the order.
  const std::vector<float> logits = random_logits(1000, 12, 0.5);
  SamplingParameters p = plain(3);
  p.top_p = 0.5f;
  std::vector<size_t> order(logits.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  const std::vector<double> probabilities = softmax(logits);
  double sum = 0;
  std::set<size_t> kept;
  for (size_t i = 0; sum < 0.5; ++i) {
    kept.insert(order[i]);
    sum += probabilities[order[i]];
  }
  const std::vector<size_t> seen = counts(p, logits, 10'000);
  size_t n_seen = 0;
  for (size_t i = 0; i < seen.size(); ++i) {
    if (seen[i] == 0) continue;
    ++n_seen;
    EXPECT_TRUE(kept.contains(i)) << i;
  }
  EXPECT_GT(n_seen, kept.size() * 99 / 100);
}

TEST(Sampler, DefaultsAreFastForALargeVocabulary) {
  // A few likely tokens and a long tail, as models give.
  std::vector<float> logits = random_logits(200'000, 6);
  for (size_t i = 0; i < 300; ++i) logits[i * 600] += 12;
  for (const char* what : {"defaults", "top-p", "no filter"}) {
    SamplingParameters p = *what == 'd' ? SamplingParameters() : plain();
    if (*what == 't') p.top_p = 0.95f;
    Sampler sampler(p, logits.size());
    (void)sampler.sample(logits, {});
    const auto start = std::clock();
    for (int i = 0; i < 20; ++i) (void)sampler.sample(logits, {});
    const double ms = 1000.0 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC / 20;
    std::printf("200000 tokens, %s: %.2f ms\n", what, ms);
    EXPECT_LT(ms, 500);  // only a change of the order of growth can fail this, sanitizers included
  }
}

TEST(SamplingParameters, ZeroTurnsTopPAndTheRepeatPenaltyOff) {
  SamplingParameters off = plain(), zero = plain();
  zero.top_p = 0;
  zero.repeat_penalty = 0;
  EXPECT_THAT(validate(zero), testing::is_ok());
  const std::vector<float> logits = random_logits(20, 8);
  EXPECT_EQ(counts(off, logits, 1000, {1, 2, 3}), counts(zero, logits, 1000, {1, 2, 3}));
}

TEST(SamplingParameters, ValidationNamesTheField) {
  EXPECT_THAT(validate(SamplingParameters()), testing::is_ok());
  const auto refuses = [](auto change, const char* field) {
    SamplingParameters p;
    change(p);
    EXPECT_THAT(validate(p),
                testing::fails_with(Code::kInvalidArgument,
                                    HasSubstr("sampling." + std::string(field) + " is")));
  };
  for (const float bad : {kNan, -1.0f, kInfinity}) {
    refuses([&](auto& p) { p.temperature = bad; }, "temperature");
    refuses([&](auto& p) { p.top_p = bad; }, "top_p");
    refuses([&](auto& p) { p.min_p = bad; }, "min_p");
    refuses([&](auto& p) { p.repeat_penalty = bad; }, "repeat_penalty");
  }
  refuses([](auto& p) { p.top_p = 1.5f; }, "top_p");
  refuses([](auto& p) { p.top_k = -1; }, "top_k");
  refuses([](auto& p) { p.repeat_penalty = 0.001f; }, "repeat_penalty");
  refuses([](auto& p) { p.repeat_last_n = -1; }, "repeat_last_n");
  refuses([](auto& p) { p.frequency_penalty = kNan; }, "frequency_penalty");
  refuses([](auto& p) { p.presence_penalty = kNan; }, "presence_penalty");
}

}  // namespace
}  // namespace tandem

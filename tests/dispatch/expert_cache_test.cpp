#include "dispatch/expert_cache.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <sstream>

#include "status_matchers.h"

namespace tandem {
namespace {

using testing::fails_with;
using ::testing::HasSubstr;
using testing::is_ok;
using Load = ExpertCache::Load;
using State = ExpertCache::State;

ExpertCache create(const ExpertCacheOptions& options) {
  auto cache = ExpertCache::create(options);
  EXPECT_THAT(cache, is_ok());
  return std::move(cache).value();
}

ExpertCacheOptions options_of(uint32_t n_slots, EvictionPolicy policy, int64_t n_layers = 1) {
  ExpertCacheOptions options;
  options.alpha = 0.5f;
  options.n_layers = n_layers;
  options.n_experts = 8;
  options.n_experts_used = 1;
  options.n_slots = n_slots;
  options.policy = policy;
  return options;
}

// One step of one token that uses one expert in layer 0; loads arrive at once.
std::vector<Load> step(ExpertCache& cache, std::vector<int32_t> ids, size_t most_loads = 8,
                       int64_t layer = 0) {
  cache.begin_step();
  cache.use(layer, ids, {}, 1);
  std::vector<Load> loads(most_loads);
  loads.resize(cache.end_step(loads));
  for (const Load& load : loads) cache.loaded(load.slot);
  return loads;
}

std::vector<int32_t> cached(const ExpertCache& cache, int64_t layer = 0) {
  std::vector<int32_t> experts;
  for (size_t e = 0; e < cache.table(layer).size(); ++e) {
    if (cache.table(layer)[e] >= 0) experts.push_back(static_cast<int32_t>(e));
  }
  return experts;
}

constexpr EvictionPolicy kMrs = EvictionPolicy::kMinusRecentScore;
constexpr EvictionPolicy kLru = EvictionPolicy::kLeastRecentlyUsed;

TEST(ExpertCache, OptionsThatMakeNoSenseAreRefused) {
  ExpertCacheOptions options = options_of(4, kMrs);
  options.n_experts_used = 9;
  EXPECT_THAT(ExpertCache::create(options),
              fails_with(Code::kInvalidArgument, HasSubstr("9 of 8")));
  options = options_of(4, kMrs);
  options.alpha = 0;
  EXPECT_THAT(ExpertCache::create(options), fails_with(Code::kInvalidArgument, HasSubstr("alpha")));
  options = options_of(4, kMrs);
  options.n_layers = 0;
  EXPECT_THAT(ExpertCache::create(options),
              fails_with(Code::kInvalidArgument, HasSubstr("layers")));
}

TEST(ExpertCache, AMissIsLoadedAndFoundOnceItHasArrived) {
  ExpertCache cache = create(options_of(2, kMrs));
  cache.begin_step();
  const std::vector<int32_t> ids = {3};
  cache.use(0, ids, {}, 1);
  std::vector<Load> loads(4);
  ASSERT_EQ(cache.end_step(loads), 1u);
  EXPECT_EQ(loads[0], (Load{0, 3, 0}));
  EXPECT_EQ(cache.state(0), State::kLoading);
  cache.begin_step();  // still under way
  EXPECT_EQ(cache.table(0)[3], -1);
  cache.use(0, ids, {}, 1);
  EXPECT_EQ(cache.end_step(loads), 0u) << "loaded twice";
  cache.loaded(0);
  EXPECT_EQ(cache.table(0)[3], -1) << "the table changed outside begin_step";
  const uint64_t version = cache.version();
  cache.begin_step();
  EXPECT_EQ(cache.table(0)[3], 0);
  EXPECT_GT(cache.version(), version);
  cache.use(0, ids, {}, 1);
  EXPECT_EQ(cache.uses(0), 1u);
  EXPECT_EQ(cache.counters().hits, 1u);
  EXPECT_EQ(cache.counters().misses, 2u);
  cache.end_step(loads);
  EXPECT_EQ(cache.uses(0), 0u);
}

TEST(ExpertCache, AFailedCopyLeavesTheSlotFreeAndIsTriedAgain) {
  ExpertCache cache = create(options_of(1, kLru));
  cache.begin_step();
  cache.use(0, std::vector<int32_t>{3}, {}, 1);
  std::vector<Load> loads(1);
  ASSERT_EQ(cache.end_step(loads), 1u);
  cache.failed(0);
  EXPECT_EQ(cache.state(0), State::kFree);
  EXPECT_EQ(step(cache, {3}).size(), 1u);
}

TEST(ExpertCache, AMissThatCannotWaitIsThereAtOnce) {
  ExpertCache cache = create(options_of(2, kMrs));
  step(cache, {1});
  cache.begin_step();
  cache.use(0, std::vector<int32_t>{1, 2, 3}, {}, 3);
  EXPECT_FALSE(cache.place(0, 1).copy) << "is there";
  const ExpertCache::Placed placed = cache.place(0, 2);
  EXPECT_TRUE(placed.copy);
  EXPECT_EQ(cached(cache), (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(cache.state(static_cast<uint32_t>(placed.slot)), State::kResident);
  EXPECT_EQ(cache.place(0, 3).slot, -1) << "this step's experts keep their slots";
  std::vector<Load> loads(8);
  EXPECT_EQ(cache.end_step(loads), 0u) << "what is as good as expert 3 stays";
}

TEST(ExpertCache, AMissThatCannotWaitTakesTheSlotOfTheLeastWorthInAnyLayer) {
  ExpertCache cache = create(options_of(2, kMrs, 2));
  step(cache, {1});
  step(cache, {1});
  step(cache, {5}, 8, 1);
  cache.begin_step();
  cache.use(0, std::vector<int32_t>{2}, {}, 1);
  EXPECT_TRUE(cache.place(0, 2).copy);
  EXPECT_EQ(cached(cache, 0), (std::vector<int32_t>{2}));
  EXPECT_EQ(cached(cache, 1), (std::vector<int32_t>{5}));
}

TEST(ExpertCache, AMissOnItsWayIsNotPlaced) {
  ExpertCache cache = create(options_of(2, kMrs));
  cache.begin_step();
  cache.use(0, std::vector<int32_t>{1}, {}, 1);
  std::vector<Load> loads(1);
  ASSERT_EQ(cache.end_step(loads), 1u);
  cache.begin_step();
  cache.use(0, std::vector<int32_t>{1}, {}, 1);
  EXPECT_EQ(cache.place(0, 1).slot, -1);
}

TEST(ExpertCache, WhatIsDroppedIsAMissAgain) {
  ExpertCache cache = create(options_of(1, kMrs));
  cache.begin_step();
  cache.use(0, std::vector<int32_t>{1}, {}, 1);
  cache.drop(static_cast<uint32_t>(cache.place(0, 1).slot));
  EXPECT_TRUE(cached(cache).empty());
  EXPECT_EQ(cache.state(0), State::kFree);
}

TEST(ExpertCache, LeastRecentlyUsedMakesRoom) {
  ExpertCache cache = create(options_of(2, kLru));
  step(cache, {1});
  step(cache, {2});
  step(cache, {1});
  step(cache, {3});
  cache.begin_step();
  EXPECT_THAT(cached(cache), ::testing::ElementsAre(1, 3));
  EXPECT_EQ(cache.counters().evictions, 1u);
}

TEST(ExpertCache, ExpertsOfEqualWorthDoNotTakeTurns) {
  for (const EvictionPolicy policy : {kMrs, kLru}) {
    ExpertCacheOptions options = options_of(1, policy);
    options.n_experts_used = 2;
    ExpertCache cache = create(options);
    for (int i = 0; i < 5; ++i) step(cache, {1, 2});
    EXPECT_EQ(cache.counters().loads, 1u);
    EXPECT_EQ(cache.counters().hits, 4u);
  }
}

TEST(ExpertCache, ScoresAreTheRunningAverageOfTheBest) {
  ExpertCacheOptions options = options_of(0, kMrs);
  options.n_experts = 3;
  ExpertCache cache = create(options);
  const std::vector<float> probabilities = {0.6f, 0.3f, 0.1f};  // the 2 best of 3 count
  for (int i = 0; i < 2; ++i) {
    std::vector<Load> none;
    cache.begin_step();
    cache.use(0, std::vector<int32_t>{0}, {}, 1, probabilities);
    EXPECT_EQ(cache.end_step(none), 0u);
  }
  EXPECT_FLOAT_EQ(cache.score(0, 0), 0.45f);
  EXPECT_FLOAT_EQ(cache.score(0, 1), 0.225f);
  EXPECT_FLOAT_EQ(cache.score(0, 2), 0);
}

TEST(ExpertCache, TheLowestScoreMakesRoomAndOnlyForAHigherOne) {
  ExpertCacheOptions options = options_of(1, kMrs);
  options.n_experts_used = 2;
  options.alpha = 0.2f;
  ExpertCache cache = create(options);
  const std::vector<float> weights = {0.9f, 0.1f};
  std::vector<Load> loads(2);
  const auto run = [&](std::vector<int32_t> chosen) {
    cache.begin_step();
    cache.use(0, chosen, weights, 1);
    const size_t n = cache.end_step(loads);
    for (size_t i = 0; i < n; ++i) cache.loaded(loads[i].slot);
    return n;
  };
  EXPECT_EQ(run({1, 2}), 1u);
  EXPECT_EQ(loads[0].expert, 1);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(run({1, 3}), 0u) << "3 scores less than 1";
  EXPECT_EQ(run({4, 5}), 0u) << "0.18 against 0.48";
  EXPECT_EQ(run({4, 5}), 0u) << "0.32 against 0.39";
  EXPECT_EQ(run({4, 5}), 1u) << "0.44 against 0.31";
  EXPECT_EQ(loads[0].expert, 4);
}

TEST(ExpertCache, NoMoreThanTheGivenNumberIsLoadedBestFirst) {
  ExpertCacheOptions options = options_of(8, kMrs);
  options.n_experts_used = 3;
  ExpertCache cache = create(options);
  cache.begin_step();
  const std::vector<int32_t> ids = {5, 6, 7};
  const std::vector<float> weights = {0.2f, 0.5f, 0.3f};
  cache.use(0, ids, weights, 1);
  std::vector<Load> loads(2);
  ASSERT_EQ(cache.end_step(loads), 2u);
  EXPECT_EQ(loads[0].expert, 6);
  EXPECT_EQ(loads[1].expert, 7);
}

TEST(ExpertCache, SeveralTokensCountAnExpertOnce) {
  ExpertCacheOptions options = options_of(4, kMrs);
  options.n_experts_used = 2;
  ExpertCache cache = create(options);
  cache.begin_step();
  cache.use(0, std::vector<int32_t>{1, 2, 1, 3}, std::vector<float>{0.5f, 0.5f, 1, 0}, 2);
  EXPECT_EQ(cache.counters().misses, 3u);
  EXPECT_FLOAT_EQ(cache.score(0, 1), 0.5f * (0.5f + 1) / 2);
}

TEST(ExpertCache, LayersCompeteForSharedSlotsOnly) {
  for (const bool shared : {true, false}) {
    ExpertCacheOptions options = options_of(2, kLru, 2);
    options.shared_by_layers = shared;
    ExpertCache cache = create(options);
    step(cache, {0}, 8, 0);
    step(cache, {1}, 8, 0);
    step(cache, {2}, 8, 0);
    cache.begin_step();
    if (shared) {
      EXPECT_THAT(cached(cache, 0), ::testing::ElementsAre(1, 2));
    } else {
      EXPECT_THAT(cached(cache, 0), ::testing::ElementsAre(2));
      EXPECT_EQ(cache.state(1), State::kFree) << "layer 1's";
    }
  }
}

TEST(ExpertCache, SlotsAreReservedForWhatIsLoadedBeforeTheFirstStep) {
  ExpertCache cache = create(options_of(1, kMrs));
  Load load;
  ASSERT_TRUE(cache.reserve(0, 5, &load));
  EXPECT_FALSE(cache.reserve(0, 5, &load)) << "twice";
  EXPECT_FALSE(cache.reserve(0, 6, &load)) << "full";
  cache.loaded(load.slot);
  cache.begin_step();
  EXPECT_EQ(cache.table(0)[5], 0);
}

TEST(ExpertCache, AShrunkCacheGivesUpItsLastSlotsAndGrowsBack) {
  ExpertCache cache = create(options_of(3, kLru));
  for (int32_t e : {1, 2, 3}) step(cache, {e});
  cache.begin_step();
  std::vector<Load> loads(8);
  cache.end_step(loads);
  const uint64_t version = cache.version();
  cache.resize(1);
  EXPECT_GT(cache.version(), version);
  EXPECT_THAT(cached(cache), ::testing::ElementsAre(1));
  for (const Load& load : step(cache, {4})) EXPECT_EQ(load.slot, 0u);
  cache.resize(9);
  EXPECT_EQ(cache.n_slots(), 3u);
  step(cache, {5});
  cache.begin_step();
  EXPECT_THAT(cached(cache), ::testing::ElementsAre(4, 5));
}

TEST(ExpertCache, ACopyIntoAGivenUpSlotIsForgotten) {
  ExpertCache cache = create(options_of(1, kLru));
  cache.begin_step();
  cache.use(0, std::vector<int32_t>{1}, {}, 1);
  std::vector<Load> loads(1);
  ASSERT_EQ(cache.end_step(loads), 1u);
  cache.resize(0);
  EXPECT_EQ(cache.state(0), State::kLoading) << "the copy still writes there";
  cache.loaded(0);
  EXPECT_EQ(cache.state(0), State::kFree);
  cache.begin_step();
  EXPECT_EQ(cache.table(0)[1], -1);
}

// Random use, arrivals, failures and sizes; what must hold at every moment.
TEST(ExpertCache, TheTableNeverShowsASlotThatIsNotThere) {
  for (const EvictionPolicy policy : {kMrs, kLru}) {
    for (const bool shared : {true, false}) {
      std::mt19937 random(11);
      ExpertCacheOptions options = options_of(7, policy, 3);
      options.shared_by_layers = shared;
      options.n_experts_used = 2;
      ExpertCache cache = create(options);
      std::set<uint32_t> under_way;
      for (int round = 0; round < 3000; ++round) {
        cache.begin_step();
        const uint64_t version = cache.version();
        std::vector<std::vector<int32_t>> tables;
        for (int64_t layer = 0; layer < 3; ++layer) {
          std::vector<int32_t> ids = {static_cast<int32_t>(random() % 8),
                                      static_cast<int32_t>(random() % 8)};
          cache.use(layer, ids, {}, 1);
          tables.emplace_back(cache.table(layer).begin(), cache.table(layer).end());
        }
        std::set<int32_t> seen;
        for (int64_t layer = 0; layer < 3; ++layer) {
          for (int32_t slot : cache.table(layer)) {
            if (slot < 0) continue;
            EXPECT_TRUE(seen.insert(slot).second) << "two experts in one slot";
            EXPECT_EQ(cache.state(static_cast<uint32_t>(slot)), State::kResident);
            EXPECT_LT(static_cast<uint32_t>(slot), cache.n_slots());
          }
          EXPECT_TRUE(std::equal(tables[static_cast<size_t>(layer)].begin(),
                                 tables[static_cast<size_t>(layer)].end(),
                                 cache.table(layer).begin()));
        }
        EXPECT_EQ(cache.version(), version);
        EXPECT_EQ(cache.n_resident(), seen.size());
        std::vector<Load> loads(random() % 4);
        loads.resize(cache.end_step(loads));
        for (const Load& load : loads) {
          EXPECT_TRUE(under_way.insert(load.slot).second) << "overwrites a copy under way";
          EXPECT_EQ(cache.table(load.layer)[static_cast<size_t>(load.expert)], -1);
          EXPECT_TRUE(shared || load.slot % 3 == static_cast<uint32_t>(load.layer));
        }
        for (auto slot = under_way.begin(); slot != under_way.end();) {
          const uint32_t fate = random() % 8;
          if (fate == 0) cache.failed(*slot);
          if (fate > 0 && fate < 6) cache.loaded(*slot);
          slot = fate < 6 ? under_way.erase(slot) : std::next(slot);
        }
        if (random() % 50 == 0) cache.resize(random() % 8);
      }
      EXPECT_GT(cache.counters().hits, 0u);
      EXPECT_GT(cache.counters().evictions, 0u);
    }
  }
}

// ---- replays ----

struct Choice {
  int64_t layer = 0;
  std::vector<int32_t> ids;
  std::vector<float> weights;
};

struct Trace {
  int64_t n_layers = 0, n_experts = 128, n_used = 0;
  size_t first_decode = 0;                 // steps before it are the prompt
  std::vector<std::vector<Choice>> steps;  // of one token each
};

struct Replayed {
  double hit_rate = 0;  // of decoding
  uint64_t loads = 0;
};

Replayed replay(const Trace& trace, uint32_t n_slots, EvictionPolicy policy, bool shared,
                size_t most_loads) {
  ExpertCacheOptions options;
  options.n_layers = trace.n_layers;
  options.n_experts = trace.n_experts;
  options.n_experts_used = trace.n_used;
  options.n_slots = n_slots;
  options.policy = policy;
  options.shared_by_layers = shared;
  ExpertCache cache = create(options);
  std::vector<Load> loads(most_loads);
  for (size_t i = 0; i < trace.steps.size(); ++i) {
    if (i == trace.first_decode) cache.reset_counters();
    cache.begin_step();
    for (const Choice& choice : trace.steps[i]) {
      cache.use(choice.layer, choice.ids, choice.weights, 1);
    }
    const size_t n = cache.end_step(loads);
    for (size_t j = 0; j < n; ++j) cache.loaded(loads[j].slot);
  }
  return {cache.counters().hit_rate(), cache.counters().loads};
}

Trace read_trace(const std::filesystem::path& path) {
  Trace trace;
  std::ifstream file(path);
  std::string line;
  std::map<std::pair<int64_t, int64_t>, size_t> places;
  while (std::getline(file, line)) {
    if (line.empty() || line[0] == '#' || line[0] == 't') continue;
    std::replace(line.begin(), line.end(), ',', ' ');
    std::istringstream fields(line);
    int64_t turn = 0, phase = 0, token = 0, layer = 0, slot = 0;
    int32_t expert = 0;
    float weight = 0;
    fields >> turn >> phase >> token >> layer >> slot >> expert >> weight;
    // The prompt's rows come layer by layer, those of decoding token by token.
    const auto [place, is_new] = places.try_emplace({phase, token}, trace.steps.size());
    if (is_new) trace.steps.emplace_back();
    if (phase == 0) trace.first_decode = trace.steps.size();
    std::vector<Choice>& step = trace.steps[place->second];
    if (step.empty() || step.back().layer != layer) step.push_back({layer, {}, {}});
    step.back().ids.push_back(expert);
    step.back().weights.push_back(weight);
    trace.n_layers = std::max(trace.n_layers, layer + 1);
    trace.n_used = std::max(trace.n_used, slot + 1);
  }
  return trace;
}

void print(const char* name, const Trace& trace) {
  std::printf("%s: %lld layers, %zu decode steps; hit rate in %%, loads\n", name,
              static_cast<long long>(trace.n_layers), trace.steps.size() - trace.first_decode);
  const int64_t all = trace.n_layers * trace.n_experts;
  for (const size_t most_loads : {size_t{4}, size_t{16}, static_cast<size_t>(all)}) {
    for (const int64_t percent : {5, 10, 25, 50}) {
      const auto slots = static_cast<uint32_t>(all * percent / 100);
      const Replayed mrs = replay(trace, slots, kMrs, true, most_loads);
      const Replayed lru = replay(trace, slots, kLru, true, most_loads);
      const Replayed mrs_layers = replay(trace, slots, kMrs, false, most_loads);
      const Replayed lru_layers = replay(trace, slots, kLru, false, most_loads);
      std::printf(
          "%5zu loads/step, %2lld %% of experts: mrs %.1f (%llu) lru %.1f (%llu); per layer mrs "
          "%.1f lru %.1f\n",
          most_loads, static_cast<long long>(percent), 100 * mrs.hit_rate,
          static_cast<unsigned long long>(mrs.loads), 100 * lru.hit_rate,
          static_cast<unsigned long long>(lru.loads), 100 * mrs_layers.hit_rate,
          100 * lru_layers.hit_rate);
    }
  }
}

// Experts with lasting favourites, some of which change every 40 steps.
Trace drifting_trace() {
  std::mt19937 random(5);
  Trace trace;
  trace.n_layers = 6;
  trace.n_experts = 32;
  trace.n_used = 4;
  trace.first_decode = 20;
  std::vector<std::vector<int32_t>> favourites(6, std::vector<int32_t>(8));
  for (int i = 0; i < 300; ++i) {
    trace.steps.emplace_back();
    for (int64_t layer = 0; layer < trace.n_layers; ++layer) {
      auto& liked = favourites[static_cast<size_t>(layer)];
      for (size_t f = 0; f < liked.size(); ++f) {
        if (i == 0 || (i % 40 == 0 && f % 2 == 0)) liked[f] = static_cast<int32_t>(random() % 32);
      }
      std::set<int32_t> ids;
      while (ids.size() < 4) {
        ids.insert(random() % 10 < 7 ? liked[random() % 8] : static_cast<int32_t>(random() % 32));
      }
      Choice choice{layer, {ids.begin(), ids.end()}, {}};
      for (int32_t id : choice.ids) {
        const bool is_liked = std::find(liked.begin(), liked.end(), id) != liked.end();
        choice.weights.push_back(is_liked ? 0.35f : 0.15f);
      }
      trace.steps.back().push_back(std::move(choice));
    }
  }
  return trace;
}

TEST(ExpertCacheReplay, ScoresBeatRecencyWhereFavouritesLast) {
  const Trace trace = drifting_trace();
  print("drifting favourites", trace);
  const uint32_t quarter = 6 * 32 / 4;
  for (const bool shared : {true, false}) {
    const Replayed mrs = replay(trace, quarter, kMrs, shared, 1000);
    const Replayed lru = replay(trace, quarter, kLru, shared, 1000);
    EXPECT_GT(mrs.hit_rate, lru.hit_rate);
    EXPECT_LT(mrs.loads, lru.loads);
    EXPECT_GT(mrs.hit_rate, 0.5);
  }
  // A cache that holds everything misses each expert once.
  EXPECT_GT(replay(trace, 6 * 32, kLru, true, 1000).hit_rate, 0.97);
}

TEST(ExpertCacheReplay, RealTraces) {
  const char* named = std::getenv("TANDEM_TEST_DATA");
  const std::filesystem::path data = named != nullptr ? named : TANDEM_SOURCE_DIR "/../shared/data";
  if (!std::filesystem::exists(data / "routing")) {
    GTEST_SKIP() << "no routing traces; set TANDEM_TEST_DATA to the folder that has them";
  }
  for (const char* name : {"qwen3-30b-a3b", "gpt-oss-120b"}) {
    const Trace trace = read_trace(data / "routing" / (std::string(name) + ".csv"));
    ASSERT_GT(trace.steps.size(), trace.first_decode + 60);
    print(name, trace);
    const auto tenth = static_cast<uint32_t>(trace.n_layers * trace.n_experts / 10);
    EXPECT_GT(replay(trace, tenth, kMrs, true, 10000).hit_rate,
              replay(trace, tenth, kLru, true, 10000).hit_rate);
  }
}

TEST(ExpertCacheReplay, BookkeepingTakesMicroseconds) {
  std::mt19937 random(2);
  ExpertCacheOptions options;
  options.n_layers = 48;
  options.n_experts = 128;
  options.n_experts_used = 8;
  options.n_slots = 1536;
  ExpertCache cache = create(options);
  std::vector<Load> loads(4);
  std::vector<int32_t> ids(8);
  double best = 1;
  for (int i = 0; i < 600; ++i) {
    const auto start = std::chrono::steady_clock::now();
    cache.begin_step();
    for (int64_t layer = 0; layer < 48; ++layer) {
      for (int32_t u = 0; u < 8; ++u)
        ids[static_cast<size_t>(u)] = static_cast<int32_t>(random() % 16) * 8 + u;
      cache.use(layer, ids, {}, 1);
    }
    const size_t n = cache.end_step(loads);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    for (size_t j = 0; j < n; ++j) cache.loaded(loads[j].slot);
    if (cache.n_resident() + 4 >= options.n_slots) best = std::min(best, taken.count());
  }
  std::printf("a step of 48 layers, 1536 slots full, 4 loads: %.1f us\n", best * 1e6);
  EXPECT_LT(best, 2e-3) << "even under a sanitizer";
}

}  // namespace
}  // namespace tandem

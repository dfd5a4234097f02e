#include "text/hash_tables.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <string>
#include <vector>

namespace tandem {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// What mix_bits makes into `mixed`: a hash without a secret can be run backwards.
uint64_t unmix(uint64_t mixed) {
  const auto inverse = [](uint64_t odd) {
    uint64_t x = odd;
    for (int i = 0; i < 6; ++i) x *= 2 - odd * x;
    return x;
  };
  uint64_t x = mixed ^ mixed >> 32;
  x *= inverse(0xBF58476D1CE4E5B9ull);
  x ^= x >> 29 ^ x >> 58;
  x *= inverse(0x9E3779B97F4A7C15ull);
  return x ^ x >> 32;
}

TEST(TextIndex, KeysChosenToCollideCostNoMoreThanOthers) {
  constexpr uint64_t kKeys = 60'000;
  std::vector<std::string> keys;
  for (uint64_t i = 0; i < kKeys; ++i) {
    ASSERT_EQ(i << 20, mix_bits(unmix(i << 20)));
    const uint64_t word = unmix(i << 20) ^ 8 * 0x9E3779B97F4A7C15ull;
    keys.emplace_back(reinterpret_cast<const char*>(&word), 8);
  }
  TextIndex index(kKeys);
  const auto start = std::chrono::steady_clock::now();
  for (size_t i = 0; i < kKeys; ++i) index.insert(keys[i], static_cast<int32_t>(i));
  for (size_t i = 0; i < kKeys; ++i) ASSERT_EQ(static_cast<int32_t>(i), index.find(keys[i]));
  EXPECT_LT(seconds_since(start), 1);
}

TEST(PairTable, KeysChosenToCollideCostNoMoreThanOthers) {
  constexpr uint64_t kKeys = 60'000;
  PairTable table(kKeys);
  const auto start = std::chrono::steady_clock::now();
  for (uint64_t i = 0; i < kKeys; ++i) {
    const uint64_t key = unmix(i << 20);
    ASSERT_TRUE(table.insert(static_cast<uint32_t>(key >> 32), static_cast<uint32_t>(key), {1, 2}));
  }
  EXPECT_LT(seconds_since(start), 1);
}

TEST(TextIndex, FindsTextsOfEveryLength) {
  std::vector<std::string> keys;
  for (size_t n = 0; n < 40; ++n) keys.emplace_back(n, 'x');
  TextIndex index(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) index.insert(keys[i], static_cast<int32_t>(i));
  for (size_t i = 0; i < keys.size(); ++i) EXPECT_EQ(static_cast<int32_t>(i), index.find(keys[i]));
  EXPECT_EQ(-1, index.find("y"));
}

}  // namespace
}  // namespace tandem

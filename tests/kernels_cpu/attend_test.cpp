#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "tests/kernels_cpu/compare.h"
#include "tests/kernels_cpu/tables.h"

namespace tandem::cpu {
namespace {

using testing::kRounding;
using testing::same_bits;
using testing::within;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Partial {
  std::vector<float> m, s, acc;
};

// Keys and values of one head, in both element types; the float16 values are exact in float32.
struct Page {
  int64_t n, R, E;
  float scale;
  std::vector<float> q, k, v;
  std::vector<Half> k16, v16;

  Page(int64_t positions, int64_t heads, int64_t width)
      : n(positions), R(heads), E(width), scale(1.0f / std::sqrt(static_cast<float>(width))) {
    std::mt19937 random(static_cast<unsigned>(n * 1000 + R * 100 + E));
    q = random_values(R * E, random);
    k = random_values(n * E, random);
    v = random_values(n * E, random);
    to_half(k, k16);
    to_half(v, v16);
  }

  static std::vector<float> random_values(int64_t count, std::mt19937& random) {
    std::normal_distribution<float> normal(0, 2);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = normal(random);
    return values;
  }

  // Rounds the floats to what the halves hold, so that both types describe the same page.
  static void to_half(std::vector<float>& floats, std::vector<Half>& halves) {
    const int64_t count = static_cast<int64_t>(floats.size());
    halves.resize(floats.size());
    table_for(Isa::kScalar)->store_f16(floats.data(), halves.data(), count);
    table_for(Isa::kScalar)->dequantize_f16(halves.data(), floats.data(), count);
  }

  Partial attend(const KernelTable& kernels, bool f16, int64_t begin, int64_t end) const {
    Partial p{std::vector<float>(static_cast<size_t>(R)),
              std::vector<float>(static_cast<size_t>(R)),
              std::vector<float>(static_cast<size_t>(R * E))};
    std::vector<float> scores(static_cast<size_t>(R * (end - begin)));
    const auto run = f16 ? kernels.attend_page_f16 : kernels.attend_page_f32;
    const void* keys =
        f16 ? static_cast<const void*>(k16.data() + begin * E) : k.data() + begin * E;
    const void* values =
        f16 ? static_cast<const void*>(v16.data() + begin * E) : v.data() + begin * E;
    run(q.data(), keys, values, end - begin, R, E, scale, scores.data(), p.m.data(), p.s.data(),
        p.acc.data());
    return p;
  }

  // The same positions from blocks of int8, and from the floats that these stand for: the same arithmetic.
  static std::vector<BlockQ8_0> to_blocks(std::vector<float>& floats) {
    std::vector<BlockQ8_0> blocks(floats.size() / 32);
    for (size_t i = 0; i < blocks.size(); ++i) {
      BlockQ8A rounded;
      table_for(Isa::kScalar)->quantize_q8a(floats.data() + i * 32, &rounded, 32);
      table_for(Isa::kScalar)->store_f16(&rounded.d, &blocks[i].d, 1);
      std::copy(std::begin(rounded.qs), std::end(rounded.qs), blocks[i].qs);
      table_for(Isa::kScalar)->dequantize_f16(&blocks[i].d, &rounded.d, 1);
      for (size_t e = 0; e < 32; ++e)
        floats[i * 32 + e] = rounded.d * static_cast<float>(blocks[i].qs[e]);
    }
    return blocks;
  }
  std::pair<Partial, Partial> attend_blocks_and_floats(const KernelTable& kernels) {
    const std::vector<BlockQ8_0> keys = to_blocks(k), values = to_blocks(v);
    Partial p{std::vector<float>(static_cast<size_t>(R)),
              std::vector<float>(static_cast<size_t>(R)),
              std::vector<float>(static_cast<size_t>(R * E))};
    std::vector<float> scores(static_cast<size_t>(R * n));
    kernels.attend_page_q8_0(q.data(), keys.data(), values.data(), n, R, E, scale, scores.data(),
                             p.m.data(), p.s.data(), p.acc.data());
    return {p, attend(kernels, false, 0, n)};
  }

  // acc / s and the sum of the values' magnitudes under the same weights, in double.
  struct Exact {
    std::vector<double> output, magnitude;
  };
  Exact exact() const {
    Exact result;
    for (int64_t r = 0; r < R; ++r) {
      std::vector<double> p(static_cast<size_t>(n));
      double max = -std::numeric_limits<double>::infinity(), sum = 0;
      for (int64_t i = 0; i < n; ++i) {
        double dot = 0;
        for (int64_t e = 0; e < E; ++e) dot += double{at(q, r * E + e)} * double{at(k, i * E + e)};
        p[static_cast<size_t>(i)] = dot * double{scale};
        max = std::max(max, dot * double{scale});
      }
      for (double& weight : p) sum += weight = std::exp(weight - max);
      for (int64_t e = 0; e < E; ++e) {
        double output = 0, magnitude = 0;
        for (int64_t i = 0; i < n; ++i) {
          output += p[static_cast<size_t>(i)] / sum * double{at(v, i * E + e)};
          magnitude += p[static_cast<size_t>(i)] / sum * std::abs(double{at(v, i * E + e)});
        }
        result.output.push_back(output);
        result.magnitude.push_back(magnitude);
      }
    }
    return result;
  }

  static float at(const std::vector<float>& values, int64_t i) {
    return values[static_cast<size_t>(i)];
  }
};

class AttendTest : public testing::KernelTest {
 protected:
  void fold(Partial& first, const Partial& second, const Page& page) const {
    kernels().merge_partials(first.m.data(), first.s.data(), first.acc.data(), second.m.data(),
                             second.s.data(), second.acc.data(), page.R, page.E);
  }
};

// Relative error of a weight p: the score's error (products and sums in float32, below 2^-18 for
// these values) and that of exp; an output adds n of them.
void expect_output(const Partial& partial, const Page& page) {
  const Page::Exact exact = page.exact();
  for (size_t i = 0; i < exact.output.size(); ++i) {
    const float actual = partial.acc[i] / partial.s[i / static_cast<size_t>(page.E)];
    const double bound =
        (0x1p-17 + 2 * static_cast<double>(page.n + 4) * kRounding) * exact.magnitude[i];
    ASSERT_TRUE(within(bound, actual, static_cast<float>(exact.output[i])))
        << "n=" << page.n << " R=" << page.R << " E=" << page.E << " output " << i;
  }
}

TEST_P(AttendTest, BlocksOfInt8GiveTheBitsOfTheFloatsTheyStandFor) {
  for (const int64_t n : {1, 2, 3, 4, 15, 16, 17, 33, 64}) {
    for (const int64_t R : {1, 2, 4, 5, 8}) {
      for (const int64_t E : {32, 64, 96, 128, 256}) {
        Page page(n, R, E);
        const auto [blocks, floats] = page.attend_blocks_and_floats(kernels());
        ASSERT_EQ(floats.m, blocks.m) << n << " positions, " << R << " x " << E;
        ASSERT_EQ(floats.s, blocks.s) << n << " positions, " << R << " x " << E;
        ASSERT_EQ(floats.acc, blocks.acc) << n << " positions, " << R << " x " << E;
      }
    }
  }
}

TEST_P(AttendTest, AgreesWithDoubleForEveryShape) {
  for (const int64_t n : {1, 2, 15, 16, 17, 33, 128})
    for (const int64_t R : {1, 2, 3, 4, 5, 8})
      for (const int64_t E : {1, 8, 15, 16, 20, 64, 80, 128}) {
        const Page page(n, R, E);
        for (const bool f16 : {false, true}) expect_output(page.attend(kernels(), f16, 0, n), page);
      }
}

TEST_P(AttendTest, BothElementTypesGiveTheSameBitsForTheSameNumbers) {
  const Page page(37, 6, 72);
  const Partial f32 = page.attend(kernels(), false, 0, 37),
                f16 = page.attend(kernels(), true, 0, 37);
  for (size_t i = 0; i < f32.acc.size(); ++i) ASSERT_TRUE(same_bits(f32.acc[i], f16.acc[i]));
}

TEST_P(AttendTest, OneHeadHasTheSameBitsWhateverHeadsAreBesideIt) {
  const Page page(21, 7, 48);
  const Partial together = page.attend(kernels(), true, 0, 21);
  for (int64_t r = 0; r < 7; ++r) {
    Page alone = page;
    alone.R = 1;
    alone.q.assign(page.q.begin() + r * 48, page.q.begin() + (r + 1) * 48);
    const Partial single = alone.attend(kernels(), true, 0, 21);
    for (int64_t e = 0; e < 48; ++e)
      ASSERT_TRUE(same_bits(single.acc[static_cast<size_t>(e)],
                            together.acc[static_cast<size_t>(r * 48 + e)]));
  }
}

TEST_P(AttendTest, AnySegmentationMergesToTheWhole) {
  const Page page(100, 4, 64);
  for (const std::vector<int64_t>& cuts : {std::vector<int64_t>{0, 100},
                                           {0, 1, 100},
                                           {0, 50, 100},
                                           {0, 16, 32, 48, 64, 80, 96, 100},
                                           {0, 99, 100},
                                           {0, 0, 33, 33, 100, 100}}) {
    Partial merged = page.attend(kernels(), true, 0, 0);
    for (size_t i = 1; i < cuts.size(); ++i)
      fold(merged, page.attend(kernels(), true, cuts[i - 1], cuts[i]), page);
    expect_output(merged, page);
    const Partial whole = page.attend(kernels(), true, 0, 100);
    for (size_t i = 0; i < whole.acc.size(); ++i)
      ASSERT_NEAR(merged.acc[i] / merged.s[i / 64], whole.acc[i] / whole.s[i / 64], 1e-5);
  }
}

TEST_P(AttendTest, EmptyPageIsTheNeutralElement) {
  const Page page(5, 2, 16);
  const Partial empty = page.attend(kernels(), false, 0, 0);
  EXPECT_EQ(empty.m[0], -kInfinity);
  EXPECT_EQ(empty.s[1], 0.0f);
  const Partial whole = page.attend(kernels(), false, 0, 5);
  Partial left = empty, right = whole, both = empty;
  fold(left, whole, page);
  fold(right, empty, page);
  fold(both, empty, page);
  for (size_t i = 0; i < whole.acc.size(); ++i) {
    EXPECT_TRUE(same_bits(left.acc[i], whole.acc[i]));
    EXPECT_TRUE(same_bits(right.acc[i], whole.acc[i]));
    EXPECT_EQ(both.acc[i], 0.0f);
  }
  EXPECT_EQ(both.m[0], -kInfinity);
}

TEST_P(AttendTest, FarApartScoresNeitherOverflowNorVanish) {
  Page page(3, 1, 16);
  for (const float height : {100.0f, 1e4f, 1e30f}) {
    for (int64_t e = 0; e < 16; ++e) {
      page.q[static_cast<size_t>(e)] = 1;
      page.k[static_cast<size_t>(e)] = -height;
      page.k[static_cast<size_t>(16 + e)] = height;
      page.k[static_cast<size_t>(32 + e)] = 0;
    }
    const Partial p = page.attend(kernels(), false, 0, 3);
    EXPECT_EQ(p.s[0], 1.0f) << height;
    for (size_t e = 0; e < 16; ++e) EXPECT_FLOAT_EQ(p.acc[e], page.v[16 + e]);
  }
}

TEST_P(AttendTest, NanReachesTheResult) {
  for (const bool in_key : {true, false}) {
    Page page(20, 2, 16);
    (in_key ? page.k : page.v)[3 * 16 + 2] = std::nanf("");
    const Partial p = page.attend(kernels(), false, 0, 20);
    EXPECT_TRUE(std::isnan(p.acc[2]));
    Partial merged = page.attend(kernels(), false, 4, 20);
    EXPECT_FALSE(std::isnan(merged.acc[2]));
    fold(merged, p, page);
    EXPECT_TRUE(std::isnan(merged.acc[2]));
  }
}

TANDEM_FOR_EVERY_ISA(AttendTest);

// Every number that half precision has survives, and every kind of rounding is right.
class StoreF16Test : public testing::KernelTest {
 protected:
  Half store(float x) const {
    Half half = 0;
    kernels().store_f16(&x, &half, 1);
    return half;
  }
  float load(Half half) const {
    float x = 0;
    kernels().dequantize_f16(&half, &x, 1);
    return x;
  }
};

TEST_P(StoreF16Test, KeepsEveryHalf) {
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const Half half = static_cast<Half>(bits);
    const float x = load(half);
    if (std::isnan(x))
      ASSERT_TRUE(std::isnan(load(store(x))));
    else
      ASSERT_EQ(store(x), half);
  }
}

TEST_P(StoreF16Test, RoundsToTheNearestAndTiesToEven) {
  for (uint32_t bits = 0; bits < 0x7c00u; ++bits) {
    const Half half = static_cast<Half>(bits);
    // The last step would end at infinity, which rounds as 2^16.
    const float low = load(half),
                high = bits == 0x7bffu ? 65536.0f : load(static_cast<Half>(bits + 1));
    const float middle = low + (high - low) / 2;
    const Half even = static_cast<Half>(bits % 2 == 0 ? bits : bits + 1);
    ASSERT_EQ(store(middle), even);
    ASSERT_EQ(store(std::nextafter(middle, 0.0f)), half);
    ASSERT_EQ(store(std::nextafter(middle, kInfinity)), half + 1);
    ASSERT_EQ(store(-middle), even | 0x8000);
  }
}

TEST_P(StoreF16Test, WritesExactlyNValues) {
  for (int64_t n = 0; n <= 33; ++n) {
    std::vector<float> x(static_cast<size_t>(n), 1.0f);
    std::vector<Half> y(static_cast<size_t>(n) + 1, Half{7});
    kernels().store_f16(x.data(), y.data(), n);
    for (int64_t i = 0; i < n; ++i) ASSERT_EQ(y[static_cast<size_t>(i)], 0x3c00);
    ASSERT_EQ(y[static_cast<size_t>(n)], 7);
  }
}

TANDEM_FOR_EVERY_ISA(StoreF16Test);

}  // namespace
}  // namespace tandem::cpu

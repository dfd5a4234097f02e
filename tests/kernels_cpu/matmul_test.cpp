// Matrix products of every instruction set against the scalar ones, and those against dequantised
// weights.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "tests/kernels_cpu/compare.h"
#include "tests/kernels_cpu/tables.h"

namespace tandem::cpu {
namespace {

using testing::kRounding;
using testing::same_bits;
using testing::within;

struct Format {
  const char* name;
  int64_t block_weights;
  size_t block_bytes;
  KernelTable::MatmulFloat* KernelTable::*matmul_float;
  KernelTable::Quantised KernelTable::*quantised;
  KernelTable::Dequantize* KernelTable::*dequantize;
  std::vector<size_t> scale_offsets;  // where float16 scales lie in a block
};

const std::vector<Format>& formats() {
  using K = KernelTable;
  static const std::vector<Format> all = {
      {"f32", 1, 4, &K::matmul_f32, nullptr, &K::dequantize_f32, {}},
      {"f16", 1, 2, &K::matmul_f16, nullptr, &K::dequantize_f16, {0}},
      {"bf16", 1, 2, &K::matmul_bf16, nullptr, &K::dequantize_bf16, {}},
      {"q4_0", 32, 18, nullptr, &K::q4_0, &K::dequantize_q4_0, {0}},
      {"q8_0", 32, 34, nullptr, &K::q8_0, &K::dequantize_q8_0, {0}},
      {"q4_k", 256, 144, nullptr, &K::q4_k, &K::dequantize_q4_k, {0, 2}},
      {"q6_k", 256, 210, nullptr, &K::q6_k, &K::dequantize_q6_k, {208}},
  };
  return all;
}

// Random bytes everywhere, except that scales and floats are moderate numbers of either sign.
std::vector<unsigned char> random_weights(const Format& format, int64_t rows, int64_t K,
                                          std::mt19937& random) {
  const size_t n_blocks = static_cast<size_t>(rows * K / format.block_weights);
  std::vector<unsigned char> bytes(n_blocks * format.block_bytes);
  for (unsigned char& byte : bytes) byte = static_cast<unsigned char>(random());
  for (size_t b = 0; b < n_blocks; ++b) {
    unsigned char* block = bytes.data() + b * format.block_bytes;
    for (const size_t offset : format.scale_offsets) {
      // Exponents 2^-9 .. 2^-2.
      const uint16_t half =
          static_cast<uint16_t>((random() & 0x83ffu) | ((6u + random() % 8u) << 10));
      std::memcpy(block + offset, &half, sizeof half);
    }
    std::normal_distribution<float> normal;
    const float value = normal(random);
    if (format.name == std::string("f32")) std::memcpy(block, &value, 4);
    if (format.name == std::string("bf16"))
      std::memcpy(block, reinterpret_cast<const unsigned char*>(&value) + 2, 2);
  }
  return bytes;
}

std::vector<float> random_floats(size_t n, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& value : values) value = normal(random);
  return values;
}

// One matrix product with everything a kernel needs.  Buffers have exactly the bytes of the matrix.
struct Problem {
  const Format& format;
  int64_t N, K, T;
  std::vector<unsigned char> w;
  std::vector<float> x;
  std::vector<BlockQ8A> x_q8a;

  Problem(const Format& f, int64_t rows, int64_t inner, int64_t tokens, unsigned seed)
      : format(f), N(rows), K(inner), T(tokens) {
    std::mt19937 random(seed);
    w = random_weights(format, N, K, random);
    x = random_floats(static_cast<size_t>(T * K), random);
    quantize();
  }

  void quantize() {
    if (format.quantised == nullptr) return;
    x_q8a.resize(x.size() / 32);
    table_for(Isa::kScalar)->quantize_q8a(x.data(), x_q8a.data(), T * K);
  }

  size_t row_bytes() const {
    return static_cast<size_t>(K / format.block_weights) * format.block_bytes;
  }

  // y [T,N]; values outside the row range stay -1.
  std::vector<float> run(const KernelTable& kernels, int64_t row_begin, int64_t row_end,
                         int64_t token_begin, int64_t token_end, size_t shift_bytes = 0) const {
    std::vector<unsigned char> shifted(shift_bytes);
    shifted.insert(shifted.end(), w.begin(), w.end());
    std::vector<float> y(static_cast<size_t>(T * N), -1.0f);
    const void* weights = shifted.data() + shift_bytes;
    float* out = y.data() + token_begin * N;
    const int64_t tokens = token_end - token_begin;
    if (format.matmul_float != nullptr)
      (kernels.*format.matmul_float)(weights, row_bytes(), x.data() + token_begin * K,
                                     static_cast<size_t>(K), out, static_cast<size_t>(N), row_begin,
                                     row_end, K, tokens);
    else
      (kernels.*format.quantised)
          .matmul(weights, row_bytes(), x_q8a.data() + token_begin * (K / 32),
                  static_cast<size_t>(K / 32), out, static_cast<size_t>(N), row_begin, row_end, K,
                  tokens);
    return y;
  }
  std::vector<float> run(const KernelTable& kernels) const { return run(kernels, 0, N, 0, T); }

  std::vector<float> row_values(int64_t n) const {
    std::vector<float> values(static_cast<size_t>(K));
    (table_for(Isa::kScalar)->*format.dequantize)(w.data() + static_cast<size_t>(n) * row_bytes(),
                                                  values.data(), K);
    return values;
  }

  // What the kernel takes the activations for.
  std::vector<float> token_values(int64_t t) const {
    std::vector<float> values(x.begin() + t * K, x.begin() + (t + 1) * K);
    if (format.quantised != nullptr)
      for (int64_t k = 0; k < K; ++k) {
        const BlockQ8A& block = x_q8a[static_cast<size_t>((t * K + k) / 32)];
        values[static_cast<size_t>(k)] = block.d * static_cast<float>(block.qs[k % 32]);
      }
    return values;
  }

  // Largest share of Q4_K's scale and minimum in front of a weight, which may cancel in the weight
  // itself.
  double largest_part(int64_t n) const {
    if (format.name != std::string("q4_k")) return 0;
    double largest = 0;
    for (int64_t b = 0; b < K / 256; ++b) {
      const unsigned char* block = w.data() + static_cast<size_t>(n) * row_bytes() + b * 144;
      float parts[2];
      table_for(Isa::kScalar)->dequantize_f16(block, parts, 2);
      largest = std::max(largest, std::abs(parts[0]) * 63.0 * 15 + std::abs(parts[1]) * 63.0);
    }
    return largest;
  }

  // The product of two scales may be subnormal and then rounds by up to 2^-150, before it is
  // multiplied with an integer of at most 127 * 128 per weight.
  double underflow() const { return static_cast<double>(K) * 127 * 128 * 0x1p-149; }

  // Products and sums each round once; no lane adds more than K / 8 of them, then 16 lanes are
  // added.
  double bound(const std::vector<float>& weights, const std::vector<float>& activations,
               double part) const {
    double magnitude = 0;
    for (size_t k = 0; k < weights.size(); ++k)
      magnitude += std::abs(double{activations[k]}) * (std::abs(double{weights[k]}) + part);
    return (static_cast<double>(K) / 8 + 24) * kRounding * magnitude + underflow();
  }
};

class MatmulTest : public testing::KernelTest {};

void expect_close_to_scalar(const KernelTable& kernels, const Problem& problem) {
  const std::vector<float> expected = problem.run(*table_for(Isa::kScalar));
  const std::vector<float> actual = problem.run(kernels);
  for (int64_t n = 0; n < problem.N; ++n) {
    const std::vector<float> weights = problem.row_values(n);
    for (int64_t t = 0; t < problem.T; ++t) {
      const size_t i = static_cast<size_t>(t * problem.N + n);
      const double bound = problem.bound(weights, problem.token_values(t), problem.largest_part(n));
      ASSERT_TRUE(within(bound, actual[i], expected[i]))
          << problem.format.name << " N=" << problem.N << " K=" << problem.K << " row " << n
          << " token " << t;
    }
  }
}

std::vector<int64_t> lengths_of(const Format& format) {
  if (format.block_weights == 1) return {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 100, 1000};
  std::vector<int64_t> lengths;
  for (const int64_t blocks : {1, 2, 3, 7, 8, 9, 17})
    lengths.push_back(blocks * format.block_weights);
  return lengths;
}

TEST_P(MatmulTest, AgreesWithScalarAtEveryLengthAndTokenCount) {
  for (const Format& format : formats())
    for (const int64_t K : lengths_of(format))
      for (int64_t T = 1; T <= 9; ++T)
        expect_close_to_scalar(kernels(),
                               Problem(format, 7, K, T, static_cast<unsigned>(K * 16 + T)));
}

TEST_P(MatmulTest, AgreesWithScalarOnLongRows) {
  for (const Format& format : formats()) expect_close_to_scalar(kernels(), {format, 5, 8192, 2, 3});
}

TEST_P(MatmulTest, AgreesWithDequantisedWeightsInDouble) {
  for (const Format& format : formats()) {
    const Problem problem(format, 6, 512, 3, 4);
    const std::vector<float> actual = problem.run(kernels());
    for (int64_t n = 0; n < problem.N; ++n) {
      const std::vector<float> weights = problem.row_values(n);
      for (int64_t t = 0; t < problem.T; ++t) {
        const std::vector<float> activations = problem.token_values(t);
        double expected = 0;
        for (size_t k = 0; k < weights.size(); ++k)
          expected += double{weights[k]} * double{activations[k]};
        ASSERT_TRUE(within(problem.bound(weights, activations, problem.largest_part(n)),
                           actual[static_cast<size_t>(t * problem.N + n)],
                           static_cast<float>(expected)))
            << format.name;
      }
    }
  }
}

TEST_P(MatmulTest, GivesTheSameBitsForAnyTokenCountRowRangeAndAlignment) {
  for (const Format& format : formats()) {
    const Problem problem(format, 11, 3 * std::max<int64_t>(format.block_weights, 21), 9, 5);
    const std::vector<float> whole = problem.run(kernels());
    for (size_t shift = 0; shift <= 3; ++shift)
      for (const int64_t begin : {0, 1, 2, 5})
        for (const int64_t end : {6, 9, 11})
          for (const int64_t tokens : {1, 2, 3, 4, 5, 8}) {
            const int64_t last = std::min<int64_t>(9, 1 + tokens);
            const std::vector<float> part = problem.run(kernels(), begin, end, 1, last, shift);
            for (int64_t t = 0; t < 9; ++t)
              for (int64_t n = 0; n < 11; ++n) {
                const size_t i = static_cast<size_t>(t * 11 + n);
                const bool computed = t >= 1 && t < last && n >= begin && n < end;
                ASSERT_TRUE(same_bits(part[i], computed ? whole[i] : -1.0f))
                    << format.name << " shift " << shift << " rows " << begin << ".." << end
                    << " tokens " << tokens << " row " << n << " token " << t;
              }
          }
  }
}

TEST_P(MatmulTest, ComputesNothingForEmptyRanges) {
  for (const Format& format : formats()) {
    const Problem problem(format, 4, format.block_weights, 2, 6);
    for (const float y : problem.run(kernels(), 2, 2, 0, 2)) EXPECT_EQ(y, -1.0f);
    for (const float y : problem.run(kernels(), 0, 4, 1, 1)) EXPECT_EQ(y, -1.0f);
  }
}

TEST_P(MatmulTest, AgreesWithScalarAtExtremeScales) {
  // Zeros, largest and smallest float16 as scale; largest weights against largest activations.
  for (const Format& format : formats()) {
    if (format.scale_offsets.empty()) continue;
    for (const unsigned bits : {0x0000u, 0x8000u, 0x0001u, 0x03ffu, 0x0400u, 0x7bffu, 0xfbffu}) {
      const uint16_t half = static_cast<uint16_t>(bits);
      for (const int fill : {0x00, 0x80, 0x7f, 0xff}) {
        Problem problem(format, 5, 2 * std::max<int64_t>(format.block_weights, 20), 2, 7);
        std::fill(problem.w.begin(), problem.w.end(), static_cast<unsigned char>(fill));
        for (size_t b = 0; b < problem.w.size(); b += format.block_bytes)
          for (const size_t offset : format.scale_offsets)
            std::memcpy(problem.w.data() + b + offset, &half, sizeof half);
        for (float& x : problem.x) x = 1e20f;
        problem.quantize();
        expect_close_to_scalar(kernels(), problem);
        for (float& x : problem.x) x = -0x1p-118f;
        problem.quantize();
        expect_close_to_scalar(kernels(), problem);
      }
    }
  }
}

TEST_P(MatmulTest, IsExactAtTheEdgesOfTheIntegerRanges) {
  // Powers of two as scales and few blocks: nothing rounds, so a saturated 16-bit sum would show.
  for (const Format& format : formats()) {
    if (format.quantised == nullptr) continue;
    for (const int fill : {0x00, 0x80, 0x7f, 0xff, 0x81})
      for (const int sign : {1, -1}) {
        Problem problem(format, 4, std::max<int64_t>(format.block_weights, 64), 1, 8);
        std::fill(problem.w.begin(), problem.w.end(), static_cast<unsigned char>(fill));
        const uint16_t one = 0x3c00;
        for (size_t b = 0; b < problem.w.size(); b += format.block_bytes)
          for (const size_t offset : format.scale_offsets)
            std::memcpy(problem.w.data() + b + offset, &one, sizeof one);
        for (BlockQ8A& block : problem.x_q8a) {
          block.d = 1;
          block.sums[0] = block.sums[1] = static_cast<int16_t>(sign * 127 * 16);
          block.d_sum = static_cast<float>(sign * 127 * 32);
          std::fill(std::begin(block.qs), std::end(block.qs), static_cast<int8_t>(sign * 127));
        }
        const std::vector<float> expected = problem.run(*table_for(Isa::kScalar));
        const std::vector<float> actual = problem.run(kernels());
        for (size_t i = 0; i < actual.size(); ++i)
          EXPECT_EQ(actual[i], expected[i]) << format.name << " bytes " << fill;
      }
  }
}

TEST_P(MatmulTest, NanAndInfinityInWeightsReachTheirRowOnly) {
  for (const Format& format : formats()) {
    for (const uint32_t bits : {0x7c00u, 0xfc00u, 0x7e00u, 0x7d01u}) {
      Problem problem(format, 6, 256, 2, 9);
      unsigned char* row = problem.w.data() + 2 * problem.row_bytes();
      const uint32_t wide = 0x7f800000u | (bits == 0x7c00u ? 0u : 0x400000u);
      if (format.name == std::string("f32")) std::memcpy(row, &wide, 4);
      if (format.name == std::string("bf16"))
        std::memcpy(row, reinterpret_cast<const unsigned char*>(&wide) + 2, 2);
      const uint16_t half = static_cast<uint16_t>(bits);
      for (const size_t offset : format.scale_offsets) std::memcpy(row + offset, &half, 2);
      const std::vector<float> actual = problem.run(kernels());
      for (int64_t t = 0; t < 2; ++t)
        for (int64_t n = 0; n < 6; ++n)
          EXPECT_EQ(std::isfinite(actual[static_cast<size_t>(t * 6 + n)]), n != 2)
              << format.name << " row " << n;
    }
  }
}

TEST_P(MatmulTest, NanInActivationsReachesItsTokenOnly) {
  for (const Format& format : formats()) {
    Problem problem(format, 6, 256, 3, 10);
    problem.x[256 + 17] = std::nanf("");
    problem.quantize();
    const std::vector<float> actual = problem.run(kernels());
    for (int64_t t = 0; t < 3; ++t)
      for (int64_t n = 0; n < 6; ++n)
        EXPECT_EQ(std::isnan(actual[static_cast<size_t>(t * 6 + n)]), t == 1) << format.name;
  }
}

// ---- tiles of sixteen rows

// The matrix of a problem in tiles.
std::vector<unsigned char> packed(const KernelTable& kernels, const Problem& problem) {
  std::vector<unsigned char> tiles(problem.w.size());
  const size_t tile_bytes = 16 * problem.row_bytes();
  for (size_t at = 0; at < tiles.size(); at += tile_bytes)
    (kernels.*problem.format.quantised)
        .pack_tile(problem.w.data() + at, problem.row_bytes(), problem.K, tiles.data() + at);
  return tiles;
}

std::vector<float> run_tiles(const KernelTable& kernels, const Problem& problem,
                             const unsigned char* tiles, int64_t row_begin, int64_t row_end,
                             int64_t n_tokens) {
  std::vector<float> y(static_cast<size_t>(problem.T * problem.N), -1.0f);
  (kernels.*problem.format.quantised)
      .matmul_tiles(tiles, problem.row_bytes(), problem.x_q8a.data(),
                    static_cast<size_t>(problem.K / 32), y.data(), static_cast<size_t>(problem.N),
                    row_begin, row_end, problem.K, n_tokens);
  return y;
}

void expect_same_bits(const std::vector<float>& actual, const std::vector<float>& expected,
                      const std::string& what) {
  for (size_t i = 0; i < actual.size(); ++i)
    ASSERT_TRUE(same_bits(actual[i], expected[i]))
        << what << " at " << i << ": " << actual[i] << " instead of " << expected[i];
}

TEST_P(MatmulTest, TilesGiveTheBitsOfRowsForEveryTokenCount) {
  for (const Format& format : formats()) {
    if (format.quantised == nullptr) continue;
    for (const int64_t blocks : {1, 3, 9})
      for (const int64_t T : {1, 2, 3, 5, 7, 8, 9, 33, 96, 97, 112, 127}) {
        const Problem problem(format, 48, blocks * format.block_weights, T,
                              static_cast<unsigned>(blocks * 100 + T));
        const auto tiles = packed(kernels(), problem);
        expect_same_bits(run_tiles(kernels(), problem, tiles.data(), 0, 48, T),
                         problem.run(kernels()), format.name);
      }
  }
}

TEST_P(MatmulTest, LongRowsPassInPiecesWithTheSameBits) {
  for (const Format& format : formats()) {
    if (format.quantised == nullptr) continue;
    for (const int64_t T : {1, 9, 100}) {
      const Problem problem(format, 16, 2048 * 2 + format.block_weights, T, 21);
      const std::vector<float> whole =
          run_tiles(kernels(), problem, packed(kernels(), problem).data(), 0, 16, T);
      expect_same_bits(whole, problem.run(kernels()), format.name);
      expect_close_to_scalar(kernels(), problem);
    }
  }
}

TEST_P(MatmulTest, TilesMayLieAnywhereAndBeComputedInParts) {
  for (const Format& format : formats()) {
    if (format.quantised == nullptr) continue;
    const Problem problem(format, 48, 2 * format.block_weights, 98, 22);
    const std::vector<float> whole = problem.run(kernels());
    const auto tiles = packed(kernels(), problem);
    for (const size_t shift : {1, 2, 3, 16, 63}) {
      std::vector<unsigned char> shifted(shift);
      shifted.insert(shifted.end(), tiles.begin(), tiles.end());
      const auto part = run_tiles(kernels(), problem, shifted.data() + shift, 16, 32, 97);
      for (int64_t t = 0; t < 98; ++t)
        for (int64_t n = 0; n < 48; ++n) {
          const size_t i = static_cast<size_t>(t * 48 + n);
          const bool computed = t < 97 && n >= 16 && n < 32;
          ASSERT_TRUE(same_bits(part[i], computed ? whole[i] : -1.0f)) << format.name;
        }
    }
  }
}

// The scalar operators sum in double.
TEST(QuantisedProducts, HaveTheSameBitsInEveryVectorInstructionSet) {
  std::vector<const KernelTable*> tables = testing::all_tables();
  tables.erase(tables.begin());
  for (const KernelTable* table : tables)
    for (const Format& format : formats()) {
      if (format.quantised == nullptr) continue;
      const Problem problem(format, 35, 9 * format.block_weights, 101, 23);
      expect_same_bits(problem.run(*table), problem.run(*tables.front()),
                       std::string(format.name) + " " + table->isa);
    }
}

TEST_P(MatmulTest, ATileGivesBackItsRows) {
  for (const Format& format : formats()) {
    if (format.quantised == nullptr) continue;
    const Problem problem(format, 16, 3 * format.block_weights, 1, 24);
    const auto tile = packed(kernels(), problem);
    std::vector<unsigned char> row(problem.row_bytes());
    for (int64_t n = 0; n < 16; ++n) {
      (kernels().*format.quantised).unpack_row(tile.data(), n, problem.K, row.data());
      EXPECT_EQ(0, std::memcmp(row.data(), problem.w.data() + static_cast<size_t>(n) * row.size(),
                               row.size()))
          << format.name << " row " << n;
    }
  }
}

TANDEM_FOR_EVERY_ISA(MatmulTest);

}  // namespace
}  // namespace tandem::cpu

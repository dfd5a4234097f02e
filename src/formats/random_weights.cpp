#include "formats/random_weights.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/blocks.h"

namespace tandem {
namespace {

// Standard deviations of the integers as drawn below.
constexpr float kDeviationU16 = 18918.61f;     // 65536 even values: 65536 / sqrt(12)
constexpr float kDeviationNibble = 4.609772f;  // 16 even values
constexpr float kDeviationSixBits = 18.4729f;  // 64 even values
constexpr float kDeviationByte = 73.468f;      // -127..127 and a second 0
// Root of the mean square of the 6-bit scales 32..63.
constexpr float kScaleSize = 48.3864f;

// xoshiro256**: Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2021;
// seeded by splitmix64 as they advise.
class Random {
 public:
  explicit Random(uint64_t seed) {
    for (uint64_t& word : state_) {
      seed += 0x9e3779b97f4a7c15u;
      uint64_t z = seed;
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
      z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
      word = z ^ (z >> 31);
    }
  }
  uint64_t next() {
    const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
    const uint64_t shifted = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= shifted;
    state_[3] = std::rotl(state_[3], 45);
    return result;
  }
  // Requires: bytes % 8 == 0.
  void fill(void* out, size_t bytes) {
    auto* cursor = static_cast<unsigned char*>(out);
    for (size_t i = 0; i < bytes; i += 8) {
      const uint64_t word = next();
      std::memcpy(cursor + i, &word, 8);
    }
  }

 private:
  uint64_t state_[4];
};

// To nearest, ties away from zero.  Requires: 2^-14 <= |value| < 65504 or value 0.
Half half_of(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = (bits & 0x7fffffffu) + 0x1000u;
  if (value == 0) return static_cast<Half>(sign);
  return static_cast<Half>(sign | ((magnitude - (112u << 23)) >> 13));
}

// Also the small ones, where half precision is a fixed grid of 2^-24.
Half half_of_any(float value) {
  if (std::fabs(value) >= 0x1p-14f) return half_of(value);
  const auto steps = static_cast<uint32_t>(std::lround(std::fabs(value) * 0x1p24f));
  return static_cast<Half>((value < 0 ? 0x8000u : 0u) | steps);
}

// 16 bits as an even spread around zero with deviation 1.
float even(uint64_t bits) {
  return (static_cast<float>(bits & 0xffff) - 32767.5f) * (1.0f / kDeviationU16);
}

template <typename T, typename Convert>
void fill_scalars(std::span<std::byte> out, uint64_t seed, Convert convert) {
  Random random(seed);
  while (!out.empty()) {
    const uint64_t bits = random.next();
    const T values[4] = {convert(even(bits)), convert(even(bits >> 16)), convert(even(bits >> 32)),
                         convert(even(bits >> 48))};
    const size_t bytes = std::min(sizeof(values), out.size());
    std::memcpy(out.data(), values, bytes);
    out = out.subspan(bytes);
  }
}

template <typename Block, typename Draw>
void fill_blocks(std::span<std::byte> out, uint64_t seed, Draw draw) {
  Random random(seed);
  for (size_t at = 0; at + sizeof(Block) <= out.size(); at += sizeof(Block)) {
    Block block;
    draw(random, block);
    std::memcpy(out.data() + at, &block, sizeof(Block));
  }
}

// q - 8 has mean -1/2: a random sign of the scale takes it out.
void fill_q4_0(float deviation, uint64_t seed, std::span<std::byte> out) {
  const Half d = half_of_any(deviation / kDeviationNibble);
  fill_blocks<BlockQ4_0>(out, seed, [d](Random& random, BlockQ4_0& block) {
    random.fill(block.qs, sizeof(block.qs));
    const bool negative = (random.next() >> 63) != 0;
    block.d = static_cast<Half>(negative ? d | 0x8000u : d);
  });
}

void fill_q8_0(float deviation, uint64_t seed, std::span<std::byte> out) {
  const Half d = half_of_any(deviation / kDeviationByte);
  fill_blocks<BlockQ8_0>(out, seed, [d](Random& random, BlockQ8_0& block) {
    block.d = d;
    random.fill(block.qs, sizeof(block.qs));
    for (int8_t& q : block.qs) q = q == -128 ? int8_t{0} : q;
  });
}

// Eight bytes, each 32..63.
uint64_t six_bit_scales(Random& random) {
  return (random.next() & 0x1f1f1f1f1f1f1f1fu) | 0x2020202020202020u;
}

// Scale and minimum of a group are the same number s: with dmin = 7.5 d the group's weights are
// d s (q - 7.5), mean zero.  d keeps 7 bits of its mantissa, so that 7.5 d is exact.
void fill_q4_k(float deviation, uint64_t seed, std::span<std::byte> out) {
  const float exact = deviation / (kDeviationNibble * kScaleSize);
  const float scale =
      std::bit_cast<float>((std::bit_cast<uint32_t>(exact) + 0x8000u) & 0xffff0000u);
  const Half d = half_of_any(scale);
  const Half dmin = half_of_any(7.5f * scale);
  fill_blocks<BlockQ4_K>(out, seed, [=](Random& random, BlockQ4_K& block) {
    block.d = d;
    block.dmin = dmin;
    uint8_t s[8];
    const uint64_t scales = six_bit_scales(random);
    std::memcpy(s, &scales, 8);
    for (int j = 0; j < 4; ++j) {
      const auto top = static_cast<uint8_t>((s[j + 4] >> 4) << 6);
      block.scales[j] = static_cast<uint8_t>(s[j] | top);
      block.scales[j + 4] = block.scales[j];
      block.scales[j + 8] = static_cast<uint8_t>((s[j + 4] & 15) * 0x11);
    }
    random.fill(block.qs, sizeof(block.qs));
  });
}

// q - 32 has mean -1/2: random signs of the groups' scales take it out.
void fill_q6_k(float deviation, uint64_t seed, std::span<std::byte> out) {
  const Half d = half_of_any(deviation / (kDeviationSixBits * kScaleSize));
  fill_blocks<BlockQ6_K>(out, seed, [d](Random& random, BlockQ6_K& block) {
    random.fill(block.ql, sizeof(block.ql));
    random.fill(block.qh, sizeof(block.qh));
    const uint64_t scales[2] = {six_bit_scales(random), six_bit_scales(random)};
    std::memcpy(block.scales, scales, sizeof(scales));
    const uint64_t signs = random.next();
    for (int i = 0; i < 16; ++i) {
      const int magnitude = block.scales[i];
      block.scales[i] = static_cast<int8_t>((signs >> i & 1) != 0 ? -magnitude : magnitude);
    }
    block.d = d;
  });
}

}  // namespace

void fill_random(DType type, float deviation, uint64_t seed, std::span<std::byte> out) {
  switch (type) {
    case DType::kF32:
      return fill_scalars<float>(out, seed, [=](float x) { return x * deviation; });
    case DType::kF16:
      return fill_scalars<Half>(out, seed, [=](float x) { return half_of_any(x * deviation); });
    case DType::kBF16:
      return fill_scalars<uint16_t>(out, seed, [=](float x) {
        return static_cast<uint16_t>((std::bit_cast<uint32_t>(x * deviation) + 0x8000u) >> 16);
      });
    case DType::kQ4_0:
      return fill_q4_0(deviation, seed, out);
    case DType::kQ8_0:
      return fill_q8_0(deviation, seed, out);
    case DType::kQ4_K:
      return fill_q4_k(deviation, seed, out);
    case DType::kQ6_K:
      return fill_q6_k(deviation, seed, out);
  }
}

}  // namespace tandem

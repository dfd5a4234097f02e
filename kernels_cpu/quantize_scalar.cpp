// float32 to int8 blocks of 32.  Contract: QuantizeQ8A in kernels.h.
#include "kernels_cpu/scalar.h"
#include "kernels_cpu/scalar_helpers.h"

namespace tandem::cpu::scalar {
namespace {

constexpr uint32_t kMagnitude = 0x7fffffffu;
constexpr uint32_t kInfinity = 0x7f800000u;
constexpr uint32_t kTwoToMinus118 = (127u - 118u) << 23;

// Requires: |value| < 2^22.  Adding 1.5 * 2^23 leaves no bit for fractions: rounds to nearest even.
int round_to_int(float value) {
  const volatile float shifted =
      value + 0x1.8p23f;  // volatile: the pair is not to be simplified away
  return static_cast<int>(shifted - 0x1.8p23f);
}

BlockQ8A quantize_block(const float* x) {
  // Magnitudes compare as integers, with every NaN above infinity.
  uint32_t largest = 0;
  for (int i = 0; i < 32; ++i) {
    const uint32_t magnitude = std::bit_cast<uint32_t>(x[i]) & kMagnitude;
    if (magnitude > largest) largest = magnitude;
  }
  BlockQ8A block{};
  if (largest < kTwoToMinus118) return block;
  if (largest >= kInfinity) {
    block.d = block.d_sum = std::bit_cast<float>(0x7fc00000u);
    return block;
  }
  const float max = std::bit_cast<float>(largest);
  const float inverse = 127.0f / max;
  block.d = max / 127.0f;
  for (int i = 0; i < 32; ++i) {
    const int q = round_to_int(x[i] * inverse);
    block.qs[i] = static_cast<int8_t>(q);
    block.sums[i / 16] = static_cast<int16_t>(block.sums[i / 16] + q);
  }
  block.d_sum = block.d * static_cast<float>(block.sums[0] + block.sums[1]);
  return block;
}

}  // namespace

void quantize_q8a(const float* x, BlockQ8A* q, int64_t K) {
  for (int64_t b = 0; b < K / 32; ++b) q[b] = quantize_block(x + b * 32);
}

}  // namespace tandem::cpu::scalar

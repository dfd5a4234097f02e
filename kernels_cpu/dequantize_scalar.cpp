// Stored weights to float32, for embeddings and tests.  Contract: Dequantize in kernels.h.
// The order of the roundings is that of the gguf Python package: scale times group scale first.
#include "kernels_cpu/scalar.h"
#include "kernels_cpu/scalar_helpers.h"

namespace tandem::cpu::scalar {

void dequantize_f32(const void* blocks, float* y, int64_t K) {
  for (int64_t i = 0; i < K; ++i) y[i] = load<float>(blocks, i);
}

void dequantize_f16(const void* blocks, float* y, int64_t K) {
  for (int64_t i = 0; i < K; ++i) y[i] = half_to_float(load<Half>(blocks, i));
}

void dequantize_bf16(const void* blocks, float* y, int64_t K) {
  for (int64_t i = 0; i < K; ++i) y[i] = bf16_to_float(load<uint16_t>(blocks, i));
}

void dequantize_q4_0(const void* blocks, float* y, int64_t K) {
  for (int64_t b = 0; b < K / 32; ++b, y += 32) {
    const auto block = load<BlockQ4_0>(blocks, b);
    const float d = half_to_float(block.d);
    for (int i = 0; i < 16; ++i) {
      y[i] = d * static_cast<float>((block.qs[i] & 15) - 8);
      y[i + 16] = d * static_cast<float>((block.qs[i] >> 4) - 8);
    }
  }
}

void dequantize_q8_0(const void* blocks, float* y, int64_t K) {
  for (int64_t b = 0; b < K / 32; ++b, y += 32) {
    const auto block = load<BlockQ8_0>(blocks, b);
    const float d = half_to_float(block.d);
    for (int i = 0; i < 32; ++i) y[i] = d * static_cast<float>(block.qs[i]);
  }
}

void dequantize_q4_k(const void* blocks, float* y, int64_t K) {
  for (int64_t b = 0; b < K / 256; ++b, y += 256) {
    const auto block = load<BlockQ4_K>(blocks, b);
    for (int j = 0; j < 8; ++j) {
      const auto [scale, min] = scale_min_q4_k(block.scales, j);
      const float d = half_to_float(block.d) * static_cast<float>(scale);
      const float offset = half_to_float(block.dmin) * static_cast<float>(min);
      for (int i = 0; i < 32; ++i)
        y[j * 32 + i] = d * static_cast<float>(nibble_q4_k(block, j, i)) - offset;
    }
  }
}

void dequantize_q6_k(const void* blocks, float* y, int64_t K) {
  for (int64_t b = 0; b < K / 256; ++b, y += 256) {
    const auto block = load<BlockQ6_K>(blocks, b);
    for (int i = 0; i < 256; ++i) {
      const float d = half_to_float(block.d) * static_cast<float>(block.scales[i / 16]);
      y[i] = d * static_cast<float>(value_q6_k(block, i));
    }
  }
}

}  // namespace tandem::cpu::scalar

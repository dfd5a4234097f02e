// Attention over pages of keys and values.  Contracts: AttendPage, MergePartials, StoreF16 in
// kernels.h.
#include <cmath>

#include "kernels_cpu/scalar.h"
#include "kernels_cpu/scalar_helpers.h"

namespace tandem::cpu::scalar {
namespace {

constexpr float kMinusInfinity = -__builtin_inff();

// The element of this index of stored keys or values.
float f32_at(const void* stored, int64_t index) { return load<float>(stored, index); }
float f16_at(const void* stored, int64_t index) { return half_to_float(load<Half>(stored, index)); }
float q8_0_at(const void* stored, int64_t index) {
  const auto block = load<BlockQ8_0>(stored, index / 32);
  return half_to_float(block.d) * static_cast<float>(block.qs[index % 32]);
}

template <float (*at)(const void*, int64_t)>
float score(const float* q, const void* k, int64_t i, int64_t E, float scale) {
  float sum = 0;
  for (int64_t e = 0; e < E; ++e) sum += q[e] * at(k, i * E + e);
  return sum * scale;
}

template <float (*at)(const void*, int64_t)>
void attend_page(const float* q, const void* k, const void* v, int64_t n, int64_t R, int64_t E,
                 float scale, float* scores, float* m, float* s, float* acc) {
  for (int64_t r = 0; r < R; ++r, q += E, scores += n, acc += E) {
    m[r] = kMinusInfinity;
    for (int64_t i = 0; i < n; ++i) {
      scores[i] = score<at>(q, k, i, E, scale);
      if (!(scores[i] <= m[r])) m[r] = scores[i];  // a NaN becomes and stays the maximum
    }
    s[r] = 0;
    for (int64_t e = 0; e < E; ++e) acc[e] = 0;
    for (int64_t i = 0; i < n; ++i) {
      const float p = scores[i] == m[r] ? 1.0f : std::exp(scores[i] - m[r]);
      s[r] += p;
      for (int64_t e = 0; e < E; ++e) acc[e] += p * at(v, i * E + e);
    }
  }
}

// Moves the point of a finite number right by dropped bits, rounding to nearest even.
uint32_t shift_right_to_even(uint32_t value, uint32_t dropped) {
  const uint32_t kept = value >> dropped;
  const uint32_t rest = value & ((1u << dropped) - 1u);
  const uint32_t half = 1u << (dropped - 1u);
  return kept + (rest > half || (rest == half && (kept & 1u) != 0) ? 1u : 0u);
}

Half float_to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u)  // NaN: made quiet, upper payload kept
    return static_cast<Half>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  if (magnitude >= 0x477ff000u) return static_cast<Half>(sign | 0x7c00u);  // rounds to 2^16 or more
  if (magnitude >= 0x38800000u)  // normal as half, from 2^-14; a carry runs on into the exponent
    return static_cast<Half>(sign | shift_right_to_even(magnitude - (112u << 23), 13));
  const uint32_t exponent = magnitude >> 23;
  if (exponent < 102) return static_cast<Half>(sign);  // below 2^-25
  const uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;
  return static_cast<Half>(sign | shift_right_to_even(mantissa, 126u - exponent));
}

}  // namespace

void attend_page_f32(const float* q, const void* k, const void* v, int64_t n, int64_t R, int64_t E,
                     float scale, float* scores, float* m, float* s, float* acc) {
  attend_page<f32_at>(q, k, v, n, R, E, scale, scores, m, s, acc);
}

void attend_page_f16(const float* q, const void* k, const void* v, int64_t n, int64_t R, int64_t E,
                     float scale, float* scores, float* m, float* s, float* acc) {
  attend_page<f16_at>(q, k, v, n, R, E, scale, scores, m, s, acc);
}

void attend_page_q8_0(const float* q, const void* k, const void* v, int64_t n, int64_t R, int64_t E,
                      float scale, float* scores, float* m, float* s, float* acc) {
  attend_page<q8_0_at>(q, k, v, n, R, E, scale, scores, m, s, acc);
}

void merge_partials(float* m, float* s, float* acc, const float* m2, const float* s2,
                    const float* acc2, int64_t R, int64_t E) {
  for (int64_t r = 0; r < R; ++r, acc += E, acc2 += E) {
    const float largest = m[r] >= m2[r] ? m[r] : m2[r];
    // Equal is tested first, because -infinity minus itself is NaN.
    const float a = m[r] == largest ? 1.0f : std::exp(m[r] - largest);
    const float b = m2[r] == largest ? 1.0f : std::exp(m2[r] - largest);
    m[r] = largest;
    s[r] = a * s[r] + b * s2[r];
    for (int64_t e = 0; e < E; ++e) acc[e] = a * acc[e] + b * acc2[e];
  }
}

void store_f16(const float* x, Half* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = float_to_half(x[i]);
}

}  // namespace tandem::cpu::scalar

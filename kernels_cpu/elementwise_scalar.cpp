// Norm, sums, activation and rotary positions.  Contracts in kernels.h.
#include <cmath>

#include "kernels_cpu/scalar.h"

namespace tandem::cpu::scalar {

// Sum of squares in double, in order; the rest in float32.
void rms_norm(const float* x, const float* weight, float eps, float* y, int64_t D) {
  double squares = 0;
  for (int64_t i = 0; i < D; ++i) squares += double{x[i]} * double{x[i]};
  const float scale =
      static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(D) + double{eps}));
  for (int64_t i = 0; i < D; ++i) y[i] = x[i] * scale * weight[i];
}

void add(float* y, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += x[i];
}

void scaled_add(float* y, const float* x, float a, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += a * x[i];
}

// gate / (1 + exp(-gate)): for very negative gates the exponential overflows and the quotient is
// -0.
void silu_mul(const float* gate, const float* up, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

void rope_normal(float* x, const float* cosines, const float* sines, int64_t n_heads, int64_t E,
                 int64_t n_rot) {
  for (int64_t h = 0; h < n_heads; ++h, x += E) {
    for (int64_t i = 0; i < n_rot / 2; ++i) {
      const float a = x[2 * i], b = x[2 * i + 1];
      x[2 * i] = a * cosines[i] - b * sines[i];
      x[2 * i + 1] = a * sines[i] + b * cosines[i];
    }
  }
}

void rope_neox(float* x, const float* cosines, const float* sines, int64_t n_heads, int64_t E,
               int64_t n_rot) {
  const int64_t half = n_rot / 2;
  for (int64_t h = 0; h < n_heads; ++h, x += E) {
    for (int64_t i = 0; i < half; ++i) {
      const float a = x[i], b = x[i + half];
      x[i] = a * cosines[i] - b * sines[i];
      x[i + half] = a * sines[i] + b * cosines[i];
    }
  }
}

}  // namespace tandem::cpu::scalar

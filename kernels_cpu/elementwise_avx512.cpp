// Norm and activation.  Contracts: RmsNorm and SiluMul in kernels.h.
#include "kernels_cpu/avx512.h"
#include "kernels_cpu/avx512_exp.h"

namespace tandem::cpu::avx512 {
namespace {

inline __m512d add_squares(__m256 x, __m512d sum) {
  const __m512d wide = _mm512_cvtps_pd(x);
  return _mm512_fmadd_pd(wide, wide, sum);
}

}  // namespace

// Sum of squares in double, 16 partial sums; the rest in float32.
void rms_norm(const float* x, const float* weight, float eps, float* y, int64_t D) {
  __m512d low = _mm512_setzero_pd(), high = _mm512_setzero_pd();
  for (int64_t i = 0; i < D; i += 16) {
    const __m512 values = _mm512_maskz_loadu_ps(first_lanes(D - i), x + i);
    low = add_squares(_mm512_castps512_ps256(values), low);
    high = add_squares(_mm512_extractf32x8_ps(values, 1), high);
  }
  const double mean = _mm512_reduce_add_pd(_mm512_add_pd(low, high)) / static_cast<double>(D);
  const __m128d root = _mm_sqrt_pd(_mm_set1_pd(mean + static_cast<double>(eps)));
  const __m512 scale = _mm512_set1_ps(static_cast<float>(1.0 / _mm_cvtsd_f64(root)));
  for (int64_t i = 0; i < D; i += 16) {
    const __mmask16 mask = first_lanes(D - i);
    const __m512 scaled = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), scale);
    _mm512_mask_storeu_ps(y + i, mask,
                          _mm512_mul_ps(scaled, _mm512_maskz_loadu_ps(mask, weight + i)));
  }
}

void silu_mul(const float* gate, const float* up, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 mask = first_lanes(n - i);
    const __m512 g = _mm512_maskz_loadu_ps(mask, gate + i);
    const __m512 u = _mm512_maskz_loadu_ps(mask, up + i);
    const __m512 below =
        _mm512_add_ps(_mm512_set1_ps(1.0f), exp(_mm512_sub_ps(_mm512_setzero_ps(), g)));
    _mm512_mask_storeu_ps(y + i, mask, _mm512_mul_ps(_mm512_div_ps(g, below), u));
  }
}

}  // namespace tandem::cpu::avx512

// Norm and activation.  Contracts: RmsNorm and SiluMul in kernels.h.
#include "kernels_cpu/avx2.h"
#include "kernels_cpu/avx2_exp.h"

namespace tandem::cpu::avx2 {
namespace {

inline __m256d add_squares(__m128 x, __m256d sum) {
  const __m256d wide = _mm256_cvtps_pd(x);
  return _mm256_fmadd_pd(wide, wide, sum);
}

inline double sum_lanes(__m256d v) {
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
  return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

}  // namespace

// Sum of squares in double, 8 partial sums; the rest in float32.
void rms_norm(const float* x, const float* weight, float eps, float* y, int64_t D) {
  __m256d low = _mm256_setzero_pd(), high = _mm256_setzero_pd();
  for (int64_t i = 0; i < D; i += 8) {
    const __m256 values = _mm256_maskload_ps(x + i, first_lanes(D - i));
    low = add_squares(_mm256_castps256_ps128(values), low);
    high = add_squares(_mm256_extractf128_ps(values, 1), high);
  }
  const double mean = sum_lanes(_mm256_add_pd(low, high)) / static_cast<double>(D);
  const __m128d root = _mm_sqrt_pd(_mm_set1_pd(mean + static_cast<double>(eps)));
  const __m256 scale = _mm256_set1_ps(static_cast<float>(1.0 / _mm_cvtsd_f64(root)));
  for (int64_t i = 0; i < D; i += 8) {
    const __m256i mask = first_lanes(D - i);
    const __m256 scaled = _mm256_mul_ps(_mm256_maskload_ps(x + i, mask), scale);
    _mm256_maskstore_ps(y + i, mask, _mm256_mul_ps(scaled, _mm256_maskload_ps(weight + i, mask)));
  }
}

void silu_mul(const float* gate, const float* up, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += 8) {
    const __m256i mask = first_lanes(n - i);
    const __m256 g = _mm256_maskload_ps(gate + i, mask), u = _mm256_maskload_ps(up + i, mask);
    const __m256 below =
        _mm256_add_ps(_mm256_set1_ps(1.0f), exp(_mm256_sub_ps(_mm256_setzero_ps(), g)));
    _mm256_maskstore_ps(y + i, mask, _mm256_mul_ps(_mm256_div_ps(g, below), u));
  }
}

}  // namespace tandem::cpu::avx2

// Attention over one page, and float16 stores.  Contracts: AttendPage and StoreF16 in kernels.h.
// Scores: fused multiply-add, 8 partial sums.  Sums over positions: in order for the outputs, 8
// partial sums for s.
#include "kernels_cpu/avx2.h"
#include "kernels_cpu/avx2_exp.h"

namespace tandem::cpu::avx2 {
namespace {

// Stored: F32 or F16 of avx2_helpers.h, or this.
struct Q8_0;

// Eight elements of keys or values from this one on, a multiple of 8, of which n are left.
template <typename Stored>
inline __m256 at(const unsigned char* stored, int64_t index, int64_t n) {
  return Stored::load(stored + index * Stored::kBytes, n);
}
template <>
inline __m256 at<Q8_0>(const unsigned char* stored, int64_t index, int64_t /*n*/) {
  const unsigned char* const block = stored + index / 32 * static_cast<int64_t>(sizeof(BlockQ8_0));
  int16_t d;
  __builtin_memcpy(&d, block + offsetof(BlockQ8_0, d), sizeof d);
  const __m256 scale = _mm256_cvtph_ps(_mm_set1_epi16(d));
  const __m128i values = _mm_loadl_epi64(
      reinterpret_cast<const __m128i*>(block + offsetof(BlockQ8_0, qs) + index % 32));
  return _mm256_mul_ps(scale, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(values)));
}

// scores[r][i] = scale * dot(q[r], k[i]) for R heads and all n positions.
template <typename Stored, int R>
inline void score_heads(const float* q, const unsigned char* k, int64_t n, int64_t E, float scale,
                        float* scores) {
  for (int64_t i = 0; i < n; ++i) {
    __m256 sums[R];
#pragma GCC unroll 8
    for (__m256& sum : sums) sum = _mm256_setzero_ps();
    for (int64_t e = 0; e < E; e += 8) {
      const __m256 key = at<Stored>(k, i * E + e, E - e);
      const __m256i mask = first_lanes(E - e);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
        sums[r] = _mm256_fmadd_ps(key, _mm256_maskload_ps(q + r * E + e, mask), sums[r]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) scores[r * n + i] = sum_lanes(sums[r]) * scale;
  }
}

inline float largest_lane(__m256 v) {
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

// Turns scores into p = exp(score - max); gives the maximum and the sum of p.
inline void softmax_page(float* scores, int64_t n, float* m, float* s) {
  const __m256 lowest = _mm256_set1_ps(-__builtin_inff());
  __m256 max = lowest, nan = _mm256_setzero_ps();
  for (int64_t i = 0; i < n; i += 8) {
    const __m256i mask = first_lanes(n - i);
    const __m256 score =
        _mm256_blendv_ps(lowest, _mm256_maskload_ps(scores + i, mask), _mm256_castsi256_ps(mask));
    nan = _mm256_or_ps(nan, _mm256_cmp_ps(score, score, _CMP_UNORD_Q));
    max = _mm256_max_ps(max, score);
  }
  *m = _mm256_movemask_ps(nan) != 0 ? __builtin_nanf("") : largest_lane(max);
  const __m256 top = _mm256_set1_ps(*m);
  __m256 sum = _mm256_setzero_ps();
  for (int64_t i = 0; i < n; i += 8) {
    const __m256i mask = first_lanes(n - i);
    const __m256 score = _mm256_maskload_ps(scores + i, mask);
    // Equal is tested first, because an infinity minus itself is NaN.
    const __m256 is_top = _mm256_cmp_ps(score, top, _CMP_EQ_OQ);
    const __m256 p = _mm256_blendv_ps(exp(_mm256_sub_ps(score, top)), _mm256_set1_ps(1.0f), is_top);
    _mm256_maskstore_ps(scores + i, mask, p);
    sum = _mm256_add_ps(sum, _mm256_and_ps(p, _mm256_castsi256_ps(mask)));
  }
  *s = sum_lanes(sum);
}

// The first n lanes of v, or nothing where n is not positive.
inline void store_lanes(float* p, int64_t n, __m256 v) {
  if (n > 0) _mm256_maskstore_ps(p, first_lanes(n), v);
}

// acc[r][e] = sum of p[r][i] * v[i][e] for R heads; 16 columns at a time.
template <typename Stored, int R>
inline void weigh_values(const float* p, const unsigned char* v, int64_t n, int64_t E, float* acc) {
  for (int64_t e = 0; e < E; e += 16) {
    const int64_t rest = E - e;
    __m256 sums[R][2];
#pragma GCC unroll 8
    for (auto& row : sums)
#pragma GCC unroll 8
      for (__m256& sum : row) sum = _mm256_setzero_ps();
    for (int64_t i = 0; i < n; ++i) {
      const __m256 low = at<Stored>(v, i * E + e, rest);
      const __m256 high = rest > 8 ? at<Stored>(v, i * E + e + 8, rest - 8) : _mm256_setzero_ps();
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m256 weight = _mm256_set1_ps(p[r * n + i]);
        sums[r][0] = _mm256_fmadd_ps(weight, low, sums[r][0]);
        sums[r][1] = _mm256_fmadd_ps(weight, high, sums[r][1]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      store_lanes(acc + r * E + e, rest, sums[r][0]);
      store_lanes(acc + r * E + e + 8, rest - 8, sums[r][1]);
    }
  }
}

template <typename Stored, int R>
inline void attend_heads(const float* q, const unsigned char* k, const unsigned char* v, int64_t n,
                         int64_t E, float scale, float* scores, float* m, float* s, float* acc) {
  score_heads<Stored, R>(q, k, n, E, scale, scores);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) softmax_page(scores + r * n, n, m + r, s + r);
  weigh_values<Stored, R>(scores, v, n, E, acc);
}

template <typename Stored>
inline void attend_page(const float* q, const void* k, const void* v, int64_t n, int64_t R,
                        int64_t E, float scale, float* scores, float* m, float* s, float* acc) {
  const unsigned char* keys = static_cast<const unsigned char*>(k);
  const unsigned char* values = static_cast<const unsigned char*>(v);
  int64_t r = 0;
  for (; r + 4 <= R; r += 4)
    attend_heads<Stored, 4>(q + r * E, keys, values, n, E, scale, scores + r * n, m + r, s + r,
                            acc + r * E);
  for (; r < R; ++r)
    attend_heads<Stored, 1>(q + r * E, keys, values, n, E, scale, scores + r * n, m + r, s + r,
                            acc + r * E);
}

}  // namespace

void attend_page_f32(const float* q, const void* k, const void* v, int64_t n, int64_t R, int64_t E,
                     float scale, float* scores, float* m, float* s, float* acc) {
  attend_page<F32>(q, k, v, n, R, E, scale, scores, m, s, acc);
}

void attend_page_f16(const float* q, const void* k, const void* v, int64_t n, int64_t R, int64_t E,
                     float scale, float* scores, float* m, float* s, float* acc) {
  attend_page<F16>(q, k, v, n, R, E, scale, scores, m, s, acc);
}

void attend_page_q8_0(const float* q, const void* k, const void* v, int64_t n, int64_t R, int64_t E,
                      float scale, float* scores, float* m, float* s, float* acc) {
  attend_page<Q8_0>(q, k, v, n, R, E, scale, scores, m, s, acc);
}

void store_f16(const float* x, Half* y, int64_t n) {
  for (int64_t i = 0; i < n; i += 8) {
    const __m256 values = _mm256_maskload_ps(x + i, first_lanes(n - i));
    const __m128i halves = _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const int64_t rest = n - i < 8 ? n - i : 8;
    uint16_t bits[8];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(bits), halves);
    __builtin_memcpy(y + i, bits, static_cast<size_t>(rest) * 2);
  }
}

}  // namespace tandem::cpu::avx2

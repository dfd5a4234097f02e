// Attention over one page, and float16 stores.  Contracts: AttendPage and StoreF16 in kernels.h.
// Scores: fused multiply-add, 16 partial sums.  Sums over positions: in order for the outputs, 16
// partial sums for s.
#include "kernels_cpu/avx512.h"
#include "kernels_cpu/avx512_exp.h"

namespace tandem::cpu::avx512 {
namespace {

// scores[r][i] = scale * dot(q[r], k[i]) for R heads and all n positions.
template <typename Stored, int R>
inline void score_heads(const float* q, const unsigned char* k, int64_t n, int64_t E, float scale,
                        float* scores) {
  for (int64_t i = 0; i < n; ++i) {
    __m512 sums[R];
#pragma GCC unroll 8
    for (__m512& sum : sums) sum = _mm512_setzero_ps();
    for (int64_t e = 0; e < E; e += 16) {
      const __mmask16 mask = first_lanes(E - e);
      const __m512 key = Stored::load(k + (i * E + e) * Stored::kBytes, mask);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
        sums[r] = _mm512_fmadd_ps(key, _mm512_maskz_loadu_ps(mask, q + r * E + e), sums[r]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) scores[r * n + i] = _mm512_reduce_add_ps(sums[r]) * scale;
  }
}

// Turns scores into p = exp(score - max); gives the maximum and the sum of p.
inline void softmax_page(float* scores, int64_t n, float* m, float* s) {
  const __m512 lowest = _mm512_set1_ps(-__builtin_inff());
  __m512 max = lowest;
  __mmask16 nan = 0;
  for (int64_t i = 0; i < n; i += 16) {
    const __m512 score = _mm512_mask_loadu_ps(lowest, first_lanes(n - i), scores + i);
    nan = static_cast<__mmask16>(nan | _mm512_cmp_ps_mask(score, score, _CMP_UNORD_Q));
    max = _mm512_max_ps(max, score);
  }
  *m = nan != 0 ? __builtin_nanf("") : _mm512_reduce_max_ps(max);
  const __m512 top = _mm512_set1_ps(*m);
  __m512 sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 mask = first_lanes(n - i);
    const __m512 score = _mm512_maskz_loadu_ps(mask, scores + i);
    // Equal is tested first, because an infinity minus itself is NaN.
    const __mmask16 is_top = _mm512_cmp_ps_mask(score, top, _CMP_EQ_OQ);
    const __m512 p =
        _mm512_mask_mov_ps(exp(_mm512_sub_ps(score, top)), is_top, _mm512_set1_ps(1.0f));
    _mm512_mask_storeu_ps(scores + i, mask, p);
    sum = _mm512_mask_add_ps(sum, mask, sum, p);
  }
  *s = _mm512_reduce_add_ps(sum);
}

// acc[r][e] = sum of p[r][i] * v[i][e] for R heads; 64 columns at a time.
template <typename Stored, int R>
inline void weigh_values(const float* p, const unsigned char* v, int64_t n, int64_t E, float* acc) {
  for (int64_t e = 0; e < E; e += 64) {
    __mmask16 masks[4];
#pragma GCC unroll 8
    for (int c = 0; c < 4; ++c)
      masks[c] = E - e > c * 16 ? first_lanes(E - e - c * 16) : static_cast<__mmask16>(0);
    __m512 sums[R][4];
#pragma GCC unroll 8
    for (auto& row : sums)
#pragma GCC unroll 8
      for (__m512& sum : row) sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; ++i) {
      __m512 values[4];
#pragma GCC unroll 8
      for (int c = 0; c < 4; ++c)
        values[c] = Stored::load(v + (i * E + e + c * 16) * Stored::kBytes, masks[c]);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512 weight = _mm512_set1_ps(p[r * n + i]);
#pragma GCC unroll 8
        for (int c = 0; c < 4; ++c) sums[r][c] = _mm512_fmadd_ps(weight, values[c], sums[r][c]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < 4; ++c)
        _mm512_mask_storeu_ps(acc + r * E + e + c * 16, masks[c], sums[r][c]);
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

void store_f16(const float* x, Half* y, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 mask = first_lanes(n - i);
    const __m512 values = _mm512_maskz_loadu_ps(mask, x + i);
    constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    _mm256_mask_storeu_epi16(y + i, mask, _mm512_cvtps_ph(values, mode));
  }
}

}  // namespace tandem::cpu::avx512

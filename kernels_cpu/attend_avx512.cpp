// Attention over one page, and float16 stores.  Contracts: AttendPage and StoreF16 in kernels.h.
// Scores: fused multiply-add, 16 partial sums.  Sums over positions: in order for the outputs, 16
// partial sums for s.
#include "kernels_cpu/avx512.h"
#include "kernels_cpu/avx512_exp.h"

namespace tandem::cpu::avx512 {
namespace {

// The sum of each of sixteen vectors, in the order of _mm512_reduce_add_ps: lanes l and l + 8, then l + 4, l + 2, l + 1.
// Vector 4 c + l comes to lane 4 l + c.
inline __m512 sum_each(const __m512 (&v)[16]) {
  __m512 eights[8], fours[4], twos[2];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i)
    eights[i] = _mm512_add_ps(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x44),
                              _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xee));
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    fours[i] = _mm512_add_ps(_mm512_shuffle_f32x4(eights[2 * i], eights[2 * i + 1], 0x88),
                             _mm512_shuffle_f32x4(eights[2 * i], eights[2 * i + 1], 0xdd));
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const __m512d a = _mm512_castps_pd(fours[2 * i]), b = _mm512_castps_pd(fours[2 * i + 1]);
    twos[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                            _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
  }
  return _mm512_add_ps(_mm512_shuffle_ps(twos[0], twos[1], 0x88),
                       _mm512_shuffle_ps(twos[0], twos[1], 0xdd));
}

// Asks for the lines of `bytes` bytes from p on; they may lie anywhere.
inline void prefetch_lines(const unsigned char* p, int64_t bytes) {
  for (int64_t line = 0; line < bytes; line += 64) _mm_prefetch(p + line, _MM_HINT_T0);
}

// Stored: F32 or F16 of avx512_helpers.h, or this.
struct Q8_0;

template <typename Stored>
inline int64_t bytes_of(int64_t n) {
  return n * Stored::kBytes;
}
template <>
inline int64_t bytes_of<Q8_0>(int64_t n) {
  return n / 32 * static_cast<int64_t>(sizeof(BlockQ8_0));
}

// Sixteen elements of keys or values from this one on, a multiple of 16; zero, and not read, where the mask is.
template <typename Stored>
inline __m512 at(const unsigned char* stored, int64_t index, __mmask16 mask) {
  return Stored::load(stored + index * Stored::kBytes, mask);
}
template <>
inline __m512 at<Q8_0>(const unsigned char* stored, int64_t index, __mmask16 mask) {
  if (mask == 0) return _mm512_setzero_ps();
  const unsigned char* const block = stored + bytes_of<Q8_0>(index);
  int16_t d;
  __builtin_memcpy(&d, block + offsetof(BlockQ8_0, d), sizeof d);
  const __m512 scale = _mm512_cvtph_ps(_mm256_set1_epi16(d));
  const __m128i values = _mm_loadu_si128(
      reinterpret_cast<const __m128i*>(block + offsetof(BlockQ8_0, qs) + index % 32));
  return _mm512_mul_ps(scale, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(values)));
}

// scores[r][i] = scale * dot(q[r], k[i]) for R heads and the positions i to i + 16 / R - 1.
template <typename Stored, int R>
inline void score_block(const float* q, const unsigned char* k, int64_t i, int64_t n, int64_t E,
                        float scale, float* scores) {
  constexpr int n_positions = 16 / R;
  __m512 sums[16];
#pragma GCC unroll 16
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  for (int64_t e = 0; e < E; e += 16) {
    const __mmask16 mask = first_lanes(E - e);
    __m512 queries[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) queries[r] = _mm512_maskz_loadu_ps(mask, q + r * E + e);
#pragma GCC unroll 16
    for (int c = 0; c < n_positions; ++c) {
      const __m512 key = at<Stored>(k, (i + c) * E + e, mask);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r)
        sums[c * R + r] = _mm512_fmadd_ps(key, queries[r], sums[c * R + r]);
    }
  }
  const __m512 all = _mm512_mul_ps(sum_each(sums), _mm512_set1_ps(scale));
  if constexpr (R == 4) {  // lanes 4 r + c
    _mm_storeu_ps(scores + i, _mm512_castps512_ps128(all));
    _mm_storeu_ps(scores + n + i, _mm512_extractf32x4_ps(all, 1));
    _mm_storeu_ps(scores + 2 * n + i, _mm512_extractf32x4_ps(all, 2));
    _mm_storeu_ps(scores + 3 * n + i, _mm512_extractf32x4_ps(all, 3));
  } else {  // position 4 c + l in lane 4 l + c
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_storeu_ps(scores + i, _mm512_permutexvar_ps(order, all));
  }
}

// scores[r][i] = scale * dot(q[r], k[i]) for R heads, 1 or 4, and all n positions.  Their values `v` are asked for
// meanwhile: 18 instead of 15 GB/s of keys and values in float16 (two cores, four heads of 64); asking for the next page's
// keys too makes it 16.
template <typename Stored, int R>
inline void score_heads(const float* q, const unsigned char* k, const unsigned char* v, int64_t n,
                        int64_t E, float scale, float* scores) {
  static_assert(R == 1 || R == 4);
  constexpr int n_positions = 16 / R;
  const int64_t row_bytes = bytes_of<Stored>(E);
  int64_t i = 0;
  for (; i + n_positions <= n; i += n_positions) {
    prefetch_lines(v + i * row_bytes, n_positions * row_bytes);
    score_block<Stored, R>(q, k, i, n, E, scale, scores);
  }
  for (; i < n; ++i) {
    __m512 sums[R];
#pragma GCC unroll 4
    for (__m512& sum : sums) sum = _mm512_setzero_ps();
    for (int64_t e = 0; e < E; e += 16) {
      const __mmask16 mask = first_lanes(E - e);
      const __m512 key = at<Stored>(k, i * E + e, mask);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r)
        sums[r] = _mm512_fmadd_ps(key, _mm512_maskz_loadu_ps(mask, q + r * E + e), sums[r]);
    }
#pragma GCC unroll 4
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
      for (int c = 0; c < 4; ++c) values[c] = at<Stored>(v, i * E + e + c * 16, masks[c]);
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
  score_heads<Stored, R>(q, k, v, n, E, scale, scores);
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

// The bits of the scalar operator: two products, then their sum.
void merge_partials(float* m, float* s, float* acc, const float* m2, const float* s2,
                    const float* acc2, int64_t R, int64_t E) {
  for (int64_t r = 0; r < R; ++r, acc += E, acc2 += E) {
    const float largest = m[r] >= m2[r] ? m[r] : m2[r];
    const float a = m[r] == largest ? 1.0f : __builtin_expf(m[r] - largest);
    const float b = m2[r] == largest ? 1.0f : __builtin_expf(m2[r] - largest);
    m[r] = largest;
    s[r] = a * s[r] + b * s2[r];
    const __m512 first = _mm512_set1_ps(a), second = _mm512_set1_ps(b);
    for (int64_t e = 0; e < E; e += 16) {
      const __mmask16 mask = first_lanes(E - e);
      const __m512 x = _mm512_mul_ps(first, _mm512_maskz_loadu_ps(mask, acc + e));
      const __m512 y = _mm512_mul_ps(second, _mm512_maskz_loadu_ps(mask, acc2 + e));
      _mm512_mask_storeu_ps(acc + e, mask, _mm512_add_ps(x, y));
    }
  }
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

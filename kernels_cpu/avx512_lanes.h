// Sixteen rows in AVX-512 vectors, for tile_products.h.  Unnamed on purpose: each file has its own
// copy.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels_cpu/tiles.h"

namespace tandem::cpu::avx512 {
namespace {

// Sixteen rows of up to sixteen dwords to as many vectors of sixteen rows.
struct Transpose {
  template <int N>
  static void dwords(const unsigned char* const* rows, size_t offset, unsigned char* out) {
    constexpr int at_once = N < 16 ? N : 16;
#pragma GCC unroll 4
    for (int begin = 0; begin < N; begin += at_once)
      sixteen<at_once>(rows, offset + static_cast<size_t>(begin) * 4, out + begin * 64);
  }

  template <int N>
  static void bytes(const unsigned char* const* rows, size_t offset, unsigned char* out) {
    alignas(64) unsigned char dwords_of_rows[N / 4 * 64];
    dwords<N / 4>(rows, offset, dwords_of_rows);
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) {
      const __m512i all = _mm512_load_si512(dwords_of_rows + i / 4 * 64);
      const __m128i byte =
          _mm512_cvtepi32_epi8(_mm512_srli_epi32(all, static_cast<unsigned>(i % 4 * 8)));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i * 16), byte);
    }
  }

 private:
  template <int N>
  static void sixteen(const unsigned char* const* rows, size_t offset, unsigned char* out) {
    constexpr auto mask = static_cast<__mmask16>((1u << N) - 1u);
    __m512i pairs[16], fours[16];
#pragma GCC unroll 16
    for (int r = 0; r < 16; r += 2) {
      const __m512i a = _mm512_maskz_loadu_epi32(mask, rows[r] + offset);
      const __m512i b = _mm512_maskz_loadu_epi32(mask, rows[r + 1] + offset);
      pairs[r] = _mm512_unpacklo_epi32(a, b);
      pairs[r + 1] = _mm512_unpackhi_epi32(a, b);
    }
    // fours[4 i + j]: in 128-bit part p, dword 4 p + j of rows 4 i to 4 i + 3.
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 4) {
      fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
      fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
      fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
      fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
#pragma GCC unroll 16
    for (int j = 0; j < 4; ++j) {
      const __m512i even_a = _mm512_shuffle_i32x4(fours[j], fours[4 + j], 0x88);
      const __m512i odd_a = _mm512_shuffle_i32x4(fours[j], fours[4 + j], 0xdd);
      const __m512i even_b = _mm512_shuffle_i32x4(fours[8 + j], fours[12 + j], 0x88);
      const __m512i odd_b = _mm512_shuffle_i32x4(fours[8 + j], fours[12 + j], 0xdd);
      store<N>(out, j, _mm512_shuffle_i32x4(even_a, even_b, 0x88));
      store<N>(out, j + 4, _mm512_shuffle_i32x4(odd_a, odd_b, 0x88));
      store<N>(out, j + 8, _mm512_shuffle_i32x4(even_a, even_b, 0xdd));
      store<N>(out, j + 12, _mm512_shuffle_i32x4(odd_a, odd_b, 0xdd));
    }
  }
  template <int N>
  static void store(unsigned char* out, int dword, __m512i rows) {
    if (dword < N) _mm512_storeu_si512(out + dword * 64, rows);
  }
};

struct Lanes {
  using Bytes = __m512i;
  using Ints = __m512i;
  using Floats = __m512;
  using Transpose = avx512::Transpose;
  static constexpr int kTokens = 8;
  static constexpr int kSignedOffset = 128;
  static constexpr float kHighNibbleScale = 1.0f / 16;

  static Bytes load(const unsigned char* p) { return _mm512_loadu_si512(p); }
  static Bytes low_nibbles(Bytes b) { return _mm512_and_si512(b, _mm512_set1_epi8(15)); }
  static Bytes high_nibbles(Bytes b) { return low_nibbles(_mm512_srli_epi16(b, 4)); }
  static Bytes scaled_high_nibbles(Bytes b) {
    return _mm512_and_si512(b, _mm512_set1_epi8(static_cast<char>(0xf0)));
  }
  template <int quarter>
  static Bytes with_high_bits(Bytes nibbles, Bytes packed) {
    const __m512i moved = quarter == 0   ? _mm512_slli_epi16(packed, 4)
                          : quarter == 1 ? _mm512_slli_epi16(packed, 2)
                          : quarter == 2 ? packed
                                         : _mm512_srli_epi16(packed, 2);
    const __m512i bits = _mm512_set1_epi8(48);
    return _mm512_ternarylogic_epi32(nibbles, moved, bits, 0xf8);  // nibbles | (moved & bits)
  }

  static Ints integers(int32_t i) { return _mm512_set1_epi32(i); }
  static Ints dot(Ints sum, Bytes w, int32_t x) {
    return _mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32(x));
  }
  static Ints dot_signed(Ints sum, Bytes w, int32_t x) {
    return dot(sum, _mm512_xor_si512(w, _mm512_set1_epi8(static_cast<char>(0x80))), x);
  }

  static Floats floats(Ints i) { return _mm512_cvtepi32_ps(i); }
  static Floats floats(float f) { return _mm512_set1_ps(f); }
  static Floats halves(const unsigned char* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Floats unsigned_bytes(const unsigned char* p) {
    return floats(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static Floats signed_bytes(const unsigned char* p) {
    return floats(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static Floats subtract_product(Floats a, Floats b, Floats c) { return _mm512_fnmadd_ps(a, b, c); }
  static Floats load_floats(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Floats f) { _mm512_storeu_ps(p, f); }
};

}  // namespace
}  // namespace tandem::cpu::avx512

// Sixteen rows in pairs of AVX2 vectors, for tile_products.h.  With TANDEM_AVX_VNNI, compiled for
// that instruction set too, bytes are multiplied by its instruction.  Unnamed on purpose: each file
// has its own copy.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels_cpu/tile_packing.h"

namespace tandem::cpu::avx2 {
namespace {

struct Lanes {
  struct Bytes {
    __m256i a, b;
  };
  using Ints = Bytes;
  struct Floats {
    __m256 a, b;
  };
  using Transpose = PlainTranspose;
  static constexpr int kTokens = 2;
#if defined(TANDEM_AVX_VNNI)
  static constexpr int kSignedOffset = 128;
  static constexpr float kHighNibbleScale = 1.0f / 16;
#else
  static constexpr int kSignedOffset = 0;
  static constexpr float kHighNibbleScale = 1;
#endif

  static __m256i load_32(const unsigned char* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static Bytes load(const unsigned char* p) { return {load_32(p), load_32(p + 32)}; }
  static Bytes low_nibbles(Bytes w) {
    const __m256i mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(w.a, mask), _mm256_and_si256(w.b, mask)};
  }
  static Bytes high_nibbles(Bytes w) {
    return low_nibbles({_mm256_srli_epi16(w.a, 4), _mm256_srli_epi16(w.b, 4)});
  }
  static Bytes scaled_high_nibbles(Bytes w) {
    if constexpr (kHighNibbleScale == 1) return high_nibbles(w);
    const __m256i mask = _mm256_set1_epi8(static_cast<char>(0xf0));
    return {_mm256_and_si256(w.a, mask), _mm256_and_si256(w.b, mask)};
  }
  template <int quarter>
  static __m256i high_bits(__m256i packed) {
    const __m256i moved = quarter == 0   ? _mm256_slli_epi16(packed, 4)
                          : quarter == 1 ? _mm256_slli_epi16(packed, 2)
                          : quarter == 2 ? packed
                                         : _mm256_srli_epi16(packed, 2);
    return _mm256_and_si256(moved, _mm256_set1_epi8(48));
  }
  template <int quarter>
  static Bytes with_high_bits(Bytes nibbles, Bytes packed) {
    return {_mm256_or_si256(nibbles.a, high_bits<quarter>(packed.a)),
            _mm256_or_si256(nibbles.b, high_bits<quarter>(packed.b))};
  }

  static Ints integers(int32_t i) { return {_mm256_set1_epi32(i), _mm256_set1_epi32(i)}; }
#if defined(TANDEM_AVX_VNNI)
  static __m256i add_dot(__m256i sum, __m256i w, __m256i x) {
    return _mm256_dpbusd_avx_epi32(sum, w, x);
  }
  static Ints dot_signed(Ints sum, Bytes w, int32_t x) {
    const __m256i top = _mm256_set1_epi8(static_cast<char>(0x80));
    return dot(sum, {_mm256_xor_si256(w.a, top), _mm256_xor_si256(w.b, top)}, x);
  }
#else
  // Two products are added in 16 bits, saturating: weights of at most 128 with activations within
  // 127 give 2 * 128 * 127 = 32512, which fits.
  static __m256i add_dot(__m256i sum, __m256i w, __m256i x) {
    const __m256i pairs = _mm256_maddubs_epi16(w, x);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  static Ints dot_signed(Ints sum, Bytes w, int32_t x) {
    const __m256i all = _mm256_set1_epi32(x);
    return {add_dot(sum.a, _mm256_abs_epi8(w.a), _mm256_sign_epi8(all, w.a)),
            add_dot(sum.b, _mm256_abs_epi8(w.b), _mm256_sign_epi8(all, w.b))};
  }
#endif
  static Ints dot(Ints sum, Bytes w, int32_t x) {
    const __m256i all = _mm256_set1_epi32(x);
    return {add_dot(sum.a, w.a, all), add_dot(sum.b, w.b, all)};
  }

  static Floats floats(Ints i) { return {_mm256_cvtepi32_ps(i.a), _mm256_cvtepi32_ps(i.b)}; }
  static Floats floats(float f) { return {_mm256_set1_ps(f), _mm256_set1_ps(f)}; }
  static __m128i load_16(const unsigned char* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  static __m128i load_8(const unsigned char* p) {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  }
  static Floats halves(const unsigned char* p) {
    return {_mm256_cvtph_ps(load_16(p)), _mm256_cvtph_ps(load_16(p + 16))};
  }
  static Floats unsigned_bytes(const unsigned char* p) {
    return floats(Ints{_mm256_cvtepu8_epi32(load_8(p)), _mm256_cvtepu8_epi32(load_8(p + 8))});
  }
  static Floats signed_bytes(const unsigned char* p) {
    return floats(Ints{_mm256_cvtepi8_epi32(load_8(p)), _mm256_cvtepi8_epi32(load_8(p + 8))});
  }
  static Floats multiply(Floats x, Floats y) {
    return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
  }
  static Floats fma(Floats x, Floats y, Floats z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
  }
  static Floats subtract_product(Floats x, Floats y, Floats z) {
    return {_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)};
  }
  static Floats load_floats(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static void store(float* p, Floats f) {
    _mm256_storeu_ps(p, f.a);
    _mm256_storeu_ps(p + 8, f.b);
  }
};

}  // namespace
}  // namespace tandem::cpu::avx2

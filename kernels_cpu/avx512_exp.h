// exp for 16 lanes.  Unnamed on purpose: each file has its own copy.
#pragma once

#include "kernels_cpu/avx512_helpers.h"

namespace tandem::cpu::avx512 {
namespace {

// x = n ln2 + r with |r| <= ln2 / 2; exp(r) by its Taylor polynomial of degree 7, whose remainder
// is below 2^-27; then times 2^n.  Relative error below 2^-22 where the result is normal.
// Infinities and NaN come out as exp has them; results below 2^-126 round as subnormals.
inline __m512 exp(__m512 x) {
  const __m512 bounded =
      _mm512_min_ps(_mm512_set1_ps(90.0f), _mm512_max_ps(_mm512_set1_ps(-110.0f), x));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(bounded, _mm512_set1_ps(0x1.715476p0f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e4p-1f), bounded);  // ln2 in two parts
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.7f7d1cp-20f), r);
  __m512 p = _mm512_set1_ps(1.0f / 5040.0f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

}  // namespace
}  // namespace tandem::cpu::avx512

// e^x in float32 with the same bits on a card and on the host: the polynomial of the CPU's vector sets.
#pragma once

#include <cmath>

#include "kernels_gpu/portable.h"

namespace tandem::gpu {

// 2^n for n in [-126, 127]; 2^-127 comes out as 0.
TANDEM_DEVICE float power_of_two(int n) {
  return bits_as<float>(static_cast<uint32_t>(n + 127) << 23);
}

// x = n ln2 + r with |r| <= ln2 / 2; exp(r) by its Taylor polynomial of degree 7, whose remainder is below 2^-27;
// then times 2^n in two steps.  Relative error below 2^-22 where the result is normal.  Infinities and NaN come out as exp
// has them; results below 2^-126 round as subnormals.
TANDEM_DEVICE float exp_f32(float x) {
  if (!(x == x)) return x;
  const float bounded = x > 90.0f ? 90.0f : x < -110.0f ? -110.0f : x;
  const float n = rintf(bounded * 0x1.715476p0f);
  float r = fmaf(-n, 0x1.62e4p-1f, bounded);  // ln2 in two parts
  r = fmaf(-n, 0x1.7f7d1cp-20f, r);
  float p = 1.0f / 5040.0f;
  p = fmaf(p, r, 1.0f / 720.0f);
  p = fmaf(p, r, 1.0f / 120.0f);
  p = fmaf(p, r, 1.0f / 24.0f);
  p = fmaf(p, r, 1.0f / 6.0f);
  p = fmaf(p, r, 0.5f);
  p = fmaf(p, r, 1.0f);
  p = fmaf(p, r, 1.0f);
  const int whole = static_cast<int>(n);
  const int half = whole >> 1;
  return p * power_of_two(half) * power_of_two(whole - half);
}

}  // namespace tandem::gpu

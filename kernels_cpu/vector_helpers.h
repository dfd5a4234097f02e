// What the AVX2 and the AVX-512 operators share: the limits of quantisation, in plain integers.  Unnamed on purpose: each file has its own copy,
// compiled for its own instruction set.
#pragma once

#include <cstdint>

namespace tandem::cpu {
namespace {

// Bits of float32 magnitudes: a block that reaches the first is NaN, one below the second is zero.
constexpr uint32_t kInfinity = 0x7f800000u;
constexpr uint32_t kTwoToMinus118 = (127u - 118u) << 23;

}  // namespace
}  // namespace tandem::cpu

// Random weights in every computed format: mean zero, a chosen spread, no NaN and no infinity.
//
// Values are spread evenly, not as a bell: what the kernels do with them takes the same time, and
// sums over a row are as good as normal.  Quantised blocks are drawn as blocks, not quantised from
// floats.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/dtype.h"

namespace tandem {

// Fills `out` with weights of standard deviation `deviation`.  The same arguments give the same
// bytes.  Requires: whole blocks; deviation in 1e-4 .. 10, where half-precision scales are exact
// enough.  Threading: any number at once.
void fill_random(DType type, float deviation, uint64_t seed, std::span<std::byte> out);

}  // namespace tandem

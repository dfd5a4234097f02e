// Finds weights that would make every answer NaN: not-a-number or infinite scalars and block
// scales, which a damaged download or a hostile file may hold.
//
// Threading: pure functions; large tensors are best cut into rows and checked side by side.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/dtype.h"

namespace tandem {

// The offset in bytes of the first scalar or block scale that is not finite; nothing when all are.
// Quantised values are integers and finite as they are, so only the scales are read.
// Requires: whole blocks.
std::optional<uint64_t> find_not_finite(DType type, std::span<const std::byte> weights);

}  // namespace tandem

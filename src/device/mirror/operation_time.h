// What an operation of a timed mirror takes, and the weights that it reads.
//
// Threading: pure, but for expert products, which look at their lists: those must be made.
// Ownership and errors: none.
#pragma once

#include <cstdint>

#include "device/mirror/mirror_options.h"
#include "device/operation.h"

namespace tandem::mirror {

uint64_t weight_bytes(const Operation& operation);
double seconds_of(const Profile& profile, const Operation& operation);

}  // namespace tandem::mirror

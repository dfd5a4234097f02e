// What an operation of a timed mirror leaves behind instead of results: zeros, and experts chosen at random.
//
// The CPU goes on with what the device gives it, so it has to be numbers; and routing decides how many experts each
// processor computes, so it has to be varied: each token chooses its experts evenly among all, the same in each run.
#pragma once

#include "device/operation.h"

namespace tandem::mirror {

// Requires: what the operation would read is there.  Any thread.
void stand_in_for(const Operation& op);

}  // namespace tandem::mirror

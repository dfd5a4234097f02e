// Operations computed by host code: in pieces, which the thread team shares out, or whole, as the mirror device does.
//
// Which piece is computed by whom, and in which order, never changes a bit of the result.
//
// Threading: re-entrant; pieces of one operation may run at once.
// Ownership: nothing is kept or allocated.
// Errors: none; shapes were checked when the Program was built.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/progress.h"
#include "device/operation.h"
#include "kernels_cpu/kernels.h"

namespace tandem::host {

// Rows of an operation's row space in this step.
int64_t n_rows(const Operation& operation);

// The lists in in[1] of this step.
ExpertLists lists_in(const Operation& operation);

// One row of a row-wise operation: all kinds but those below.
void compute_row(const Operation& operation, const cpu::KernelTable& kernels, int64_t row);

// Rows [begin,end) of the weight times all rows of in[0].
void compute_product(const Operation& operation, const cpu::KernelTable& kernels, int64_t begin,
                     int64_t end);
// The same for one expert and its pairs.
void compute_expert_product(const Operation& operation, const cpu::KernelTable& kernels,
                            int32_t expert, int64_t begin, int64_t end);

// Of kAttend, kAttendPages or kMergePages the query heads of one token that share a key-value head.  `scratch`: attend_scratch_floats().
// Left unfinished once cancelled: a long context takes a second with slow kernels.
void compute_attend(const Operation& operation, const cpu::KernelTable& kernels, int64_t token,
                    int64_t kv_head, float* scratch, const CancelFlag& cancel);
size_t attend_scratch_floats(const OperationConstants& constants);

// kListPairs, whole.
void list_pairs(const Operation& operation);

// Any operation, whole.
void compute(const Operation& operation, const cpu::KernelTable& kernels, float* attend_scratch);

}  // namespace tandem::host

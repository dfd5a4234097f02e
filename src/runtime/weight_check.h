// Looks for weights that are not numbers before anything is computed with them.
#pragma once

#include "base/progress.h"
#include "base/status.h"
#include "formats/gguf/gguf.h"
#include "memory/block_store.h"
#include "model/program.h"

namespace tandem {

// Reads every scalar and block scale once, on this thread and up to n_threads - 1 of oneTBB's.
// Requires: the store is resident.
// Progress is reported on this thread, in bytes.
// Errors: kCorrupt naming the tensor, and the byte within it, of the first that is not finite; kCancelled.
Status check_weights(const GgufFile& file, const Program& program, const BlockStore& store,
                     unsigned n_threads, const ProgressCallback& progress,
                     const CancelFlag& cancel);

}  // namespace tandem

// Puts the quantised matrices that only the CPU reads into tiles of sixteen rows (kernels_cpu/tiles.h), in place: read
// from tiles, they come at the speed of memory.
//
// Devices read the layout of files, and so does whoever copies to them; what passes through either stays as it is.
// Products give the same bits from both layouts.
#pragma once

#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "dispatch/placement.h"
#include "kernels_cpu/kernels.h"
#include "memory/block_store.h"
#include "model/program.h"

namespace tandem {

// [blocks] which never leave the CPU.  `placement`: null without a device.
std::vector<bool> blocks_of_cpu(const Program& program, const Placement* placement);

// Matrices whose rows are no multiple of sixteen stay as they are.  On this thread and up to n_threads - 1 of oneTBB's;
// progress on this thread, in bytes.  Errors: kCancelled; then the store has to be loaded again.
// Requires: the store is resident and nothing reads it.
Status put_into_tiles(const Program& program, const Placement* placement,
                      const cpu::KernelTable& kernels, BlockStore& store, unsigned n_threads,
                      const ProgressCallback& progress, const CancelFlag& cancel);

}  // namespace tandem

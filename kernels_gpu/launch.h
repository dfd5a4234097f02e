// Submits operations to a card.  Plain C++: includes nothing of CUDA.
//
// Threading: re-entrant; submits to the stream it is given, in the calling thread's current device.
// Ownership: nothing is kept or allocated; what the operation refers to has to outlive the work, but for its
// constants, which are copied.
// Errors: kUnsupported before anything is submitted; kDevice, kDeviceLost as in status_from_cuda().  Never waits.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "device/operation.h"

struct CUstream_st;

namespace tandem::gpu {

struct LaunchTarget {
  CUstream_st* stream = nullptr;
  uint32_t blocks = 1;  // that fill the card with row-wise work
};

// Loads every kernel.  CUDA loads a kernel when it is first launched, which waits for whatever the card has to do, and that
// may wait for the host.
Status load_kernels();
Status load_products();
Status load_row_wise();

Status launch_operation(const LaunchTarget& target, const Operation& operation);
// Its two halves, compiled apart.
Status launch_product(const LaunchTarget& target, const Operation& operation);
Status launch_row_wise(const LaunchTarget& target, const Operation& operation);

// Where the driver has no stream memory operations: a kernel of one thread sets, or waits for, a flag in memory that
// host and card see.
Status launch_set_flag(CUstream_st* stream, uint32_t* flag, uint32_t value);
Status launch_wait_flag(CUstream_st* stream, const uint32_t* flag, uint32_t value);

// A cudaError_t as a Status, ok for cudaSuccess: kOutOfMemory, kDeviceLost for errors after which no call on the card
// works any more, kUnsupported for what cannot be
// captured, else kDevice.
Status status_from_cuda(int error, const char* what);

}  // namespace tandem::gpu

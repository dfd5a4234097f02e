// Move-only owners of what the CUDA runtime gives.
//
// Threading: none of their own.  Errors: those of giving back are dropped; a lost card cannot give anything back.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>

namespace tandem::cuda {

template <auto destroy>
struct Destroy {
  template <typename T>
  void operator()(T* handle) const {
    (void)destroy(handle);
    (void)cudaGetLastError();  // not to be taken for the next call's
  }
};

using StreamOwner = std::unique_ptr<CUstream_st, Destroy<cudaStreamDestroy>>;
using EventOwner = std::unique_ptr<CUevent_st, Destroy<cudaEventDestroy>>;
using GraphOwner = std::unique_ptr<CUgraph_st, Destroy<cudaGraphDestroy>>;
using GraphExecOwner = std::unique_ptr<CUgraphExec_st, Destroy<cudaGraphExecDestroy>>;
using HostMemoryOwner = std::unique_ptr<void, Destroy<cudaFreeHost>>;

}  // namespace tandem::cuda

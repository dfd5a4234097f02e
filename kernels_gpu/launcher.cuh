// Runs portable kernels on the card.
#pragma once

#include "kernels_gpu/launch.h"
#include "kernels_gpu/select.h"

namespace tandem::gpu {

template <typename Kernel>
__global__ void __launch_bounds__(Kernel::kThreads)
    run_kernel(const __grid_constant__ Arguments a) {
  __shared__ typename Kernel::Shared shared;
  Kernel::run(Block<Kernel::kThreads>(), shared, a);
}

// A Launcher of select.h.
struct CardLauncher {
  LaunchTarget target;

  uint32_t blocks() const { return target.blocks; }

  template <typename Kernel>
  Status run(Grid grid, const Arguments& a) const {
    run_kernel<Kernel><<<dim3(grid.x, grid.y), Kernel::kThreads, 0, target.stream>>>(a);
    return status_from_cuda(cudaGetLastError(), "launching a kernel");
  }
};

// Loads kernels instead of running them.
struct Loader {
  uint32_t blocks() const { return 1; }

  template <typename Kernel>
  Status run(Grid, const Arguments&) const {
    cudaFuncAttributes attributes;
    return status_from_cuda(cudaFuncGetAttributes(&attributes, run_kernel<Kernel>),
                            "loading a kernel");
  }
};

}  // namespace tandem::gpu

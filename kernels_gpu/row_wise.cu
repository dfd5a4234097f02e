// All operations but products; flags.
#include "kernels_gpu/launcher.cuh"

namespace tandem::gpu {
namespace {

__global__ void set_flag(uint32_t* flag, uint32_t value) {
  __threadfence_system();
  *static_cast<volatile uint32_t*>(flag) = value;
}

// Until flag >= value, as differences modulo 2^32, like the driver's own wait.
__global__ void wait_flag(const uint32_t* flag, uint32_t value) {
  while (static_cast<int32_t>(*static_cast<const volatile uint32_t*>(flag) - value) < 0)
    __nanosleep(200);
  __threadfence_system();
}

}  // namespace

Status launch_row_wise(const LaunchTarget& target, const Operation& operation) {
  return select_row_wise(CardLauncher{target}, Arguments{operation, *operation.constants});
}

Status load_row_wise() {
  cudaFuncAttributes attributes;
  TANDEM_RETURN_IF_ERROR(
      status_from_cuda(cudaFuncGetAttributes(&attributes, set_flag), "loading a kernel"));
  TANDEM_RETURN_IF_ERROR(
      status_from_cuda(cudaFuncGetAttributes(&attributes, wait_flag), "loading a kernel"));
  return select_all_row_wise(Loader{});
}

Status load_kernels() {
  TANDEM_RETURN_IF_ERROR(load_products());
  return load_row_wise();
}

Status launch_operation(const LaunchTarget& target, const Operation& operation) {
  TANDEM_RETURN_IF_ERROR(check_operation(Arguments{operation, *operation.constants}));
  return is_product(operation) ? launch_product(target, operation)
                               : launch_row_wise(target, operation);
}

Status launch_set_flag(CUstream_st* stream, uint32_t* flag, uint32_t value) {
  set_flag<<<1, 1, 0, stream>>>(flag, value);
  return status_from_cuda(cudaGetLastError(), "setting a flag");
}

Status launch_wait_flag(CUstream_st* stream, const uint32_t* flag, uint32_t value) {
  wait_flag<<<1, 1, 0, stream>>>(flag, value);
  return status_from_cuda(cudaGetLastError(), "waiting for a flag");
}

}  // namespace tandem::gpu

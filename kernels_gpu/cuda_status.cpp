#include <cuda_runtime_api.h>

#include <string>

#include "kernels_gpu/launch.h"

namespace tandem::gpu {
namespace {

// After these the process can do nothing more with the card.  Source: the runtime's description of each error.
bool is_loss(cudaError_t error) {
  switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorIllegalInstruction:
    case cudaErrorHardwareStackError:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorDevicesUnavailable:
    case cudaErrorContextIsDestroyed:
    case cudaErrorCudartUnloading:
    case cudaErrorUnknown:
      return true;
    default:
      return false;
  }
}

// What a stream whose work is written into a graph does not take.
bool is_of_capture(cudaError_t error) {
  return error >= cudaErrorStreamCaptureUnsupported && error <= cudaErrorStreamCaptureWrongThread;
}

}  // namespace

Status status_from_cuda(int error, const char* what) {
  const auto code = static_cast<cudaError_t>(error);
  if (code == cudaSuccess) return ok_status();
  const std::string message = std::string("CUDA: ") + what + ": " + cudaGetErrorString(code) +
                              " (" + cudaGetErrorName(code) + ")";
  if (code == cudaErrorMemoryAllocation) return out_of_memory(message);
  if (is_of_capture(code)) return unsupported(message);
  return Status(is_loss(code) ? Code::kDeviceLost : Code::kDevice, message);
}

}  // namespace tandem::gpu

// libtandem_cuda.so's one visible symbol.
#include "device/cuda/cuda_device.h"

namespace {

constexpr tandem::DeviceModule kModule{tandem::kDeviceModuleAbi, TANDEM_VERSION,
                                       tandem::cuda::CudaDevice::open};

}  // namespace

extern "C" __attribute__((visibility("default"))) const tandem::DeviceModule*
tandem_device_module() {
  return &kModule;
}

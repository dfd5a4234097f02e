// Modules that are not of this tandem, chosen by a macro.
#include "device/device_module.h"

#if defined(OTHER_ABI) || defined(OTHER_VERSION)

namespace {

#if defined(OTHER_ABI)
constexpr tandem::DeviceModule kModule{tandem::kDeviceModuleAbi + 7, "0.0.9", nullptr};
#else
constexpr tandem::DeviceModule kModule{tandem::kDeviceModuleAbi, "0.0.9", nullptr};
#endif

}  // namespace

extern "C" __attribute__((visibility("default"))) const tandem::DeviceModule*
tandem_device_module() {
  return &kModule;
}

#endif

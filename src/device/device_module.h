// What a device module, a shared library that is loaded at run time, offers: one function, which gives one struct.
//
// Threading: open() from any thread.
// Ownership: the struct is constant and lives as long as the library, which is never unloaded: Devices and Statuses that
// came from it hold its code.
// Errors: open() says why there is no device: kNotFound where a driver or a card is missing, kUnsupported where one is too old.
#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "device/device.h"

namespace tandem {

// Grows with every change of Device, Operation, StepInput, Status or the structs here.
inline constexpr uint32_t kDeviceModuleAbi = 5;
inline constexpr const char* kDeviceModuleEntry = "tandem_device_module";

struct DeviceModuleRequest {
  int index = 0;              // of the card
  uint64_t budget_bytes = 0;  // 0: what is free when it is opened, less a sixteenth
  bool flag_kernels = false;  // flags by kernels, even where the driver can do them: for tests
};

struct DeviceModule {
  uint32_t abi = 0;               // stands first in every version
  const char* version = nullptr;  // of tandem: C++ types cross the border, so it has to be the same
  Result<std::unique_ptr<Device>> (*open)(const DeviceModuleRequest& request) = nullptr;
};

// The entry point's type.
using DeviceModuleFunction = const DeviceModule*();

}  // namespace tandem

// The device that these tests run on: what TANDEM_TEST_DEVICE names, the mirror if it names nothing.
#pragma once

#include <string>
#include <vector>

#include "device/open_device.h"

namespace tandem::gpu::testing {

// Opened with the module in TANDEM_TEST_MODULES, else the one of this build; flags by kernels if TANDEM_TEST_FLAG_KERNELS
// is set.
Result<OpenedDevice> open_device_under_test();

// What tests measured: rows of the table.
struct Measured {
  std::string what;
  double microseconds = 0;
  double gb_per_s = 0;  // 0: does not apply
};
std::vector<Measured>& measured();

}  // namespace tandem::gpu::testing

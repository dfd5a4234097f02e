#include "tests/gpu/device_under_test.h"

#include <cstdlib>

#include "kernels_cpu/dispatch.h"

namespace tandem::gpu::testing {
namespace {

std::string from_environment(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : otherwise;
}

}  // namespace

Result<OpenedDevice> open_device_under_test() {
#ifdef TANDEM_CUDA_MODULE_FOLDER
  const char* module_folder = TANDEM_CUDA_MODULE_FOLDER;
#else
  const char* module_folder = "";
#endif
  OpenDeviceOptions options;
  options.module_folder = from_environment("TANDEM_TEST_MODULES", module_folder);
  options.flag_kernels = std::getenv("TANDEM_TEST_FLAG_KERNELS") != nullptr;
  return open_device(from_environment("TANDEM_TEST_DEVICE", "mirror:vram=1GiB"),
                     *cpu::table_for(cpu::Isa::kScalar), options);
}

std::vector<Measured>& measured() {
  static std::vector<Measured> rows;
  return rows;
}

}  // namespace tandem::gpu::testing

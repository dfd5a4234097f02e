#include "device/open_device.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "kernels_cpu/dispatch.h"
#include "tests/status_matchers.h"

namespace tandem {
namespace {

using ::testing::AllOf;
using testing::fails_with;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::TemporaryFolder;

const cpu::KernelTable& kernels() { return *cpu::table_for(cpu::Isa::kScalar); }

bool has_driver() {
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (driver != nullptr) dlclose(driver);
  return driver != nullptr;
}

Status refusal(std::string_view spec, const std::string& module_folder = "/nonexistent") {
  OpenDeviceOptions options;
  options.module_folder = module_folder;
  return open_device(spec, kernels(), options).status();
}

std::string folder(const std::string& name) {
  return (std::filesystem::path(TANDEM_TEST_MODULES) / name).string();
}

TEST(OpenDevice, NoneIsTheProcessorAlone) {
  Result<OpenedDevice> opened = open_device("none", kernels());
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ(opened->device, nullptr);
  EXPECT_EQ(opened->note, "");
}

TEST(OpenDevice, MirrorTakesItsOptionsAndTheBudget) {
  OpenDeviceOptions options;
  options.budget_bytes = 12345;
  Result<OpenedDevice> opened = open_device("mirror:vram=64MiB", kernels(), options);
  ASSERT_TRUE(opened.ok()) << opened.status().to_string();
  EXPECT_EQ(opened->device->info().memory_bytes, 64u << 20);
  EXPECT_EQ(opened->device->budget_bytes(), 12345u);
  EXPECT_EQ(refusal("mirror:speed=9").code(), Code::kInvalidArgument);
}

TEST(OpenDevice, UnknownWordsAreQuotedWithWhatThereIs) {
  EXPECT_THAT(refusal("gpu"),
              fails_with(Code::kInvalidArgument, AllOf(HasSubstr("\"gpu\""), HasSubstr("mirror"))));
  EXPECT_EQ(refusal("").code(), Code::kInvalidArgument);
  EXPECT_EQ(refusal("cuda1").code(), Code::kInvalidArgument);
}

TEST(OpenDevice, ACardIsNamedByANumber) {
  for (const char* spec : {"cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda:99999999999"})
    EXPECT_THAT(refusal(spec), fails_with(Code::kInvalidArgument, HasSubstr(spec))) << spec;
}

TEST(OpenDevice, WithoutAModuleTheDriverDecidesWhatIsMissing) {
  if (has_driver()) {
    EXPECT_THAT(refusal("cuda"), fails_with(Code::kUnsupported, HasSubstr("libtandem_cuda.so")));
  } else {
    EXPECT_THAT(refusal("cuda"), fails_with(Code::kNotFound, HasSubstr("no NVIDIA driver")));
  }
}

TEST(OpenDevice, AutoSaysNothingWhereThereIsNoDriver) {
  if (has_driver()) GTEST_SKIP() << "this machine has an NVIDIA driver";
  Result<OpenedDevice> opened = open_device("auto", kernels());
  ASSERT_TRUE(opened.ok()) << opened.status().to_string();
  EXPECT_EQ(opened->device, nullptr);
  EXPECT_EQ(opened->note, "");
}

TEST(OpenDevice, AModuleOfAnotherInterfaceIsRefusedBeforeItIsUsed) {
  EXPECT_THAT(refusal("cuda", folder("other_abi")),
              fails_with(Code::kUnsupported, HasSubstr("interface has number 8, 1 is needed")));
}

TEST(OpenDevice, AModuleOfAnotherVersionIsRefused) {
  EXPECT_THAT(refusal("cuda", folder("other_version")),
              fails_with(Code::kUnsupported, HasSubstr("it is version 0.0.9")));
}

TEST(OpenDevice, ALibraryThatIsNoModuleIsRefused) {
  EXPECT_THAT(refusal("cuda", folder("no_entry")),
              fails_with(Code::kUnsupported, HasSubstr("no entry point")));
}

TEST(OpenDevice, AFileThatIsNoLibraryIsRefused) {
  const TemporaryFolder temporary;
  std::ofstream(temporary / "libtandem_cuda.so") << "text";
  EXPECT_THAT(refusal("cuda", temporary.path().string()),
              fails_with(Code::kUnsupported, HasSubstr("cannot be loaded")));
}

TEST(OpenDevice, AutoTellsOfAModuleThatCannotBeUsed) {
  OpenDeviceOptions options;
  options.module_folder = folder("other_abi");
  Result<OpenedDevice> opened = open_device("auto", kernels(), options);
  ASSERT_TRUE(opened.ok()) << opened.status().to_string();
  EXPECT_EQ(opened->device, nullptr);
  EXPECT_THAT(opened->note, HasSubstr("together"));
}

#ifdef TANDEM_CUDA_MODULE_FOLDER

TEST(CudaModule, LoadsAndSaysInOneLineWhyThereIsNoDevice) {
  OpenDeviceOptions options;
  options.module_folder = TANDEM_CUDA_MODULE_FOLDER;
  Result<OpenedDevice> opened = open_device("cuda", kernels(), options);
  if (opened.ok()) {
    EXPECT_EQ(opened->device->info().backend, "cuda");
    return;
  }
  EXPECT_THAT(
      opened.status().message(),
      AllOf(Not(HasSubstr("\n")), ::testing::AnyOf(HasSubstr("no NVIDIA driver"),
                                                   HasSubstr("no card"), HasSubstr("too old"))));
  if (!has_driver()) {
    EXPECT_EQ(opened.status().code(), Code::kNotFound);
  }
}

TEST(CudaModule, LeavesAutoQuietWithoutADriver) {
  if (has_driver()) GTEST_SKIP() << "this machine has an NVIDIA driver";
  OpenDeviceOptions options;
  options.module_folder = TANDEM_CUDA_MODULE_FOLDER;
  Result<OpenedDevice> opened = open_device("auto", kernels(), options);
  ASSERT_TRUE(opened.ok()) << opened.status().to_string();
  EXPECT_EQ(opened->device, nullptr);
  EXPECT_EQ(opened->note, "");
}

#endif

}  // namespace
}  // namespace tandem

#include "device/open_device.h"

#include "device/device_module.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
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

// A module beside the program that this code is in: where it is looked for if no folder is given.
TEST(OpenDevice, LooksForTheModuleBesideItself) {
  EXPECT_THAT(open_device("cuda", kernels()).status(),
              fails_with(Code::kUnsupported, HasSubstr("it is version 0.0.9")));
}

TEST(OpenDevice, AutoSaysNothingWhereThereIsNoDriver) {
  if (has_driver()) GTEST_SKIP() << "this machine has an NVIDIA driver";
  OpenDeviceOptions options;
  options.module_folder = "/nonexistent";
  Result<OpenedDevice> opened = open_device("auto", kernels(), options);
  ASSERT_TRUE(opened.ok()) << opened.status().to_string();
  EXPECT_EQ(opened->device, nullptr);
  EXPECT_EQ(opened->note, "");
}

TEST(OpenDevice, AModuleOfAnotherInterfaceIsRefusedBeforeItIsUsed) {
  EXPECT_THAT(refusal("cuda", folder("other_abi")),
              fails_with(Code::kUnsupported,
                         HasSubstr("interface has number " + std::to_string(kDeviceModuleAbi + 7) +
                                   ", " + std::to_string(kDeviceModuleAbi) + " is needed")));
}

TEST(OpenDevice, AModuleOfAnotherVersionIsRefused) {
  EXPECT_THAT(refusal("cuda", folder(".")),
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

#ifdef TANDEM_FAKE_CARD_FOLDER

// What the module says of drivers and cards, with a runtime that has none (cuda/fake_runtime.cpp).
class FakeCard : public ::testing::Test {
 protected:
  ~FakeCard() override { ::unsetenv("TANDEM_FAKE_CARD"); }
  static Status refusal_of(const char* card, std::string_view spec = "cuda:1") {
    ::setenv("TANDEM_FAKE_CARD", card, 1);
    return refusal(spec, TANDEM_FAKE_CARD_FOLDER);
  }
};

TEST_F(FakeCard, IsOpenedWithABudget) {
  OpenDeviceOptions options;
  options.module_folder = TANDEM_FAKE_CARD_FOLDER;
  options.budget_bytes = 54321;
  Result<OpenedDevice> opened = open_device("cuda:1", kernels(), options);
  ASSERT_TRUE(opened.ok()) << opened.status().to_string();
  EXPECT_EQ(opened->device->budget_bytes(), 54321u);
  options.budget_bytes = 0;
  opened = open_device("cuda:1", kernels(), options);
  ASSERT_TRUE(opened.ok()) << opened.status().to_string();
  EXPECT_GT(opened->device->budget_bytes(), opened->device->info().memory_bytes * 9 / 10);
  EXPECT_LT(opened->device->budget_bytes(), opened->device->info().memory_bytes * 15 / 16);
}

TEST_F(FakeCard, DriverThatIsMissingOrTooOldIsNamed) {
  EXPECT_THAT(refusal_of("no_driver"), fails_with(Code::kNotFound, HasSubstr("no NVIDIA driver")));
  EXPECT_THAT(refusal_of("old_driver"),
              fails_with(Code::kUnsupported, AllOf(HasSubstr("too old"), HasSubstr("CUDA 11.4"))));
}

TEST_F(FakeCard, CardThatIsMissingOrTooOldIsNamed) {
  EXPECT_THAT(refusal_of("no_card"), fails_with(Code::kNotFound, HasSubstr("no card")));
  EXPECT_THAT(refusal_of("", "cuda:2"),
              fails_with(Code::kNotFound, HasSubstr("the machine has 2, counted from 0")));
  EXPECT_THAT(refusal_of("old_card"),
              fails_with(Code::kUnsupported,
                         AllOf(HasSubstr("a fake card"), HasSubstr("7.5"), HasSubstr("8.0"))));
}

#endif

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

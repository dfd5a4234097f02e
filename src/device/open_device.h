// From what a person writes after --device to a Device.
//
// Threading: open_device() from any thread.
// Ownership: the caller owns the Device; a module that was loaded stays loaded.
// Errors: kInvalidArgument that quotes the word; kNotFound where driver, card or module is missing, kUnsupported
// where one is too old: one line that says which, and what helps; the mirror's own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "device/device.h"
#include "kernels_cpu/kernels.h"

namespace tandem {

struct OpenDeviceOptions {
  uint64_t budget_bytes = 0;  // of device memory; 0: of a card what is free, less a sixteenth
  // Where libtandem_cuda.so lies; empty: beside the library or program that this function is in.
  std::filesystem::path module_folder;
  bool flag_kernels =
      false;  // a card's flags by kernels, even where its driver can do them: for tests
};

struct OpenedDevice {
  std::unique_ptr<Device> device;  // null: the CPU alone
  std::string note;                // for "auto": why a card that seems to be there is not used
};

// "none"; "auto": a card if one can be used, else none; "cuda", "cuda:1": that card or an error; "mirror",
// "mirror:vram=4GiB,...": a device made of this computer, whose operations `kernels` compute.
Result<OpenedDevice> open_device(std::string_view spec, const cpu::KernelTable& kernels,
                                 const OpenDeviceOptions& options = {});

}  // namespace tandem

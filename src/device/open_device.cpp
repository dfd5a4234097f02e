#include "device/open_device.h"

#include <dlfcn.h>

#include <charconv>
#include <system_error>

#include "device/device_module.h"
#include "device/mirror/mirror_device.h"

namespace tandem {
namespace {

constexpr const char* kModuleFile = "libtandem_cuda.so";

// The folder of the library or program that this code was linked into.
std::filesystem::path own_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&own_folder), &info) == 0 || info.dli_fname == nullptr)
    return {};
  std::error_code error;
  std::filesystem::path path = std::filesystem::canonical(info.dli_fname, error);
  // A program started by a bare name: the loader does not say where it lies.
  if (error) path = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? std::filesystem::path() : path.parent_path();
}

bool driver_is_there() {
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (driver == nullptr) return false;
  dlclose(driver);
  return true;
}

Status no_driver() {
  return not_found(
      "no NVIDIA driver on this machine (libcuda.so.1 cannot be loaded): there is no device "
      "\"cuda\"");
}

// Only called with a driver there: without one a module helps nobody.
Status no_module(const std::filesystem::path& path) {
  return unsupported("an NVIDIA driver is installed, but tandem's CUDA module is not: " +
                     path.string() + " is missing")
      .suggest("build with CMake's -DTANDEM_CUDA=ON where nvcc is installed");
}

Status wrong_module(const std::filesystem::path& path, const std::string& why) {
  return unsupported(path.string() + " is not of this tandem: " + why)
      .suggest("build and install the library and its CUDA module together");
}

Result<const DeviceModule*> load_module(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    return driver_is_there() ? no_module(path) : no_driver();
  }
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    const char* why = dlerror();
    return unsupported("the CUDA module cannot be loaded: " +
                       std::string(why != nullptr ? why : path.string()));
  }
  auto* entry = reinterpret_cast<DeviceModuleFunction*>(dlsym(library, kDeviceModuleEntry));
  if (entry == nullptr) return wrong_module(path, "it has no entry point");
  const DeviceModule* module = entry();
  if (module->abi != kDeviceModuleAbi) {
    return wrong_module(path, "its interface has number " + std::to_string(module->abi) + ", " +
                                  std::to_string(kDeviceModuleAbi) + " is needed");
  }
  if (std::string_view(module->version) != TANDEM_VERSION) {
    return wrong_module(path, std::string("it is version ") + module->version + ", " +
                                  TANDEM_VERSION + " is needed");
  }
  return module;
}

Result<std::unique_ptr<Device>> open_cuda(int index, const OpenDeviceOptions& options) {
  const std::filesystem::path folder =
      options.module_folder.empty() ? own_folder() : options.module_folder;
  TANDEM_ASSIGN_OR_RETURN(const DeviceModule* module, load_module(folder / kModuleFile));
  DeviceModuleRequest request;
  request.index = index;
  request.budget_bytes = options.budget_bytes;
  request.flag_kernels = options.flag_kernels;
  return module->open(request);
}

Result<std::unique_ptr<Device>> open_mirror(std::string_view text, const cpu::KernelTable& kernels,
                                            const OpenDeviceOptions& options) {
  TANDEM_ASSIGN_OR_RETURN(const mirror::MirrorOptions looks, mirror::parse_mirror_options(text));
  Result<std::unique_ptr<Device>> device = mirror::create_device(looks, kernels);
  if (device.ok() && options.budget_bytes != 0) (*device)->set_budget(options.budget_bytes);
  return device;
}

Result<int> card_number(std::string_view spec, std::string_view number) {
  int index = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), index);
  if (error == std::errc() && end == number.data() + number.size() && index >= 0) return index;
  return invalid_argument("device \"" + std::string(spec) +
                          "\": a card's number is expected behind the colon");
}

// A machine without a driver or a card is no news; a card that stays unused is.
Result<OpenedDevice> open_any(const OpenDeviceOptions& options) {
  Result<std::unique_ptr<Device>> device = open_cuda(0, options);
  OpenedDevice opened;
  if (device.ok()) {
    opened.device = std::move(*device);
  } else if (device.status().code() != Code::kNotFound) {
    const Status status = device.status();
    opened.note = status.message();
    if (!status.suggestion().empty()) opened.note += "; " + status.suggestion();
  }
  return opened;
}

}  // namespace

Result<OpenedDevice> open_device(std::string_view spec, const cpu::KernelTable& kernels,
                                 const OpenDeviceOptions& options) {
  if (spec == "none") return OpenedDevice{};
  if (spec == "auto") return open_any(options);
  const size_t colon = spec.find(':');
  const std::string_view backend = spec.substr(0, colon);
  const std::string_view details =
      colon == std::string_view::npos ? std::string_view() : spec.substr(colon + 1);
  OpenedDevice opened;
  if (backend == "mirror") {
    TANDEM_ASSIGN_OR_RETURN(opened.device, open_mirror(details, kernels, options));
  } else if (backend == "cuda") {
    TANDEM_ASSIGN_OR_RETURN(const int index,
                            (backend == spec ? Result<int>(0) : card_number(spec, details)));
    TANDEM_ASSIGN_OR_RETURN(opened.device, open_cuda(index, options));
  } else {
    return invalid_argument("device \"" + std::string(spec) +
                            "\" is not known; there are auto, none, cuda, cuda:NUMBER and mirror");
  }
  return opened;
}

}  // namespace tandem

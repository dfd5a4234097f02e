#include "runtime/hybrid.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/file.h"
#include "device/open_device.h"

namespace tandem {
namespace {

constexpr uint64_t kMaxPlaceFileBytes = uint64_t{1} << 20;

Result<int64_t> read_count(const std::string& name, const std::string& text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) {
    return invalid_argument(name + " is '" + text.substr(0, 64) + "', expected a number, all" +
                            std::string(name == "gpu_layers" ? " or auto" : ""));
  }
  return value;
}

Result<PlaceFile> read_places(const std::filesystem::path& path) {
  TANDEM_ASSIGN_OR_RETURN(const auto file, ReadFile::open(path));
  if (file->size_bytes() > kMaxPlaceFileBytes) {
    return corrupt("a place file has at most a megabyte").in_file(path.string());
  }
  std::string text(file->size_bytes(), '\0');
  TANDEM_RETURN_IF_ERROR(file->read_at(0, std::as_writable_bytes(std::span(text))));
  Result<PlaceFile> places = read_place_file(text);
  if (!places.ok()) return places.status().in_file(path.string());
  return places;
}

Result<PlacementOptions> read_options(const HybridOptions& options) {
  PlacementOptions result;
  if (options.gpu_layers == "all") {
    result.gpu_layers = kAllLayers;
  } else if (options.gpu_layers != "auto") {
    TANDEM_ASSIGN_OR_RETURN(result.gpu_layers, read_count("gpu_layers", options.gpu_layers));
  }
  if (options.cpu_experts == "all") {
    result.cpu_experts = kAllLayers;
  } else {
    TANDEM_ASSIGN_OR_RETURN(result.cpu_experts, read_count("cpu_experts", options.cpu_experts));
  }
  if (!options.place_file.empty()) {
    TANDEM_ASSIGN_OR_RETURN(result.file, read_places(options.place_file));
  }
  result.expert_cache = options.expert_cache;
  return result;
}

std::string summary_of(const Program& program, const Placement& placement,
                       const std::string& device) {
  const auto& kv = placement.kv_on_device;
  const auto n_layers = std::count(kv.begin(), kv.end(), true);
  uint64_t n_blocks = 0, n_experts_in_ram = 0;
  for (size_t i = 0; i < placement.blocks.size(); ++i) {
    const bool on_device = placement.blocks[i].on_device();
    n_blocks += on_device ? 1 : 0;
    const bool expert = program.blocks[i].name.find(".expert.") != std::string::npos;
    n_experts_in_ram += expert && !on_device ? 1 : 0;
  }
  if (n_blocks == 0) return "all in RAM, nothing on " + device;
  std::string text =
      n_blocks == placement.blocks.size()
          ? "all on " + device
          : std::to_string(n_layers) + " of " + std::to_string(kv.size()) + " layers on " + device;
  if (n_experts_in_ram > 0) text += ", " + std::to_string(n_experts_in_ram) + " experts in RAM";
  if (placement.n_expert_slots > 0) {
    text += ", " + std::to_string(placement.n_expert_slots) + " slots for copies of them";
  }
  return text;
}

}  // namespace

Result<Hybrid> plan_hybrid(const Program& program, const HybridOptions& options,
                           const HybridNeed& need, const cpu::KernelTable& kernels) {
  TANDEM_ASSIGN_OR_RETURN(const PlacementOptions placement_options, read_options(options));
  Hybrid hybrid;
  TANDEM_ASSIGN_OR_RETURN(OpenedDevice opened, open_device(options.device, kernels));
  if (opened.device == nullptr) {
    if (!opened.note.empty()) hybrid.placement.notes.push_back(opened.note);
    return hybrid;
  }
  hybrid.device = std::move(opened.device);
  DeviceSpace space;
  space.budget_bytes = hybrid.device->budget_bytes();
  space.work_bytes = need.work_bytes;
  space.kv_layer_bytes =
      need.kv.bytes_for(need.n_context) / static_cast<uint64_t>(program.shape.n_layers);
  space.kv_page_bytes = 2 * need.kv.page_bytes();
  TANDEM_ASSIGN_OR_RETURN(hybrid.placement, choose_placement(program, placement_options, space));
  hybrid.summary = summary_of(program, hybrid.placement, hybrid.device->info().name);
  return hybrid;
}

}  // namespace tandem

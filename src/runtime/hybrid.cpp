#include "runtime/hybrid.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/file.h"
#include "device/open_device.h"
#include "dispatch/block_roles.h"

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
    return invalid_argument("a place file has at most " + std::to_string(kMaxPlaceFileBytes) +
                            " bytes, this one has " + std::to_string(file->size_bytes()))
        .named_after_file(path.string());
  }
  std::string text(file->size_bytes(), '\0');
  TANDEM_RETURN_IF_ERROR(file->read_at(0, std::as_writable_bytes(std::span(text))));
  Result<PlaceFile> places = read_place_file(text);
  if (!places.ok()) return places.status().named_after_file(path.string());
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

struct LayerParts {
  int64_t n_whole = 0;  // layers: dense parts, keys and values
  int64_t n_part = 0;   // layers of which something else than experts is there
  uint64_t n_blocks = 0, n_experts = 0, n_experts_in_ram = 0, n_streamed = 0;
  bool output = false, all = false;
};

LayerParts parts_on_device(const Program& program, const Placement& placement) {
  LayerParts parts;
  const size_t n_layers = placement.kv_on_device.size();
  std::vector<int64_t> there(n_layers, 0), elsewhere(n_layers, 0);
  const std::vector<BlockRole> roles = block_roles(program);
  for (size_t i = 0; i < placement.blocks.size(); ++i) {
    const bool on_device = placement.blocks[i].on_device();
    const BlockRole& role = roles[i];
    if (role.kind == BlockRole::Kind::kHost) continue;
    parts.n_blocks += on_device ? 1 : 0;
    parts.n_streamed += placement.blocks[i].streamed() ? 1 : 0;
    if (role.kind == BlockRole::Kind::kExpert)
      ++(on_device ? parts.n_experts : parts.n_experts_in_ram);
    if (role.kind == BlockRole::Kind::kHead && !role.vector && on_device) parts.output = true;
    if (role.kind == BlockRole::Kind::kDense)
      ++(on_device ? there : elsewhere)[static_cast<size_t>(role.layer)];
  }
  for (size_t layer = 0; layer < n_layers; ++layer) {
    const bool whole = elsewhere[layer] == 0 && placement.kv_on_device[layer];
    parts.n_whole += whole ? 1 : 0;
    parts.n_part += !whole && there[layer] > 0 ? 1 : 0;
  }
  // Embeddings are looked up on the CPU whatever the placement.
  parts.all = parts.n_whole == std::ssize(placement.kv_on_device) && parts.output &&
              parts.n_experts_in_ram == 0 && parts.n_streamed == 0;
  return parts;
}

// Fewer as the context grows, where they use its room.
std::string slots_text(const Placement& placement) {
  const uint64_t most = placement.n_expert_slots;
  const uint64_t least = placement.bytes.expert_slots / placement.expert_slot_bytes;
  const std::string text = std::to_string(most) + " slots for copies of them";
  return least == most ? text : text + " (" + std::to_string(least) + " with a full context)";
}

std::string summary_of(const Program& program, const Placement& placement,
                       const std::string& device) {
  const LayerParts parts = parts_on_device(program, placement);
  const std::string of_layers = " of " + std::to_string(placement.kv_on_device.size()) + " layers";
  std::string text;
  const auto add = [&text](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  if (parts.n_blocks == 0) return "all in RAM, nothing on " + device;
  if (parts.all) {
    text = "all on " + device;
  } else {
    if (parts.n_whole > 0) add(std::to_string(parts.n_whole) + of_layers);
    if (parts.n_part > 0) add("parts of " + std::to_string(parts.n_part) + of_layers);
    if (parts.n_experts > 0) add(std::to_string(parts.n_experts) + " experts");
    if (parts.output) add("the output");
    text += " on " + device;
    if (parts.n_streamed > 0) text += " (weights streamed)";
  }
  if (parts.n_experts_in_ram > 0) add(std::to_string(parts.n_experts_in_ram) + " experts in RAM");
  if (placement.n_expert_slots > 0) add(slots_text(placement));
  return text;
}

}  // namespace

Result<Hybrid> plan_hybrid(const Program& program, const HybridOptions& options,
                           const HybridNeed& need, const cpu::KernelTable& kernels) {
  TANDEM_ASSIGN_OR_RETURN(const PlacementOptions placement_options, read_options(options));
  Hybrid hybrid;
  OpenDeviceOptions how;
  how.budget_bytes = options.device_memory;
  TANDEM_ASSIGN_OR_RETURN(OpenedDevice opened, open_device(options.device, kernels, how));
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
  Result<Placement> placement = choose_placement(program, placement_options, space);
  if (!placement.ok()) {
    const Status& why = placement.status();
    const bool is_of_file = why.message().starts_with("place file");
    return is_of_file ? why.named_after_file(options.place_file.string()) : why;
  }
  hybrid.placement = std::move(*placement);
  if (!hybrid.device->info().computes) {
    hybrid.placement.notes.push_back(
        "the device only takes time and computes nothing: what comes out means nothing");
  }
  hybrid.summary = summary_of(program, hybrid.placement, hybrid.device->info().name);
  return hybrid;
}

}  // namespace tandem

#include "dispatch/placement.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "base/bytes.h"
#include "base/checked.h"
#include "dispatch/block_roles.h"

namespace tandem {
namespace {

using Kind = BlockRole::Kind;

// Fewer are not worth having both sides attend.
constexpr uint64_t kLeastKvPages = 4;

std::string layer_text(int64_t layer) { return "layer " + std::to_string(layer); }

std::string place_text(BlockPlace place) {
  if (place.streamed()) return "streamed to the device";
  return place.on_device() ? "on the device" : "on the CPU";
}

class Chooser {
 public:
  Chooser(const Program& program, const PlacementOptions& options, const DeviceSpace& space)
      : program_(program),
        options_(options),
        space_(space),
        n_layers_(program.shape.n_layers),
        roles_(block_roles(program)),
        fixed_(program.blocks.size()),
        dense_(static_cast<size_t>(n_layers_)),
        experts_(static_cast<size_t>(n_layers_)) {
    placement_.blocks.assign(program.blocks.size(), kInDram);
    placement_.kv_on_device.assign(static_cast<size_t>(n_layers_), false);
    placement_.cached_layers.assign(static_cast<size_t>(n_layers_), false);
    placement_.bytes.work = space.work_bytes;
    for (BlockId b = 0; b < roles_.size(); ++b) {
      bytes_.push_back(device_bytes(program.blocks[b]));
      by_name_.emplace(program.blocks[b].name, b);
      const BlockRole& role = roles_[b];
      if (role.kind == Kind::kHead) head_.push_back(b);
      if (role.kind == Kind::kDense) dense_[static_cast<size_t>(role.layer)].push_back(b);
      if (role.kind == Kind::kExpert) experts_[static_cast<size_t>(role.layer)].push_back(b);
    }
  }

  Result<Placement> choose() {
    TANDEM_RETURN_IF_ERROR(apply_rules());
    TANDEM_RETURN_IF_ERROR(make_attention_agree());
    TANDEM_RETURN_IF_ERROR(place_fixed());
    if (options_.gpu_layers) {
      TANDEM_RETURN_IF_ERROR(place_wanted_layers());
    } else {
      place_what_fits();
    }
    TANDEM_RETURN_IF_ERROR(check_followers());
    TANDEM_RETURN_IF_ERROR(place_kv());
    if (!options_.gpu_layers) place_experts();
    TANDEM_RETURN_IF_ERROR(make_slots());
    if (!anything_on_device()) placement_.bytes = {};
    return std::move(placement_);
  }

 private:
  // ---- what the place file says ----

  Status apply_rules() {
    for (size_t i = 0; i < options_.file.rules.size(); ++i) {
      TANDEM_RETURN_IF_ERROR(
          apply(options_.file.rules[i], "place file: blocks[" + std::to_string(i) + "]"));
    }
    for (BlockId b = 0; b < fixed_.size(); ++b) {
      const BlockRole& role = roles_[b];
      if (role.follows != kNoId && !fixed_[b]) fixed_[b] = fixed_[role.follows];
    }
    return ok_status();
  }

  std::vector<BlockId> matching(const std::string& match) const {
    std::vector<BlockId> result;
    if (!is_pattern(match)) {
      const auto found = by_name_.find(match);
      if (found != by_name_.end()) result.push_back(found->second);
      return result;
    }
    for (BlockId b = 0; b < fixed_.size(); ++b) {
      if (matches(match, program_.blocks[b].name)) result.push_back(b);
    }
    return result;
  }

  Status apply(const PlaceRule& rule, const std::string& where) {
    bool host_only = false, applied = false;
    for (BlockId b : matching(rule.match)) {
      if (roles_[b].kind == Kind::kHost) {
        host_only = true;
        continue;
      }
      if (roles_[b].kind == Kind::kExpert && rule.place.streamed()) {
        return invalid_argument(where + ": " + program_.blocks[b].name +
                                " is an expert: experts in DRAM are computed by the CPU or cached, "
                                "not streamed");
      }
      fixed_[b] = rule.place;
      applied = true;
    }
    if (applied || (host_only && rule.place == kInDram)) return ok_status();
    return invalid_argument(where + ".match: \"" + rule.match + "\" matches " +
                            (host_only ? "only blocks that the CPU alone reads" : "no block"));
  }

  // Keys and values are stored and read where all of them are: what the file leaves open follows what it says.
  Status make_attention_agree() {
    for (const std::vector<BlockId>& blocks : dense_) {
      BlockId said = kNoId;
      for (BlockId b : blocks) {
        if (!roles_[b].attention || !fixed_[b]) continue;
        if (said == kNoId) said = b;
        if (fixed_[b]->processor == fixed_[said]->processor) continue;
        return invalid_argument("place file: " + program_.blocks[said].name + " is " +
                                place_text(*fixed_[said]) + ", " + program_.blocks[b].name + " " +
                                place_text(*fixed_[b]) +
                                ": the projections of a layer's attention go together");
      }
      if (said == kNoId) continue;
      for (BlockId b : blocks) {
        const BlockId product = roles_[b].attention ? b : roles_[b].follows;
        if (product == kNoId || !roles_[product].attention) continue;
        if (!fixed_[product]) fixed_[product] = fixed_[said];
        if (!fixed_[b]) fixed_[b] = fixed_[product];
      }
    }
    return ok_status();
  }

  Status check_followers() const {
    for (BlockId b = 0; b < roles_.size(); ++b) {
      if (roles_[b].follows == kNoId) continue;
      const BlockPlace& place = placement_.blocks[b];
      const BlockPlace& product = placement_.blocks[roles_[b].follows];
      if (place.processor == product.processor) continue;
      return invalid_argument("place file: " + program_.blocks[b].name + " is " +
                              place_text(place) + ", " + program_.blocks[roles_[b].follows].name +
                              " " + place_text(product) +
                              ": the first changes what the second gives, so they go together");
    }
    return ok_status();
  }

  Status place_fixed() {
    for (BlockId b = 0; b < fixed_.size(); ++b) {
      if (fixed_[b]) put(b, *fixed_[b]);
    }
    uint64_t n_experts = 0;
    for (size_t layer = 0; layer < experts_.size(); ++layer) {
      n_experts += static_cast<uint64_t>(n_cacheable(layer, /*possibly=*/true));
    }
    const uint64_t slots =
        std::min(options_.file.expert_slots.value_or(0), n_experts) * slot_bytes(/*possibly=*/true);
    // Slots make way for keys and values: both together take what the larger takes.
    reserved_ = options_.file.kv_layers
                    ? std::max(slots, kv_to_reserve(options_.file.kv_layers->size()))
                    : slots;
    const uint64_t needed = placement_.bytes.total() + reserved_;
    if (needed <= space_.budget_bytes || (reserved_ == 0 && !anything_on_device())) {
      return ok_status();
    }
    return does_not_fit("what the place file puts on the device", needed);
  }

  // For layers that the file names: all of it, or else what is worth it.
  uint64_t kv_to_reserve(uint64_t n_layers) const {
    const uint64_t all = n_layers * space_.kv_layer_bytes;
    const uint64_t least = n_layers * kLeastKvPages * space_.kv_page_bytes;
    const bool fits_whole = placement_.bytes.total() + all <= space_.budget_bytes;
    return fits_whole || least == 0 ? all : std::min(all, least);
  }

  Status does_not_fit(const std::string& what, uint64_t needed) const {
    return out_of_memory(what + " needs " + format_bytes(needed) + ", the device has " +
                         format_bytes(space_.budget_bytes) + " for it")
        .with_bytes(needed, space_.budget_bytes);
  }

  // ---- layers ----

  void put(BlockId block, BlockPlace place) {
    placement_.blocks[block] = place;
    if (place.tier == Tier::kDevice) placement_.bytes.weights += bytes_[block];
    if (place.streamed()) {
      placement_.stream_buffer_bytes = std::max(placement_.stream_buffer_bytes, bytes_[block]);
      placement_.bytes.stream_buffers = 2 * placement_.stream_buffer_bytes;
    }
  }
  void put_open(const std::vector<BlockId>& blocks) {
    for (BlockId b : blocks) {
      if (!fixed_[b]) put(b, kOnDevice);
    }
  }
  uint64_t open_bytes(const std::vector<BlockId>& blocks) const {
    uint64_t bytes = 0;
    for (BlockId b : blocks) bytes += fixed_[b] ? 0 : bytes_[b];
    return bytes;
  }

  uint64_t left() const {
    const uint64_t taken = placement_.bytes.total() + reserved_;
    return taken < space_.budget_bytes ? space_.budget_bytes - taken : 0;
  }
  bool fits(uint64_t bytes) const {
    return bytes == 0 || (bytes <= left() && space_.work_bytes <= space_.budget_bytes);
  }

  bool anything_on_device() const {
    return std::any_of(placement_.blocks.begin(), placement_.blocks.end(),
                       [](const BlockPlace& place) { return place.on_device(); });
  }

  bool attention_on_device(size_t layer) const {
    for (BlockId b : dense_[layer]) {
      if (roles_[b].attention) return placement_.blocks[b].on_device();
    }
    return false;
  }

  // A layer and everything that belongs to it, as --gpu-layers N promises it.
  uint64_t whole_layer_bytes(size_t layer) const {
    uint64_t bytes = open_bytes(dense_[layer]);
    if (static_cast<int64_t>(layer) >= options_.cpu_experts) bytes += open_bytes(experts_[layer]);
    const bool stays = fixed_attention_on_cpu(layer);
    return bytes + (options_.file.kv_layers || stays ? 0 : space_.kv_layer_bytes);
  }
  bool fixed_attention_on_cpu(size_t layer) const {
    return std::any_of(dense_[layer].begin(), dense_[layer].end(), [&](BlockId b) {
      return roles_[b].attention && fixed_[b] && !fixed_[b]->on_device();
    });
  }

  Status place_wanted_layers() {
    const bool all = *options_.gpu_layers > n_layers_;
    const int64_t wanted = std::clamp<int64_t>(*options_.gpu_layers, 0, n_layers_);
    if (wanted == 0) return ok_status();
    uint64_t needed = all ? open_bytes(head_) : 0, without = 0;
    int64_t largest = 0;
    for (int64_t n = 1; n <= wanted; ++n) {
      const uint64_t layer = whole_layer_bytes(static_cast<size_t>(n_layers_ - n));
      needed += layer;
      without += layer;
      if (fits(without)) largest = n;
    }
    if (!fits(needed)) return wanted_do_not_fit(all, wanted, largest, needed);
    uint64_t kv = 0;  // promised, placed later
    for (int64_t n = 1; n <= wanted; ++n) {
      const size_t layer = static_cast<size_t>(n_layers_ - n);
      put_open(dense_[layer]);
      if (n_layers_ - n >= options_.cpu_experts) put_open(experts_[layer]);
      if (!options_.file.kv_layers && attention_on_device(layer)) kv += space_.kv_layer_bytes;
    }
    if (all || fits(open_bytes(head_) + kv)) put_open(head_);
    return ok_status();
  }

  Status wanted_do_not_fit(bool all, int64_t wanted, int64_t largest, uint64_t needed) const {
    const uint64_t total = needed + space_.budget_bytes - left();
    std::string change = "--gpu-layers " + std::to_string(largest) +
                         (largest > 0 ? ", the most that fit, or --gpu-layers auto"
                                      : " or auto: not one layer fits");
    if (program_.shape.has_experts() && options_.cpu_experts < n_layers_) {
      change += ", or --cpu-experts all";
    }
    return does_not_fit("--gpu-layers " + (all ? "all" : std::to_string(wanted)), total)
        .suggest(std::move(change));
  }

  void place_what_fits() {
    if (space_.work_bytes > space_.budget_bytes) {
      placement_.notes.push_back("the device is not used: work buffers need " +
                                 format_bytes(space_.work_bytes) + ", it has " +
                                 format_bytes(space_.budget_bytes));
      return;
    }
    const bool file_uses_device = anything_on_device();
    int64_t n = 0;
    while (n < n_layers_) {
      const std::vector<BlockId>& dense = dense_[static_cast<size_t>(n_layers_ - n - 1)];
      if (!fits(open_bytes(dense))) break;
      put_open(dense);
      ++n;
    }
    if (n < n_layers_ && n > 0) {
      placement_.notes.push_back("the first " + std::to_string(n_layers_ - n) + " of " +
                                 std::to_string(n_layers_) + " layers stay on the CPU");
    }
    if (n == 0 && !file_uses_device) {
      stream_layers();
    } else {
      place_head();
    }
  }

  void place_head() {
    const uint64_t bytes = open_bytes(head_);
    if (fits(bytes)) {
      put_open(head_);
    } else {
      placement_.notes.push_back("the output matrix stays on the CPU: it needs " +
                                 format_bytes(bytes) + ", " + format_bytes(left()) + " are left");
    }
  }

  // ---- streaming ----

  // Vectors stay: copying each of them by itself would cost more in latency than they take in memory.
  void stream_layers() {
    uint64_t vectors = 0;
    for (const std::vector<BlockId>& dense : dense_) vectors += vector_bytes(dense);
    int64_t n_streamed = 0;
    for (size_t layer = dense_.size(); layer-- > 0;) {
      if (!can_stream(dense_[layer], vectors)) continue;
      stream(dense_[layer]);
      ++n_streamed;
    }
    if (n_streamed == 0) {
      placement_.notes.push_back("the device is not used: " + format_bytes(left()) +
                                 " hold neither a layer nor two buffers to stream one");
      return;
    }
    placement_.notes.push_back("no layer fits in " + format_bytes(space_.budget_bytes) + ": " +
                               std::to_string(n_streamed) + " layers are streamed");
    if (can_stream(head_, vectors + vector_bytes(head_))) stream(head_);
  }

  uint64_t vector_bytes(const std::vector<BlockId>& blocks) const {
    uint64_t bytes = 0;
    for (BlockId b : blocks) bytes += roles_[b].vector && !fixed_[b] ? bytes_[b] : 0;
    return bytes;
  }

  bool can_stream(const std::vector<BlockId>& blocks, uint64_t vectors) const {
    const uint64_t base = space_.work_bytes + vectors + reserved_;
    if (base >= space_.budget_bytes) return false;
    return std::all_of(blocks.begin(), blocks.end(), [&](BlockId b) {
      return fixed_[b] || roles_[b].vector || bytes_[b] <= (space_.budget_bytes - base) / 2;
    });
  }

  void stream(const std::vector<BlockId>& blocks) {
    for (BlockId b : blocks) {
      if (!fixed_[b]) put(b, roles_[b].vector ? kOnDevice : kStreamed);
    }
  }

  // ---- keys and values ----

  Status place_kv() {
    if (options_.file.kv_layers) return place_fixed_kv(*options_.file.kv_layers);
    std::vector<size_t> wanted_layers;
    for (size_t layer = dense_.size(); layer-- > 0;) {
      if (attention_on_device(layer)) wanted_layers.push_back(layer);
    }
    if (put_kv_pages(wanted_layers)) return ok_status();
    const auto wanted = static_cast<int64_t>(wanted_layers.size());
    int64_t placed = 0;
    for (const size_t layer : wanted_layers) {
      if (!fits(space_.kv_layer_bytes)) continue;
      put_kv(layer);
      ++placed;
    }
    if (placed < wanted) {
      placement_.notes.push_back("keys and values of " + std::to_string(wanted - placed) + " of " +
                                 std::to_string(wanted) +
                                 " layers stay in DRAM, where the CPU attends to them");
    }
    return ok_status();
  }

  // Where not all of these layers' keys and values fit: the first pages of each of them.  False: they fit, or so few pages
  // would that a few whole layers are better.
  bool put_kv_pages(const std::vector<size_t>& layers) {
    const uint64_t n = layers.size(), page_bytes = n * space_.kv_page_bytes;
    if (page_bytes == 0 || fits(n * space_.kv_layer_bytes)) return false;
    const uint64_t n_pages = left() / page_bytes;
    if (n_pages < kLeastKvPages || !fits(n_pages * page_bytes)) return false;
    for (const size_t layer : layers) placement_.kv_on_device[layer] = true;
    placement_.bytes.kv += n_pages * page_bytes;
    placement_.notes.push_back("keys and values of the first " +
                               std::to_string(n_pages * kPageTokens) +
                               " tokens of a context fit on the device, the others stay in DRAM, "
                               "where the CPU attends to them");
    return true;
  }

  Status place_fixed_kv(const std::vector<int64_t>& layers) {
    reserved_ = 0;
    std::vector<size_t> wanted_layers;
    for (int64_t layer : layers) {
      if (layer >= n_layers_) {
        return invalid_argument("place file: kv_layers: " + layer_text(layer) + ", the model has " +
                                std::to_string(n_layers_));
      }
      if (!attention_on_device(static_cast<size_t>(layer))) {
        return invalid_argument("place file: kv_layers: " + layer_text(layer) +
                                ": its attention projections are on the CPU");
      }
      wanted_layers.push_back(static_cast<size_t>(layer));
    }
    if (put_kv_pages(wanted_layers)) return ok_status();
    for (const size_t layer : wanted_layers) put_kv(layer);
    return ok_status();
  }

  void put_kv(size_t layer) {
    placement_.kv_on_device[layer] = true;
    placement_.bytes.kv += space_.kv_layer_bytes;
  }

  // ---- experts ----

  bool router_on_device(size_t layer, bool possibly) const {
    for (BlockId b : dense_[layer]) {
      if (!roles_[b].router) continue;
      return placement_.blocks[b].on_device() || (possibly && !fixed_[b]);
    }
    return false;
  }
  // Experts of the layer that live in DRAM and may be copied to slots.
  int64_t n_cacheable(size_t layer, bool possibly) const {
    if (!router_on_device(layer, possibly)) return 0;
    return std::count_if(experts_[layer].begin(), experts_[layer].end(),
                         [&](BlockId b) { return !placement_.blocks[b].on_device(); });
  }
  uint64_t slot_bytes(bool possibly) const {
    uint64_t bytes = 0;
    for (size_t layer = 0; layer < experts_.size(); ++layer) {
      if (n_cacheable(layer, possibly) == 0) continue;
      for (BlockId b : experts_[layer]) {
        if (!placement_.blocks[b].on_device()) bytes = std::max(bytes, bytes_[b]);
      }
    }
    return bytes;
  }

  bool may_hold_experts(size_t layer) const {
    return static_cast<int64_t>(layer) >= options_.cpu_experts && router_on_device(layer, false);
  }

  void place_experts() {
    uint64_t all = 0;
    for (size_t layer = 0; layer < experts_.size(); ++layer) {
      if (may_hold_experts(layer)) all += open_bytes(experts_[layer]);
    }
    if (all == 0) return;
    const bool slots =
        options_.file.expert_slots ? *options_.file.expert_slots > 0 : options_.expert_cache;
    if (!fits(all) && slots) return;
    for (size_t layer = experts_.size(); layer-- > 0;) {
      if (!may_hold_experts(layer)) continue;
      if (!fits(open_bytes(experts_[layer]))) break;
      put_open(experts_[layer]);
    }
  }

  Status make_slots() {
    const uint64_t bytes = slot_bytes(false);
    const std::optional<uint64_t>& wanted = options_.file.expert_slots;
    reserved_ = 0;
    if (wanted && *wanted > 0 && bytes == 0) {
      return invalid_argument(
          "place file: expert_slots: no layer has its router on the device and experts in DRAM");
    }
    if (bytes == 0 || (wanted ? *wanted == 0 : !options_.expert_cache)) return ok_status();
    uint64_t n_experts = 0;
    for (size_t layer = 0; layer < experts_.size(); ++layer) {
      n_experts += static_cast<uint64_t>(n_cacheable(layer, false));
    }
    const uint64_t beside_kv = left();
    const uint64_t room =
        space_.work_bytes <= space_.budget_bytes ? beside_kv + placement_.bytes.kv : 0;
    const uint64_t n = std::min(wanted.value_or(room / bytes), n_experts);
    if (n * bytes > room) {
      return does_not_fit("place file: expert_slots: " + std::to_string(n),
                          placement_.bytes.total() - placement_.bytes.kv + n * bytes);
    }
    if (n == 0) return ok_status();
    placement_.n_expert_slots = n;
    placement_.expert_slot_bytes = bytes;
    placement_.bytes.expert_slots = std::min(n, beside_kv / bytes) * bytes;
    for (size_t layer = 0; layer < experts_.size(); ++layer) {
      placement_.cached_layers[layer] = n_cacheable(layer, false) > 0;
    }
    return ok_status();
  }

  const Program& program_;
  const PlacementOptions& options_;
  const DeviceSpace& space_;
  const int64_t n_layers_;
  const std::vector<BlockRole> roles_;
  std::vector<uint64_t> bytes_;  // [blocks] on the device
  std::unordered_map<std::string_view, BlockId> by_name_;
  std::vector<std::optional<BlockPlace>> fixed_;
  std::vector<std::vector<BlockId>> dense_, experts_;  // [L]
  std::vector<BlockId> head_;
  uint64_t reserved_ =
      0;  // for keys, values and slots that the file asks for, until they are placed
  Placement placement_;
};

}  // namespace

uint64_t device_bytes(const BlockSpec& block) {
  uint64_t bytes = 0;
  for (const Extent& extent : block.extents) bytes += align_up(extent.bytes, kDeviceAlignment);
  return bytes;
}

Result<Placement> choose_placement(const Program& program, const PlacementOptions& options,
                                   const DeviceSpace& space) {
  return Chooser(program, options, space).choose();
}

}  // namespace tandem

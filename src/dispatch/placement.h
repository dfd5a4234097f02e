// Where each block of a model lives and which processor computes with it: chosen from a budget of device memory, from
// what the user asked for, or read from a place file.
//
// Threading and ownership: functions are pure; Placement is plain data, constant once made.
// Errors: kOutOfMemory with the bytes needed and available when what was asked for by name does not fit; kCorrupt for a
// place file that is not one, naming the field; kInvalidArgument for rules that no block, or no processor, can follow.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/program.h"

namespace tandem {

enum class Tier : uint8_t { kDram, kDevice };

// The three that are possible: (dram, cpu); (device, device); (dram, device): streamed, that is copied through a double
// buffer at each use.
struct BlockPlace {
  Tier tier = Tier::kDram;
  Processor processor = Processor::kCpu;

  bool on_device() const { return processor == Processor::kDevice; }
  bool streamed() const { return on_device() && tier == Tier::kDram; }
  bool operator==(const BlockPlace&) const = default;
};

inline constexpr BlockPlace kInDram{Tier::kDram, Processor::kCpu};
inline constexpr BlockPlace kOnDevice{Tier::kDevice, Processor::kDevice};
inline constexpr BlockPlace kStreamed{Tier::kDram, Processor::kDevice};

// Every block and every extent of one begins at a multiple of this in device memory.
inline constexpr uint64_t kDeviceAlignment = 256;
// What a block takes there.
uint64_t device_bytes(const BlockSpec& block);

// Device memory by use.
struct DeviceBytes {
  uint64_t weights = 0;
  uint64_t kv = 0;
  uint64_t expert_slots = 0;  // of those that there is room for beside all of kv
  uint64_t stream_buffers = 0;
  uint64_t work = 0;

  uint64_t total() const { return weights + kv + expert_slots + stream_buffers + work; }
  bool operator==(const DeviceBytes&) const = default;
};

struct Placement {
  // [blocks of the Program].  An embedding table that is the output matrix too may be on the device: rows are looked up
  // in DRAM all the same, so both have it.
  std::vector<BlockPlace> blocks;
  // [L] the layer's keys and values lie in device memory, as far as that goes, and attention is computed there.  Never
  // where its projections are on the CPU.
  std::vector<bool> kv_on_device;
  // Slots of the expert cache, for all cached layers together, each as large as their largest expert: as many as may be
  // there while the context is empty.  Pages of keys and values take their place as it grows.
  uint64_t n_expert_slots = 0;
  uint64_t expert_slot_bytes = 0;
  // [L] experts that live in DRAM may be copied to slots: the layer's router is on the device.
  std::vector<bool> cached_layers;
  // Of each of the two buffers; 0: nothing is streamed.
  uint64_t stream_buffer_bytes = 0;
  DeviceBytes bytes;
  // What was wanted and did not come about, one sentence each.
  std::vector<std::string> notes;

  bool uses_device() const { return bytes.total() > 0; }
};

// A pattern of block names (* any text, ? one character) and where they go.
struct PlaceRule {
  std::string match;
  BlockPlace place;
};

// {"version": 1, "blocks": [{"match": "blk.*.expert.*", "tier": "dram", "processor": "cpu"}, ...],
//  "kv_layers": [0, 1], "expert_slots": 12}
// Later rules win.  Without kv_layers or expert_slots they are chosen from the budget.
struct PlaceFile {
  std::vector<PlaceRule> rules;
  std::optional<std::vector<int64_t>> kv_layers;  // ascending
  std::optional<uint64_t> expert_slots;
};

Result<PlaceFile> read_place_file(std::string_view json);
// What is in force, as a place file: choosing with it, whatever the other options, gives the same placement.
std::string to_json(const Program& program, const Placement& placement);

inline constexpr int64_t kAllLayers = INT64_MAX;

struct PlacementOptions {
  // Nothing: as many as fit.  N: the last N layers, whole: dense parts, keys and values, and those experts that
  // cpu_experts leaves.  kAllLayers, or more than there are: with the output matrix.
  std::optional<int64_t> gpu_layers = std::nullopt;
  // The experts of the first N layers live in DRAM.
  int64_t cpu_experts = 0;
  // What is left of the budget holds copies of experts that live in DRAM.
  bool expert_cache = true;
  // Goes before all of the above.
  PlaceFile file = {};
};

struct DeviceSpace {
  uint64_t budget_bytes = 0;
  uint64_t work_bytes = 0;      // activations and tables, if anything is on the device
  uint64_t kv_layer_bytes = 0;  // keys and values of one layer, for the context wanted
  // Of these, one page's.  0: a layer's keys and values are on the device whole or not at all.
  uint64_t kv_page_bytes = 0;
};

// What the budget is spent on, in this order: dense parts of layers (attention, norms, router, feed-forward), the output
// matrix, keys and values, experts.
//
// Layers are taken from the last one down: embeddings are looked up on the CPU and the output matrix ends the token, so
// the hidden state then crosses the link once on its way, not twice.  Dense weights go before keys and values because
// each of their bytes is read for every token, of a context's only those that are filled.  Experts that all fit stay for
// good; else they live in DRAM and share slots.  Of keys and values that do not all fit, the first pages of every layer
// go to the device: short contexts are there whole.  Slots also use the room of keys and values that are not there yet.  Where not even one layer's dense part fits, layers are streamed.
Result<Placement> choose_placement(const Program& program, const PlacementOptions& options,
                                   const DeviceSpace& space);

// One per Op of the Program.  Operations with a weight follow its block, those after them the place of their input:
//   kStoreKv, kAttend       kv_on_device
//   kBias, kHeadNorm        the product that they update
//   kAdd                    where its sum was last read: it stays beside the norm, whoever computed what is added
//   kExpertMatmul           kBoth where experts are on both sides, or cached
//   kListPairs, kGatherPairs  with the experts, on both sides if these are
//   kCombine                with the experts; with the router where they are on both sides
std::vector<Processor> processors_of(const Program& program, const Placement& placement);

// Has * or ?.
bool is_pattern(std::string_view match);
// Time: the pattern's length times the name's at worst.
bool matches(std::string_view pattern, std::string_view name);

}  // namespace tandem

#include "dispatch/expert_slots.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/checked.h"

namespace tandem {
namespace {

// More would keep the link from what the next step needs; what is used often is there within a few steps all the same.
constexpr size_t kLoadsPerStep = 4;
// Memory takes time to get, too: no more of it than is used soon.
constexpr size_t kNewSlotsPerStep = 16;
constexpr size_t kMaxExtents = 3;

// What passes the link in this time.
constexpr double kPieceSeconds = 100e-6;
constexpr size_t kLeastPiece = size_t{128} << 10, kUsualPiece = size_t{1} << 20;

size_t piece_bytes(const DeviceInfo& device) {
  if (device.link_gb_per_s <= 0) return kUsualPiece;
  const double bytes = device.link_gb_per_s * 1e9 * kPieceSeconds;
  return std::max(kLeastPiece, static_cast<size_t>(bytes) / kLeastPiece * kLeastPiece);
}

}  // namespace

Result<std::unique_ptr<ExpertSlots>> ExpertSlots::create(Device& device, const Program& program,
                                                         const Placement& placement,
                                                         const BlockStore& store, MoveExpert move) {
  if (placement.n_expert_slots == 0) return std::unique_ptr<ExpertSlots>();
  ExpertCacheOptions options;
  options.n_layers = program.shape.n_layers;
  options.n_experts = program.shape.n_experts;
  options.n_experts_used = program.shape.n_experts_used;
  options.n_slots = static_cast<uint32_t>(placement.n_expert_slots);
  TANDEM_ASSIGN_OR_RETURN(ExpertCache cache, ExpertCache::create(options));
  std::unique_ptr<ExpertSlots> slots(
      new ExpertSlots(device, program, store, std::move(move), std::move(cache)));
  slots->slot_bytes_ = placement.expert_slot_bytes;
  slots->piece_bytes_ = piece_bytes(device.info());
  slots->cached_ = placement.cached_layers;
  for (const Op& op : program.ops) {
    if (op.kind != OpKind::kListPairs) continue;
    // Where some experts are on the device for good the others stay with the CPU.
    for (int64_t e = 0; e < program.shape.n_experts; ++e) {
      const Weight& weight = program.weights[op.weight + static_cast<WeightId>(e)];
      if (placement.blocks[weight.block].on_device())
        slots->cached_[static_cast<size_t>(op.layer)] = false;
    }
  }
  slots->first_.assign(static_cast<size_t>(program.shape.n_layers), kNoId);
  for (const Op& op : program.ops) {
    if (op.kind == OpKind::kListPairs) slots->first_[static_cast<size_t>(op.layer)] = op.weight;
  }
  TANDEM_RETURN_IF_ERROR(slots->allocate(placement.n_expert_slots));
  return slots;
}

ExpertSlots::~ExpertSlots() {
  bool copying = false;
  for (uint32_t slot = 0; slot < memory_.size(); ++slot) {
    copying = copying || cache_.state(slot) == ExpertCache::State::kLoading;
  }
  if (copying) (void)device_.synchronize(stream_);
  for (std::byte* memory : memory_) device_.free(memory);
}

Status ExpertSlots::allocate(uint64_t n_slots) {
  TANDEM_ASSIGN_OR_RETURN(stream_, device_.create_stream("experts"));
  occupants_.resize(n_slots);
  readable_.reserve(n_slots);
  fetched_.reserve(n_slots + static_cast<size_t>(program_.shape.n_experts));
  memory_.reserve(n_slots);
  for (Occupant& occupant : occupants_) {
    TANDEM_ASSIGN_OR_RETURN(occupant.arrived, device_.create_event());
  }
  cache_.resize(0);
  grow(n_slots, 0);
  return ok_status();
}

BlockId ExpertSlots::block_of(int64_t layer, int64_t expert) const {
  return program_.weights[first_[static_cast<size_t>(layer)] + static_cast<WeightId>(expert)].block;
}

void ExpertSlots::show(uint32_t slot) {
  Occupant& occupant = occupants_[slot];
  if (occupant.visible) return;
  occupant.visible = true;
  std::array<std::byte*, kMaxExtents> addresses = {};
  const std::vector<Extent>& extents =
      program_.blocks[block_of(occupant.layer, occupant.expert)].extents;
  std::byte* address = memory_[slot];
  for (size_t i = 0; i < extents.size(); ++i) {
    addresses[i] = address;
    address += align_up(extents[i].bytes, kDeviceAlignment);
  }
  move_(occupant.layer, occupant.expert, {addresses.data(), extents.size()});
}

void ExpertSlots::hide(Occupant& occupant) {
  if (occupant.visible) move_(occupant.layer, occupant.expert, {});
  occupant.visible = false;
}

void ExpertSlots::settle() {
  Status ended = device_.synchronize(stream_);
  if (told_.ok()) told_ = std::move(ended);
}

bool ExpertSlots::give_up_one() {
  if (memory_.empty()) return false;
  const auto slot = static_cast<uint32_t>(memory_.size() - 1);
  hide(occupants_[slot]);
  if (cache_.state(slot) == ExpertCache::State::kLoading) {
    settle();
    cache_.failed(slot);
  }
  cache_.resize(slot);
  device_.free(memory_.back());
  memory_.pop_back();
  return true;
}

void ExpertSlots::shrink_to_budget() {
  while (device_.used_bytes() > device_.budget_bytes() && give_up_one()) {
  }
}

void ExpertSlots::grow(size_t n_most, uint64_t wanted_bytes) {
  const size_t end = memory_.size() + std::min(n_most, occupants_.size() - memory_.size());
  while (memory_.size() < end &&
         device_.used_bytes() + wanted_bytes + slot_bytes_ <= device_.budget_bytes()) {
    const Result<std::byte*> memory = device_.allocate(slot_bytes_, "a slot of the expert cache");
    if (!memory.ok()) break;
    memory_.push_back(*memory);
    cache_.resize(static_cast<uint32_t>(memory_.size()));
  }
}

Status ExpertSlots::begin_step(uint64_t wanted_bytes) {
  for (uint32_t slot = 0; slot < memory_.size(); ++slot) {
    if (cache_.state(slot) != ExpertCache::State::kLoading) continue;
    TANDEM_ASSIGN_OR_RETURN(const bool arrived, device_.done(occupants_[slot].arrived));
    if (!arrived) continue;
    const bool whole = occupants_[slot].failures == device_.failures();
    whole ? cache_.loaded(slot) : cache_.failed(slot);
  }
  shrink_to_budget();
  grow(kNewSlotsPerStep, wanted_bytes);
  TANDEM_RETURN_IF_ERROR(std::exchange(told_, ok_status()));
  cache_.begin_step();
  in_step_ = true;
  fetched_.clear();
  readable_.clear();
  for (uint32_t slot = 0; slot < memory_.size(); ++slot) {
    const ExpertCache::State state = cache_.state(slot);
    if (state == ExpertCache::State::kResident) show(slot);
    if (state != ExpertCache::State::kLoading) readable_.push_back({memory_[slot], slot_bytes_});
  }
  return ok_status();
}

void ExpertSlots::use(int64_t layer, const int32_t* ids, int64_t n_tokens) {
  if (!in_step_ || !cached_[static_cast<size_t>(layer)]) return;
  const auto n = static_cast<size_t>(n_tokens * program_.shape.n_experts_used);
  cache_.use(layer, {ids, n}, {}, n_tokens);
}

Status ExpertSlots::fetch(int64_t layer, std::span<const int32_t> experts, FlagId flag,
                          uint32_t value) {
  Status status;
  bool any = false;
  for (const int32_t expert : experts) {
    const ExpertCache::Placed placed = cache_.place(layer, expert);
    if (placed.slot < 0) break;
    const auto slot = static_cast<uint32_t>(placed.slot);
    if (placed.copy) {
      hide(occupants_[slot]);
      occupants_[slot].layer = layer;
      occupants_[slot].expert = expert;
      fetched_.push_back(slot);
      any = true;
      status = copy_to(slot, layer, expert);
    }
    if (!status.ok()) break;
    show(slot);
  }
  if (status.ok() && any) status = device_.stream_set_flag(stream_, flag, value);
  if (!status.ok() || !any) device_.set_flag(flag, value);
  return status;
}

void ExpertSlots::leave(int64_t layer, std::span<const int32_t> experts) {
  for (const int32_t expert : experts) {
    const int32_t slot = cache_.table(layer)[static_cast<size_t>(expert)];
    hide(occupants_[static_cast<size_t>(slot)]);
  }
}

void ExpertSlots::drop_fetched() {
  for (const uint32_t slot : fetched_) {
    if (cache_.state(slot) != ExpertCache::State::kResident) continue;
    hide(occupants_[slot]);
    cache_.drop(slot);
  }
}

Status ExpertSlots::end_step(bool load_misses, bool failed) {
  if (!in_step_) return ok_status();
  in_step_ = false;
  if (failed) {
    settle();
    drop_fetched();
  }
  fetched_.clear();
  std::array<ExpertCache::Load, kLoadsPerStep> loads;
  const size_t n = cache_.end_step({loads.data(), load_misses ? loads.size() : 0});
  for (size_t i = 0; i < n; ++i) {
    Status loading = load(loads[i]);
    if (loading.ok()) continue;
    give_up({loads.data() + i, n - i});
    return loading;
  }
  return ok_status();
}

// Of the first, some pieces may be under way.
void ExpertSlots::give_up(std::span<const ExpertCache::Load> loads) {
  settle();
  for (const ExpertCache::Load& load : loads) {
    hide(occupants_[load.slot]);
    cache_.failed(load.slot);
  }
}

Status ExpertSlots::load(const ExpertCache::Load& load) {
  Occupant& occupant = occupants_[load.slot];
  hide(occupant);
  occupant.layer = load.layer;
  occupant.expert = load.expert;
  occupant.failures = device_.failures();
  TANDEM_RETURN_IF_ERROR(copy_to(load.slot, load.layer, load.expert));
  return device_.record(stream_, occupant.arrived);
}

// The link goes on to another stream's copy after each piece: what the step itself waits for is small and goes between.
Status ExpertSlots::copy_in_pieces(std::byte* to, const std::byte* from, size_t bytes) {
  for (size_t done = 0; done < bytes; done += piece_bytes_) {
    const size_t n = std::min(piece_bytes_, bytes - done);
    TANDEM_RETURN_IF_ERROR(device_.copy(stream_, to + done, from + done, n));
  }
  return ok_status();
}

Status ExpertSlots::copy_to(uint32_t slot, int64_t layer, int64_t expert) {
  const BlockId block = block_of(layer, expert);
  std::byte* address = memory_[slot];
  const std::vector<Extent>& extents = program_.blocks[block].extents;
  for (size_t i = 0; i < extents.size(); ++i) {
    TANDEM_RETURN_IF_ERROR(copy_in_pieces(address, store_.data(block, i), extents[i].bytes));
    address += align_up(extents[i].bytes, kDeviceAlignment);
  }
  return ok_status();
}

}  // namespace tandem

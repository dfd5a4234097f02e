#include "dispatch/device_lane.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/checked.h"

namespace tandem {
namespace {

// Of one task on the stream: waits, tables of experts, itself, what it raises.
constexpr uint32_t kMostCommands = 8;
constexpr uint32_t kAllProgress = INT32_MAX;  // more than any lane has tasks

bool uses_experts(const Op& op) {
  return op.kind == OpKind::kExpertMatmul || op.kind == OpKind::kListPairs;
}

size_t pages_of(const DeviceLane::Sizes& sizes) {
  return static_cast<size_t>((sizes.max_context + kPageTokens - 1) / kPageTokens);
}

// StepInput, ids [T], pages.
size_t input_bytes(const DeviceLane::Sizes& sizes) {
  return sizeof(StepInput) + align_up(static_cast<size_t>(sizes.max_tokens) * sizeof(int32_t), 8) +
         pages_of(sizes) * sizeof(std::byte*);
}

}  // namespace

uint64_t DeviceLane::work_bytes(const Program& program, const Sizes& sizes) {
  return align_up(sizes.arena_bytes, kDeviceAlignment) +
         align_up(input_bytes(sizes), kDeviceAlignment) +
         align_up(ExpertTables::device_bytes(program), kDeviceAlignment);
}

Result<std::unique_ptr<DeviceLane>> DeviceLane::create(Device& device, const Program& program,
                                                       const Placement& placement,
                                                       const BlockStore& store, const Sizes& sizes,
                                                       const Experts& experts,
                                                       const Loading& loading, MoveExpert move) {
  std::unique_ptr<DeviceLane> lane(new DeviceLane(device, program, experts, std::move(move)));
  TANDEM_RETURN_IF_ERROR(lane->allocate(placement, store, sizes, loading));
  return lane;
}

DeviceLane::~DeviceLane() {
  (void)finish();
  if (!loaded_) (void)device_.synchronize();  // weights may be on their way
  slots_.reset();
  for (const Captured& captured : graphs_) device_.free_graph(captured.graph);
  for (std::byte* memory : allocated_) device_.free(memory);
  if (pinned_ != nullptr) device_.unpin(pinned_);
  device_.free_host(host_input_);
}

Result<std::byte*> DeviceLane::take(size_t bytes, std::string_view what) {
  TANDEM_ASSIGN_OR_RETURN(std::byte* const memory, device_.allocate(bytes, what));
  allocated_.push_back(memory);
  return memory;
}

Status DeviceLane::allocate(const Placement& placement, const BlockStore& store, const Sizes& sizes,
                            const Loading& loading) {
  TANDEM_ASSIGN_OR_RETURN(stream_, device_.create_stream("compute"));
  TANDEM_ASSIGN_OR_RETURN(cpu_progress_, device_.create_flag());
  TANDEM_ASSIGN_OR_RETURN(device_progress_, device_.create_flag());
  TANDEM_ASSIGN_OR_RETURN(experts_arrived_, device_.create_flag());
  std::vector<int64_t> kv_layers;
  for (size_t layer = 0; layer < placement.kv_on_device.size(); ++layer) {
    if (placement.kv_on_device[layer]) kv_layers.push_back(static_cast<int64_t>(layer));
  }
  kv_pool_ = std::make_unique<DeviceKvPool>(device_, stream_, std::move(kv_layers));
  max_tokens_ = sizes.max_tokens;
  max_pages_ = pages_of(sizes);
  arena_bytes_ = sizes.arena_bytes;
  host_pages_.resize(max_pages_);
  TANDEM_ASSIGN_OR_RETURN(arena_, take(sizes.arena_bytes, "activations"));
  TANDEM_ASSIGN_OR_RETURN(input_, take(input_bytes(sizes), "a step's input"));
  TANDEM_ASSIGN_OR_RETURN(host_input_, device_.allocate_host(input_bytes(sizes)));
  addresses_.resize(program_.blocks.size());
  TANDEM_ASSIGN_OR_RETURN(streamed_,
                          StreamBuffers::create(device_, store, placement.stream_buffer_bytes));
  for (const BlockPlace& place : placement.blocks) is_streamed_.push_back(place.streamed());
  TANDEM_RETURN_IF_ERROR(pin_weights(placement, store));
  TANDEM_RETURN_IF_ERROR(load_weights(placement, store, loading));
  TANDEM_RETURN_IF_ERROR(make_experts(placement, store));
  TANDEM_RETURN_IF_ERROR(device_.synchronize(stream_));  // tells what went wrong
  loaded_ = true;
  return ok_status();
}

// Weights that cross the link beside steps.  Copies to slots are submitted to a stream of their own, that waits for nobody:
// not asynchronous, they are slow and no more.
Status DeviceLane::pin_weights(const Placement& placement, const BlockStore& store) {
  const bool streams = streamed_ != nullptr;
  if (!streams && placement.n_expert_slots == 0) return ok_status();
  Status pinned = device_.pin(store.begin(), store.total_bytes());
  if (pinned.ok()) pinned_ = store.begin();
  return streams ? pinned : ok_status();
}

std::vector<BlockId> DeviceLane::blocks_to_load(const Placement& placement) const {
  const std::vector<Processor> processors = processors_of(program_, placement);
  std::vector<bool> listed(program_.blocks.size());
  std::vector<BlockId> blocks;
  for (size_t i = 0; i < program_.ops.size(); ++i) {
    const Op& op = program_.ops[i];
    if (processors[i] == Processor::kCpu || op.weight == kNoId) continue;
    const int64_t n_weights = uses_experts(op) ? program_.shape.n_experts : 1;
    for (WeightId w = op.weight; w < op.weight + n_weights; ++w) {
      const BlockId block = program_.weights[w].block;
      const bool wanted = !uses_experts(op) || placement.blocks[block] == kOnDevice;
      if (!wanted || listed[block] || is_streamed_[block]) continue;
      listed[block] = true;
      blocks.push_back(block);
    }
  }
  return blocks;
}

Status DeviceLane::load_weights(const Placement& placement, const BlockStore& store,
                                const Loading& loading) {
  const std::vector<BlockId> blocks = blocks_to_load(placement);
  uint64_t total = 0;
  for (const BlockId block : blocks) {
    for (const Extent& extent : program_.blocks[block].extents) total += extent.bytes;
  }
  TANDEM_ASSIGN_OR_RETURN(
      WeightCopier copier,
      WeightCopier::create(device_, stream_, total, loading.progress, loading.cancel));
  for (const BlockId block : blocks) {
    TANDEM_RETURN_IF_ERROR(load_block(block, store, copier));
  }
  return ok_status();
}

Status DeviceLane::load_block(BlockId block, const BlockStore& store, WeightCopier& copier) {
  const BlockSpec& spec = program_.blocks[block];
  TANDEM_ASSERT(!store.in_tiles(block, 0));  // devices read the file's layout
  TANDEM_ASSIGN_OR_RETURN(std::byte * address, take(device_bytes(spec), spec.name));
  for (size_t extent = 0; extent < spec.extents.size(); ++extent) {
    const size_t bytes = spec.extents[extent].bytes;
    TANDEM_RETURN_IF_ERROR(copier.copy(address, store.data(block, extent), bytes));
    addresses_[block].push_back(address);
    address += align_up(bytes, kDeviceAlignment);
  }
  return ok_status();
}

Status DeviceLane::make_experts(const Placement& placement, const BlockStore& store) {
  TANDEM_ASSIGN_OR_RETURN(tables_, ExpertTables::create(device_, program_));
  for (const Op& op : program_.ops) {
    if (op.kind != OpKind::kListPairs) continue;
    for (int64_t e = 0; e < program_.shape.n_experts; ++e) {
      const BlockId block = program_.weights[op.weight + static_cast<WeightId>(e)].block;
      if (has(block)) tables_->set(op.layer, e, addresses_[block]);
    }
  }
  TANDEM_RETURN_IF_ERROR(tables_->upload_changes(stream_, {}));
  const auto move = [this](int64_t layer, int64_t expert, std::span<std::byte* const> addresses) {
    tables_->set(layer, expert, addresses);
    move_(layer, expert, !addresses.empty());
  };
  TANDEM_ASSIGN_OR_RETURN(slots_, ExpertSlots::create(device_, program_, placement, store, move));
  kv_pool_->set_make_room([this] { return slots_ != nullptr && slots_->give_up_one(); });
  if (slots_ != nullptr && (experts_.all_on_device || experts_.predictor != nullptr)) {
    chooser_ = std::make_unique<ExpertChooser>(
        program_, max_tokens_, experts_.all_on_device ? nullptr : experts_.predictor);
  }
  return ok_status();
}

std::unique_ptr<DeviceKv> DeviceLane::make_kv(const KvLayout& layout) {
  if (kv_pool_->layers().empty()) return nullptr;
  return std::make_unique<DeviceKv>(*kv_pool_, layout);
}

std::vector<Operation> DeviceLane::ready(const Program& program, const LoweredProgram& lowered,
                                         const OperationConstants& constants) {
  ProcessorMemory memory;
  memory.arena = arena_;
  memory.weight = [this](WeightId id) -> const std::byte* {
    const Weight& weight = program_.weights[id];
    return has(weight.block) ? addresses_[weight.block][weight.extent] : nullptr;
  };
  memory.experts = [this](WeightId first) { return tables_->at(first); };
  memory.constants = &constants;
  memory.step = reinterpret_cast<const StepInput*>(input_);
  std::vector<Operation> operations = ready_operations(program, lowered, memory);
  const std::vector<int64_t>& kv_layers = kv_pool_->layers();
  for (Operation& op : operations) {
    const auto slot = std::lower_bound(kv_layers.begin(), kv_layers.end(), op.layer);
    op.kv_slot = static_cast<int32_t>(slot - kv_layers.begin());
  }
  return operations;
}

// ---- a step ----

// Copies of experts make room for keys and values.
Result<bool> DeviceLane::prepare(const SequenceState& sequence, int64_t n_wanted) {
  pages_.clear();
  DeviceKv* const kv = sequence.device();
  if (kv == nullptr) return true;
  Status prepared = kv->prepare(sequence.pages(), sequence.size(), n_wanted);
  if (!prepared.ok()) {
    (void)device_.synchronize(stream_);  // copies may be on their way
    return prepared;
  }
  for (std::byte* page : kv->pages()) pages_.push_back({page, kv->group_bytes()});
  const size_t n_pages = static_cast<size_t>((n_wanted + kPageTokens - 1) / kPageTokens);
  TANDEM_ASSERT(n_pages <= max_pages_);
  for (size_t i = 0; i < n_pages; ++i) {
    host_pages_[i] = i < pages_.size() ? nullptr : sequence.pages()[i];
  }
  return kv->holds(n_wanted);
}

// StepInput, then ids, then the addresses of page groups.
Status DeviceLane::upload_input(const Work& work) {
  const StepInput& input = *work.input;
  const auto n_tokens = static_cast<size_t>(input.n_tokens);
  const size_t ids_at = sizeof(StepInput);
  const size_t pages_at = ids_at + align_up(n_tokens * sizeof(int32_t), 8);
  StepInput there = input;
  there.ids = reinterpret_cast<const int32_t*>(input_ + ids_at);
  there.pages = reinterpret_cast<std::byte* const*>(input_ + pages_at);
  std::memcpy(host_input_, &there, sizeof(there));
  std::memcpy(host_input_ + ids_at, input.ids, n_tokens * sizeof(int32_t));
  size_t bytes = pages_at;
  if (!kv_pool_->layers().empty()) {
    const int64_t n_positions = input.first_position + input.n_tokens;
    const size_t n_pages = static_cast<size_t>((n_positions + kPageTokens - 1) / kPageTokens);
    auto* pages = reinterpret_cast<const std::byte**>(host_input_ + bytes);
    for (size_t i = 0; i < n_pages; ++i) pages[i] = i < pages_.size() ? pages_[i].begin : nullptr;
    bytes += n_pages * sizeof(std::byte*);
  }
  const MemoryRange written{host_input_, bytes};
  device_.host_access({}, {&written, 1}, "a step's input");
  return device_.copy(stream_, input_, host_input_, bytes);
}

Status DeviceLane::submit(const Work& work) {
  if (work.schedule->device.empty()) return ok_status();
  device_.reset_flags();
  submitted_ = true;
  reached_ = 0;
  n_submitted_ = 0;
  n_tasks_ = static_cast<uint32_t>(work.schedule->device.size());
  work_ = work;
  Status first = submit_first();
  failed_ = !first.ok();
  return first;
}

Status DeviceLane::submit_first() {
  if (streamed_ != nullptr) streamed_->begin_step();
  if (slots_ != nullptr) {
    TANDEM_RETURN_IF_ERROR(slots_->begin_step(kv_pool_->missing_bytes()));
    // The tables of layers that choose are uploaded once they have chosen.
    TANDEM_RETURN_IF_ERROR(tables_->upload_changes(stream_, work_.schedule->choosing));
  }
  TANDEM_RETURN_IF_ERROR(upload_input(work_));
  const bool captured = work_.repeats && can_capture_ && streamed_ == nullptr;
  return captured ? submit_graph() : submit_until(0);
}

// A device that cannot capture what a step needs goes on without; what else goes wrong is told, and tried again in the
// next step.
Status DeviceLane::submit_graph() {
  const Result<GraphId> graph = graph_of(work_);
  if (!graph.ok()) {
    if (graph.status().code() != Code::kUnsupported) return graph.status();
    can_capture_ = false;
    return submit_until(0);
  }
  const auto slots = slots_ != nullptr ? slots_->readable() : std::span<const MemoryRange>();
  TANDEM_RETURN_IF_ERROR(device_.replay(stream_, *graph, {pages_, slots}));
  n_submitted_ = n_tasks_;
  return ok_status();
}

Result<GraphId> DeviceLane::graph_of(const Work& work) {
  const KvType kv_type = work.sequence->layout().type;
  for (const Captured& captured : graphs_) {
    if (captured.schedule == work.schedule && captured.kv_type == kv_type) return captured.graph;
  }
  TANDEM_RETURN_IF_ERROR(device_.begin_capture(stream_));
  capturing_ = true;
  Status submitted;
  for (uint32_t i = 0; i < n_tasks_ && submitted.ok(); ++i) submitted = submit_numbered(i);
  capturing_ = false;
  Result<GraphId> graph = device_.end_capture(stream_);
  if (submitted.ok() && graph.ok()) graphs_.push_back({work.schedule, kv_type, *graph});
  if (submitted.ok()) return graph;
  if (graph.ok()) device_.free_graph(*graph);
  return submitted;
}

std::span<const MemoryRange> DeviceLane::pages() const {
  if (capturing_) return {};
  return pages_;
}

// Where the CPU has chosen in this step, any slot may be read.
std::span<const MemoryRange> DeviceLane::matrices(const Work& work, const Op& op) const {
  if (capturing_) return {};
  const std::vector<bool>& choosing = work.schedule->choosing;
  const bool chosen = !choosing.empty() && choosing[static_cast<size_t>(op.layer)];
  return chosen ? slots_->readable() : tables_->matrices(op.weight);
}

// Of the tasks that the stream is known to be through, only the CPU's waits tell.
bool DeviceLane::has_room() const {
  const uint32_t most = device_.info().most_waiting;
  return most == 0 || (n_submitted_ - reached_ + 1) * kMostCommands <= most;
}

// Where that waits, because the stream is full, it waits for the stream alone: the CPU has done all that tasks before `end`
// need.
Status DeviceLane::submit_until(uint32_t end) {
  while (n_submitted_ < n_tasks_ && (n_submitted_ < end || has_room())) {
    Status submitted = submit_numbered(n_submitted_);
    failed_ = failed_ || !submitted.ok();
    TANDEM_RETURN_IF_ERROR(std::move(submitted));
    ++n_submitted_;
  }
  return ok_status();
}

Status DeviceLane::submit_numbered(uint32_t i) {
  if (i == 0) arriving_layer_ = -1;
  const DeviceTask& task = work_.schedule->device[i];
  if (task.wait > 0) {
    TANDEM_RETURN_IF_ERROR(device_.stream_wait_flag(stream_, cpu_progress_, task.wait));
  }
  TANDEM_RETURN_IF_ERROR(submit_task(work_, task));
  return task.announce ? device_.stream_set_flag(stream_, device_progress_, i + 1) : ok_status();
}

Status DeviceLane::submit_task(const Work& work, const DeviceTask& task) {
  return task.kind == DeviceTask::Kind::kLaunch ? submit_launch(work, task)
                                                : submit_copy(work, task);
}

Status DeviceLane::submit_copy(const Work& work, const DeviceTask& task) {
  const ValueId value = task.index;
  const auto bytes_of = [&](ValueId v) {
    return work.lowered->step_bytes(*work.program, v, work.input->n_tokens, work.input->n_outputs);
  };
  size_t own = work.lowered->offset[value];
  size_t end = own + bytes_of(value);
  if (task.also != kNoId) {
    const size_t beside = work.lowered->offset[task.also];
    own = std::min(own, beside);
    end = std::max(end, beside + bytes_of(task.also));
  }
  const size_t there = task.other ? work.lowered->other_offset[value] : own;
  const size_t bytes = end - own;
  return task.kind == DeviceTask::Kind::kCopyUp
             ? device_.copy(stream_, arena_ + there, work.host_arena + own, bytes)
             : device_.copy(stream_, work.host_arena + there, arena_ + own, bytes);
}

Status DeviceLane::submit_launch(const Work& work, const DeviceTask& task) {
  const Operation& operation = work.operations[task.index];
  const Op& op = work.program->ops[task.index];
  if (op.kind == OpKind::kStoreKv) return device_.launch(stream_, operation, {}, pages());
  if (op.kind == OpKind::kAttend || op.kind == OpKind::kAttendPages)
    return device_.launch(stream_, operation, pages());
  if (op.kind == OpKind::kListPairs || op.kind == OpKind::kExpertMatmul) {
    return launch_experts(work, task);
  }
  if (op.weight != kNoId && is_streamed_[program_.weights[op.weight].block]) {
    return launch_streamed(operation, program_.weights[op.weight]);
  }
  return device_.launch(stream_, operation);
}

Status DeviceLane::launch_experts(const Work& work, const DeviceTask& task) {
  const Operation& operation = work.operations[task.index];
  const Op& op = work.program->ops[task.index];
  if (op.kind == OpKind::kListPairs) {
    if (task.chosen) {
      arriving_layer_ = op.layer;
      TANDEM_RETURN_IF_ERROR(tables_->upload_layer(stream_, op.layer));
    }
    return device_.launch(stream_, operation);
  }
  if (arriving_layer_ >= 0) {
    const auto layer = static_cast<uint32_t>(std::exchange(arriving_layer_, -1));
    TANDEM_RETURN_IF_ERROR(device_.stream_wait_flag(stream_, experts_arrived_, layer + 1));
  }
  return device_.launch(stream_, operation, matrices(work, op));
}

std::vector<bool> DeviceLane::choosing_layers() const {
  return chooser_ == nullptr ? std::vector<bool>() : slots_->cached_layers();
}

Status DeviceLane::choose_experts(int64_t layer, const int32_t* ids, int64_t n_tokens,
                                  bool choose) {
  if (slots_ == nullptr) return ok_status();
  slots_->use(layer, ids, n_tokens);
  if (!choose) return ok_status();
  const auto n = static_cast<size_t>(n_tokens * program_.shape.n_experts_used);
  const ExpertChooser::Choice choice = chooser_->choose(layer, {ids, n}, slots_->slots_of(layer));
  slots_->leave(layer, choice.left);
  Status fetched =
      slots_->fetch(layer, choice.fetched, experts_arrived_, static_cast<uint32_t>(layer + 1));
  failed_ = failed_ || !fetched.ok();
  return fetched;
}

void DeviceLane::end_choices() {
  if (chooser_ == nullptr) return;
  Status fetches = slots_->finish_fetches();
  if (fetches_.ok()) fetches_ = std::move(fetches);
  device_.set_flag(experts_arrived_, kAllProgress);
}

Status DeviceLane::launch_streamed(const Operation& operation, const Weight& weight) {
  const size_t bytes = weight.row_bytes() * static_cast<size_t>(weight.rows);
  Operation here = operation;
  TANDEM_ASSIGN_OR_RETURN(here.weight,
                          streamed_->acquire(stream_, weight.block, weight.extent, bytes));
  TANDEM_RETURN_IF_ERROR(device_.launch(stream_, here));
  return streamed_->release(stream_);
}

Status DeviceLane::wait(uint32_t progress, const CancelFlag& cancel) {
  TANDEM_RETURN_IF_ERROR(submit_until(progress));
  Status waited = device_.wait_flag(device_progress_, progress, cancel);
  failed_ = failed_ || (!waited.ok() && waited.code() != Code::kCancelled);
  TANDEM_RETURN_IF_ERROR(std::move(waited));
  reached_ = progress;
  return submit_until(0);
}

Status DeviceLane::finish() {
  if (!submitted_) return ok_status();
  submitted_ = false;
  Status done;
  if (reached_ < n_tasks_ || failed_) {  // a task may be there in part
    announce(kAllProgress);
    if (failed_) end_choices();  // no more of them will come
    done = device_.synchronize(stream_);
    if (failed_ && streamed_ != nullptr) streamed_->settle();
  }
  // From here on nothing of the step is left: its memory may be used for anything.
  const MemoryRange used{arena_, arena_bytes_};
  device_.host_access({}, {&used, 1}, "what comes after the step");
  if (slots_ == nullptr) return done;
  if (done.ok()) done = std::move(fetches_);
  fetches_ = ok_status();
  const bool failed = failed_ || !done.ok();
  const Status copies = slots_->end_step(!experts_.all_on_device && !failed, failed);
  return done.ok() ? copies : done;
}

}  // namespace tandem

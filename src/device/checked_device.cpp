#include "device/checked_device.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "device/operation_ranges.h"

namespace tandem {
namespace {

using Kind = OrderChecker::Command::Kind;

template <typename Id>
uint32_t number(Id id) {
  return static_cast<uint32_t>(id);
}

class Checked final : public CheckedDevice {
 public:
  Checked(std::unique_ptr<Device> device, uint64_t left_out_wait)
      : device_(std::move(device)), nth_(left_out_wait) {}

  const DeviceInfo& info() const override { return device_->info(); }

  Result<std::byte*> allocate(size_t bytes, std::string_view what) override {
    Result<std::byte*> memory = device_->allocate(bytes, what);
    if (memory.ok()) checker_.allocated(*memory, bytes);
    return memory;
  }
  void free(std::byte* memory) override {
    checker_.freed(memory);
    device_->free(memory);
  }
  uint64_t used_bytes() const override { return device_->used_bytes(); }
  uint64_t budget_bytes() const override { return device_->budget_bytes(); }
  void set_budget(uint64_t bytes) override { device_->set_budget(bytes); }
  Result<std::byte*> allocate_host(size_t bytes) override {
    Result<std::byte*> memory = device_->allocate_host(bytes);
    if (memory.ok()) checker_.allocated(*memory, bytes);
    return memory;
  }
  void free_host(std::byte* memory) override {
    checker_.freed(memory);
    device_->free_host(memory);
  }
  Status pin(const std::byte* memory, size_t bytes) override {
    Status status = device_->pin(memory, bytes);
    if (status.ok()) checker_.pinned(memory, bytes);
    return status;
  }
  void unpin(const std::byte* memory) override {
    checker_.unpinned(memory);
    device_->unpin(memory);
  }

  Result<StreamId> create_stream(std::string_view name) override {
    return device_->create_stream(name);
  }
  Result<EventId> create_event() override { return device_->create_event(); }
  Status copy(StreamId stream, std::byte* to, const std::byte* from, size_t bytes) override {
    const bool captured = capturing_.contains(stream);
    checker_.submit_copy(stream, {from, bytes}, {to, bytes}, captured);
    add(stream, {Kind::kAccess, {"a copy", -1}, 0, 0, {{from, bytes}}, {{to, bytes}}});
    return device_->copy(stream, to, from, bytes);
  }
  Status fill(StreamId stream, std::byte* to, uint8_t value, size_t bytes) override {
    add(stream, {Kind::kAccess, {"a fill", -1}, 0, 0, {}, {{to, bytes}}});
    return device_->fill(stream, to, value, bytes);
  }
  Status launch(StreamId stream, const Operation& operation, std::span<const MemoryRange> reads,
                std::span<const MemoryRange> writes) override {
    const OperationRanges own = ranges_of(operation);
    OrderChecker::Command command;
    command.name = {operation_name(operation.kind), operation.layer};
    for (const auto& ranges : {own.all_reads(), reads}) {
      command.reads.insert(command.reads.end(), ranges.begin(), ranges.end());
    }
    for (const auto& ranges : {own.all_writes(), writes}) {
      command.writes.insert(command.writes.end(), ranges.begin(), ranges.end());
    }
    add(stream, std::move(command), operation.kind);
    return device_->launch(stream, operation, reads, writes);
  }
  Status record(StreamId stream, EventId event) override {
    add(stream, {Kind::kRecord, {}, number(event), 0, {}, {}});
    return device_->record(stream, event);
  }
  Status wait(StreamId stream, EventId event) override {
    if (left_out("stream", number(stream), "event", number(event))) return ok_status();
    add(stream, {Kind::kWait, {}, number(event), 0, {}, {}});
    return device_->wait(stream, event);
  }

  Result<FlagId> create_flag() override { return device_->create_flag(); }
  Status stream_set_flag(StreamId stream, FlagId flag, uint32_t value) override {
    add(stream, {Kind::kSetFlag, {}, number(flag), value, {}, {}});
    return device_->stream_set_flag(stream, flag, value);
  }
  Status stream_wait_flag(StreamId stream, FlagId flag, uint32_t value) override {
    if (left_out("stream", number(stream), "flag", number(flag))) return ok_status();
    add(stream, {Kind::kWaitFlag, {}, number(flag), value, {}, {}});
    return device_->stream_wait_flag(stream, flag, value);
  }
  void set_flag(FlagId flag, uint32_t value) override {
    checker_.host_set_flag(number(flag), value);
    device_->set_flag(flag, value);
  }
  Status wait_flag(FlagId flag, uint32_t value, const CancelFlag& cancel) override {
    if (left_out("host", 0, "flag", number(flag))) return ok_status();
    Status status = device_->wait_flag(flag, value, cancel);
    if (status.ok()) checker_.host_saw_flag(number(flag), value);
    return status;
  }
  void reset_flags() override {
    checker_.reset_flags();
    device_->reset_flags();
  }

  Status begin_capture(StreamId stream) override {
    TANDEM_RETURN_IF_ERROR(device_->begin_capture(stream));
    capturing_[stream];
    return ok_status();
  }
  Result<GraphId> end_capture(StreamId stream) override {
    const auto captured = capturing_.extract(stream);
    Result<GraphId> graph = device_->end_capture(stream);
    if (graph.ok() && !captured.empty()) graphs_[*graph] = captured.mapped();
    return graph;
  }
  Status replay(StreamId stream, GraphId graph, const ReachedMemory& reached) override {
    for (const Captured& captured : graphs_[graph]) {
      OrderChecker::Command command = captured.command;
      add_reached(captured.kind, reached, command);
      checker_.submit(stream, std::move(command));
    }
    return device_->replay(stream, graph, reached);
  }
  void free_graph(GraphId graph) override {
    graphs_.erase(graph);
    device_->free_graph(graph);
  }

  Status synchronize(StreamId stream) override {
    if (left_out("host", 0, "stream", number(stream))) return ok_status();
    Status status = device_->synchronize(stream);
    if (status.ok()) checker_.host_saw_stream(stream);
    n_streams_ = std::max(n_streams_, number(stream) + 1);
    return status;
  }
  Status synchronize() override {
    if (left_out("host", 0, "all streams", 0)) return ok_status();
    Status status = device_->synchronize();
    for (uint32_t i = 0; status.ok() && i < n_streams_; ++i) {
      checker_.host_saw_stream(static_cast<StreamId>(i));
    }
    return status;
  }
  Status wait_for(EventId event) override {
    if (left_out("host", 0, "event", number(event))) return ok_status();
    Status status = device_->wait_for(event);
    if (status.ok()) checker_.host_saw_event(number(event));
    return status;
  }
  Result<bool> done(EventId event) override {
    if (nth_ == kEveryPoll) {
      left_out_wait_ = "every question whether an event is done";
      return true;
    }
    Result<bool> done = device_->done(event);
    if (done.ok() && *done) checker_.host_saw_event(number(event));
    return done;
  }
  uint64_t failures() const override { return device_->failures(); }
  void host_access(std::span<const MemoryRange> reads, std::span<const MemoryRange> writes,
                   std::string_view what) override {
    checker_.host_access(reads, writes, {what, -1});
    device_->host_access(reads, writes, what);
  }

  Status set_observer(DeviceObserver* observer) override { return device_->set_observer(observer); }
  void tell_observer() override { device_->tell_observer(); }

  Status check(bool at_end) override { return checker_.check(at_end); }
  uint64_t n_waits() const override { return n_waits_; }
  std::string left_out_wait() const override { return left_out_wait_; }

 private:
  struct Captured {
    OrderChecker::Command command;
    std::optional<OpKind> kind;  // of an operation
  };
  static void add_reached(std::optional<OpKind> kind, const ReachedMemory& reached,
                          OrderChecker::Command& command) {
    const auto append = [](std::vector<MemoryRange>& to, std::span<const MemoryRange> from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    if (kind == OpKind::kExpertMatmul) append(command.reads, reached.experts);
    if (kind == OpKind::kAttend || kind == OpKind::kAttendPages)
      append(command.reads, reached.pages);
    if (kind == OpKind::kStoreKv) append(command.writes, reached.pages);
  }
  void add(StreamId stream, OrderChecker::Command command,
           std::optional<OpKind> kind = std::nullopt) {
    n_streams_ = std::max(n_streams_, number(stream) + 1);
    const auto capture = capturing_.find(stream);
    if (capture != capturing_.end()) return capture->second.push_back({std::move(command), kind});
    checker_.submit(stream, std::move(command));
  }
  bool left_out(const char* who, uint32_t which, const char* what, uint32_t id) {
    if (++n_waits_ != nth_) return false;
    left_out_wait_ = std::string("the wait of ") + who + " " + std::to_string(which) + " for " +
                     what + " " + std::to_string(id);
    return true;
  }

  const std::unique_ptr<Device> device_;
  OrderChecker checker_;
  std::map<StreamId, std::vector<Captured>> capturing_;
  std::map<GraphId, std::vector<Captured>> graphs_;
  uint32_t n_streams_ = 0;
  const uint64_t nth_;
  uint64_t n_waits_ = 0;
  std::string left_out_wait_;
};

}  // namespace

std::unique_ptr<CheckedDevice> check_order(std::unique_ptr<Device> device, uint64_t left_out_wait) {
  return std::make_unique<Checked>(std::move(device), left_out_wait);
}

}  // namespace tandem

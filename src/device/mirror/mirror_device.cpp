#include "device/mirror/mirror_device.h"

#include <sys/prctl.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/thread.h"
#include "base/wait_word.h"
#include "device/host_compute.h"
#include "device/mirror/device_arena.h"
#include "device/mirror/mirror_stream.h"
#include "device/mirror/operation_time.h"
#include "device/mirror/stream_clock.h"
#include "device/mirror/teller.h"
#include "device/mirror/timed_operation.h"

namespace tandem::mirror {
namespace {

constexpr auto kSpin = std::chrono::microseconds(30);
// A timed mirror shows how lanes overlap: a card sees a flag at once, not after a thread has woken up.
constexpr auto kTimedSpin = std::chrono::microseconds(300), kDeviceSpin = kTimedSpin * 20;
constexpr auto kLook = std::chrono::milliseconds(2);  // how often a sleeper looks for the end
constexpr auto kPatience = std::chrono::seconds(1);
constexpr uint8_t kPoison = 0xFB;  // as floats, weights and ids: large negative numbers

class MirrorDevice final : public Device {
 public:
  MirrorDevice(const MirrorOptions& options, const cpu::KernelTable& kernels,
               std::unique_ptr<DeviceArena> arena);
  ~MirrorDevice() override;

  const DeviceInfo& info() const override { return info_; }

  Result<std::byte*> allocate(size_t bytes, std::string_view what) override;
  void free(std::byte* memory) override;
  uint64_t used_bytes() const override { return used_.load(); }
  uint64_t budget_bytes() const override { return budget_.load(); }
  void set_budget(uint64_t bytes) override { budget_ = std::min(bytes, options_.memory_bytes); }
  Result<std::byte*> allocate_host(size_t bytes) override;
  void free_host(std::byte* memory) override { std::free(memory); }
  Status pin(const std::byte*, size_t) override { return lost(); }
  void unpin(const std::byte*) override {}

  Result<StreamId> create_stream(std::string_view name) override;
  Result<EventId> create_event() override;
  Status copy(StreamId stream, std::byte* to, const std::byte* from, size_t bytes) override;
  Status fill(StreamId stream, std::byte* to, uint8_t value, size_t bytes) override;
  Status launch(StreamId stream, const Operation& operation, std::span<const MemoryRange>,
                std::span<const MemoryRange>) override;
  Status record(StreamId stream, EventId event) override;
  Status wait(StreamId stream, EventId event) override;

  Result<FlagId> create_flag() override;
  Status stream_set_flag(StreamId stream, FlagId flag, uint32_t value) override;
  Status stream_wait_flag(StreamId stream, FlagId flag, uint32_t value) override;
  void set_flag(FlagId flag, uint32_t value) override;
  Status wait_flag(FlagId flag, uint32_t value, const CancelFlag& cancel) override;
  void reset_flags() override;

  Status begin_capture(StreamId stream) override;
  Result<GraphId> end_capture(StreamId stream) override;
  Status replay(StreamId stream, GraphId graph, const ReachedMemory& reached) override;
  void free_graph(GraphId graph) override { graphs_.erase(graph); }

  Status synchronize(StreamId stream) override;
  Status synchronize() override;
  Status wait_for(EventId event) override;
  Result<bool> done(EventId event) override;
  uint64_t failures() const override { return failures_.load(); }

  Status set_observer(DeviceObserver* observer) override {
    teller_.set(observer);
    return ok_status();
  }

 private:
  bool threaded() const { return options_.order == Order::kThreads; }
  Stream& at(StreamId id) { return streams_[static_cast<size_t>(id)]; }
  std::byte* seen(const std::byte* address) const;  // by the mirror's own threads
  Status lost() const;

  Status submit(StreamId id, Command command);
  Status make_room(const Stream& stream);
  Status enqueue(Stream& stream, Command command);
  void serve(Stream& stream);  // a stream's thread
  bool blocked(const Command& command) const;
  bool goes_on() const;
  bool skips(const Stream& stream) const;
  // False: the device is closing.
  bool wait_until_free(Stream& stream, const Command& command) const;
  void execute(Stream& stream, const Command& command);
  void compute(Stream& stream, const Command& command);
  void pass_copy(Stream& stream, const Command& command);
  void pass_fill(Stream& stream, const Command& command);
  void signal(Stream& stream, WaitWord& word, uint32_t value);
  Status refused();
  bool fault(std::atomic<uint64_t>& counter, uint64_t nth) {
    return counter.fetch_add(1) + 1 == nth;
  }

  // The orders without threads: commands run on the thread that calls.
  bool run_one();
  void run_some();
  Status run_until(const std::function<bool()>& reached);

  Status await(const WaitWord& word, uint32_t value, const CancelFlag& cancel);
  void fail(Status status);
  Status take_error();
  uint64_t random();

  const MirrorOptions options_;
  const cpu::KernelTable& kernels_;
  const std::unique_ptr<DeviceArena> arena_;
  DeviceInfo info_;
  Link up_, down_;
  std::atomic<uint64_t> used_{0}, budget_;
  std::atomic<bool> closing_{false}, lost_{false};
  std::atomic<bool> failed_{false};  // error_ is not ok
  std::atomic<uint64_t> failures_{0};
  std::atomic<uint64_t> n_allocations_{0}, n_copies_{0}, n_operations_{0}, n_commands_{0};
  std::atomic<uint64_t> n_submissions_{0};
  std::deque<Stream> streams_;  // places do not move
  std::deque<Event> events_;
  std::deque<WaitWord> flags_;
  std::map<GraphId, std::vector<Command>> graphs_;
  uint32_t n_graphs_ = 0;
  uint64_t random_state_;
  Teller teller_;

  mutable std::mutex mutex_;
  Status error_;  // guarded by mutex_: not told yet
};

MirrorDevice::MirrorDevice(const MirrorOptions& options, const cpu::KernelTable& kernels,
                           std::unique_ptr<DeviceArena> arena)
    : options_(options),
      kernels_(kernels),
      arena_(std::move(arena)),
      up_(options.link_gb_per_s, options.latency_us),
      down_(options.link_gb_per_s, options.latency_us),
      budget_(options.memory_bytes),
      random_state_(options.seed * 2 + 1) {
  info_.name = options.timed ? "mirror (timed)" : "mirror";
  info_.backend = "mirror";
  info_.memory_bytes = options.memory_bytes;
  info_.link_gb_per_s = options.link_gb_per_s;
  info_.computes = !options.timed;
  info_.most_waiting = static_cast<uint32_t>(std::min<uint64_t>(options.depth, UINT32_MAX));
}

// Requires: nobody submits, or sets flags, any more.  Then streams that all stand will do so for ever.
bool MirrorDevice::goes_on() const {
  const auto n_executed = [this] {
    uint64_t sum = 0;
    for (const Stream& stream : streams_) sum += stream.executed.load();
    return sum;
  };
  const uint64_t before = n_executed();
  for (const Stream& stream : streams_) {
    if (stream.executed.load() == stream.n_submitted) continue;
    const WaitWord* const word = stream.stands_at.load();
    if (word == nullptr || word->reached(stream.stands_for.load())) return true;
  }
  return n_executed() != before;
}

MirrorDevice::~MirrorDevice() {
  while (threaded() && goes_on()) std::this_thread::sleep_for(kLook / 20);
  closing_ = true;
  for (Stream& stream : streams_) {
    if (!stream.thread.joinable()) continue;
    stream.submitted.raise(stream.n_submitted + 1);  // one that is not there: the end
    stream.thread.join();
  }
  if (!threaded()) {
    while (run_one()) {
    }
  }
}

// ---- memory ----

Result<std::byte*> MirrorDevice::allocate(size_t bytes, std::string_view what) {
  TANDEM_RETURN_IF_ERROR(lost());
  const uint64_t taken =
      checked_align_up(std::max<size_t>(bytes, 1), DeviceArena::kAlignment).value_or(UINT64_MAX);
  const uint64_t free_bytes = budget_ - std::min<uint64_t>(budget_, used_);
  const bool fails = fault(n_allocations_, options_.faults.allocation);
  std::byte* memory = taken > free_bytes || fails ? nullptr : arena_->allocate(bytes);
  if (memory == nullptr) {
    return out_of_memory(std::string(what) + " needs " + format_bytes(bytes) +
                         " of device memory, " + format_bytes(free_bytes) + " of the budget of " +
                         format_bytes(budget_) + " are free")
        .with_bytes(bytes, free_bytes);
  }
  used_ += taken;
  if (options_.poison) std::memset(seen(memory), kPoison, bytes);
  return memory;
}

void MirrorDevice::free(std::byte* memory) {
  if (memory == nullptr) return;
  const size_t bytes = arena_->free(memory);
  used_ -= bytes;
  if (options_.poison) std::memset(seen(memory), kPoison, bytes);
}

Result<std::byte*> MirrorDevice::allocate_host(size_t bytes) {
  constexpr size_t kPage = 4096;
  void* memory = std::aligned_alloc(kPage, align_up(std::max<size_t>(bytes, 1), kPage));
  if (memory == nullptr) {
    return out_of_memory("buffers for the device need " + format_bytes(bytes)).with_bytes(bytes, 0);
  }
  std::memset(memory, 0, bytes);
  return static_cast<std::byte*>(memory);
}

std::byte* MirrorDevice::seen(const std::byte* address) const {
  auto* writable = const_cast<std::byte*>(address);
  return arena_->contains(address) ? writable + arena_->shift() : writable;
}

// ---- submission ----

Result<StreamId> MirrorDevice::create_stream(std::string_view name) {
  Stream& stream = streams_.emplace_back();
  stream.id = static_cast<StreamId>(streams_.size() - 1);
  stream.name = name;
  if (threaded()) {
    try {
      stream.thread = start_thread([this, &stream] { serve(stream); });
    } catch (const std::system_error& error) {
      streams_.pop_back();
      return status_from_errno(error.code().value(), "thread for a stream of the mirror device");
    }
  }
  return static_cast<StreamId>(streams_.size() - 1);
}

Result<EventId> MirrorDevice::create_event() {
  events_.emplace_back();
  return static_cast<EventId>(events_.size() - 1);
}

Result<FlagId> MirrorDevice::create_flag() {
  flags_.emplace_back();
  return static_cast<FlagId>(flags_.size() - 1);
}

Status MirrorDevice::copy(StreamId stream, std::byte* to, const std::byte* from, size_t bytes) {
  Command command;
  command.kind = Command::Kind::kCopy;
  command.up = arena_->contains(to);
  command.over_link = command.up != arena_->contains(from);
  command.to = seen(to);
  command.from = seen(from);
  command.bytes = bytes;
  return submit(stream, command);
}

Status MirrorDevice::fill(StreamId stream, std::byte* to, uint8_t value, size_t bytes) {
  Command command;
  command.kind = Command::Kind::kFill;
  command.to = seen(to);
  command.value = value;
  command.bytes = bytes;
  return submit(stream, command);
}

Status MirrorDevice::launch(StreamId stream, const Operation& operation,
                            std::span<const MemoryRange>, std::span<const MemoryRange>) {
  Command command;
  command.kind = Command::Kind::kOperation;
  command.operation = operation;
  Operation& op = command.operation;
  for (Operand* operand :
       {&op.in[0], &op.in[1], &op.in[2], &op.out, &op.out2, &op.other_rows, &op.other_lists}) {
    operand->data = seen(operand->data);
  }
  const auto translate = [this]<typename T>(T*& address) {
    address = reinterpret_cast<T*>(seen(reinterpret_cast<const std::byte*>(address)));
  };
  translate(op.weight);
  translate(op.experts);
  translate(op.step);
  translate(op.n_pairs);
  op.shift = arena_->shift();
  return submit(stream, command);
}

Status MirrorDevice::record(StreamId stream, EventId event) {
  Command command;
  command.kind = Command::Kind::kRecord;
  command.index = static_cast<uint32_t>(event);
  return submit(stream, command);
}

Status MirrorDevice::wait(StreamId stream, EventId event) {
  Command command;
  command.kind = Command::Kind::kWait;
  command.index = static_cast<uint32_t>(event);
  return submit(stream, command);
}

Status MirrorDevice::stream_set_flag(StreamId stream, FlagId flag, uint32_t value) {
  Command command;
  command.kind = Command::Kind::kSetFlag;
  command.index = static_cast<uint32_t>(flag);
  command.count = value;
  return submit(stream, command);
}

Status MirrorDevice::stream_wait_flag(StreamId stream, FlagId flag, uint32_t value) {
  Command command;
  command.kind = Command::Kind::kWaitFlag;
  command.index = static_cast<uint32_t>(flag);
  command.count = value;
  return submit(stream, command);
}

// Counts each call that submits, a replay too, once.
Status MirrorDevice::refused() {
  if (!fault(n_submissions_, options_.faults.submission)) return ok_status();
  return Status(Code::kDevice, "submission " + std::to_string(options_.faults.submission) +
                                   " to the mirror device was refused, as asked");
}

Status MirrorDevice::submit(StreamId id, Command command) {
  TANDEM_RETURN_IF_ERROR(lost());
  TANDEM_RETURN_IF_ERROR(refused());
  Stream& stream = at(id);
  if (stream.capture != nullptr) {
    stream.capture->push_back(command);
    return ok_status();
  }
  TANDEM_RETURN_IF_ERROR(make_room(stream));
  return enqueue(stream, command);
}

Status MirrorDevice::make_room(const Stream& stream) {
  if (info_.most_waiting == 0 || stream.n_submitted < info_.most_waiting) return ok_status();
  const uint32_t n_done = stream.n_submitted - info_.most_waiting + 1;
  const bool has_room = threaded()
                            ? stream.executed.wait(n_done, kSpin, kPatience)
                            : run_until([&] { return stream.executed.reached(n_done); }).ok();
  if (has_room) return ok_status();
  return Status(Code::kDevice, "stream " + stream.name + " of the mirror device holds " +
                                   std::to_string(info_.most_waiting) +
                                   " commands and does not go on: a card would wait for ever");
}

Status MirrorDevice::enqueue(Stream& stream, Command command) {
  const uint32_t n = stream.n_submitted;
  Command* const place = stream.queue.add(n, stream.executed);
  if (place == nullptr) return out_of_memory("there is no memory for more work of the device");
  if (command.kind == Command::Kind::kRecord) {
    command.count = ++events_[command.index].n_submitted;
  } else if (command.kind == Command::Kind::kWait) {
    command.count = events_[command.index].n_submitted;
  }
  *place = command;
  stream.n_submitted = n + 1;
  stream.submitted.raise(n + 1);
  if (options_.order == Order::kRandom) run_some();
  return ok_status();
}

// ---- execution ----

void MirrorDevice::serve(Stream& stream) {
  ::prctl(PR_SET_TIMERSLACK, 1);  // sleeps end when they should
  for (uint32_t n = 0;; ++n) {
    stream.submitted.wait(n + 1, kSpin);
    if (closing_ && n == stream.n_submitted) return;
    const Command& command = stream.queue.at(n);
    if (!wait_until_free(stream, command)) return;
    execute(stream, command);
    if (!stream.submitted.reached(n + 2)) stream.clock.sleep();
    stream.executed.raise(n + 1);
  }
}

bool MirrorDevice::blocked(const Command& command) const {
  if (lost_) return false;
  if (command.kind == Command::Kind::kWait) {
    return !events_[command.index].done.reached(command.count);
  }
  return command.kind == Command::Kind::kWaitFlag && !flags_[command.index].reached(command.count);
}

bool MirrorDevice::wait_until_free(Stream& stream, const Command& command) const {
  if (!blocked(command)) return true;
  const WaitWord& word =
      command.kind == Command::Kind::kWait ? events_[command.index].done : flags_[command.index];
  stream.stands_for = command.count;
  stream.stands_at = &word;
  while (blocked(command)) {
    if (closing_) return false;
    word.wait(command.count, options_.timed ? kDeviceSpin : kSpin, kLook);
  }
  stream.stands_at = nullptr;
  return true;
}

void MirrorDevice::execute(Stream& stream, const Command& command) {
  const uint64_t limit = options_.faults.lost_after_commands;
  if (n_commands_.fetch_add(1) + 1 == limit) {
    fail(Status(Code::kDeviceLost, "the mirror device was lost after " + std::to_string(limit) +
                                       " commands, as asked"));
  }
  switch (command.kind) {
    case Command::Kind::kCopy:
      return pass_copy(stream, command);
    case Command::Kind::kFill:
      return pass_fill(stream, command);
    case Command::Kind::kOperation:
      return compute(stream, command);
    case Command::Kind::kRecord:
      return signal(stream, events_[command.index].done, command.count);
    case Command::Kind::kSetFlag:
      return signal(stream, flags_[command.index], command.count);
    case Command::Kind::kWait:
    case Command::Kind::kWaitFlag:
      return;
  }
}

// Nothing is done on what may be missing, as on a card: neither until somebody has been told, nor of what was submitted
// before.
bool MirrorDevice::skips(const Stream& stream) const {
  const uint32_t index = stream.executed.load();  // the command's
  return lost_ || failed_ || static_cast<int32_t>(stream.skipped - index) > 0;
}

void MirrorDevice::pass_copy(Stream& stream, const Command& command) {
  if (skips(stream)) return;
  if (fault(n_copies_, options_.faults.copy)) {
    return fail(Status(Code::kDevice, "a copy of " + format_bytes(command.bytes) + " failed"));
  }
  DeviceActivity activity{.kind = DeviceActivity::Kind::kCopyWithin, .name = "copy"};
  activity.bytes = command.bytes;
  Link::Passage passage{stream.clock.begin(), {}};
  std::memcpy(command.to, command.from, command.bytes);
  passage.end = std::max(passage.begin, SteadyClock::now());
  if (command.over_link) {
    activity.kind = command.up ? DeviceActivity::Kind::kCopyUp : DeviceActivity::Kind::kCopyDown;
    const Link::Passage link = (command.up ? up_ : down_).pass(passage.begin, command.bytes);
    passage = {link.begin, std::max(link.end, passage.end)};
  }
  stream.clock.move_to(passage.end);
  teller_.tell(stream.id, activity, passage.begin, passage.end);
}

void MirrorDevice::pass_fill(Stream& stream, const Command& command) {
  if (lost_) return;
  const auto begin = stream.clock.begin();
  std::memset(command.to, command.value, command.bytes);
  stream.clock.move_to(SteadyClock::now());
  DeviceActivity activity{.kind = DeviceActivity::Kind::kFill, .name = "fill"};
  activity.bytes = command.bytes;
  teller_.tell(stream.id, activity, begin, std::max(begin, stream.clock.end()));
}

void MirrorDevice::signal(Stream& stream, WaitWord& word, uint32_t value) {
  const auto begin = stream.clock.end();
  const auto now = SteadyClock::now();
  stream.clock.sleep();
  // Nothing was left to wait for where the work before was over long ago.
  const DeviceActivity activity{.kind = DeviceActivity::Kind::kSignal, .name = "signal"};
  teller_.tell(stream.id, activity, begin > now ? begin : now, SteadyClock::now());
  word.raise(value);
}

void MirrorDevice::compute(Stream& stream, const Command& command) {
  const Operation& op = command.operation;
  if (skips(stream)) return;
  if (fault(n_operations_, options_.faults.operation)) {
    return fail(Status(Code::kDevice, "operation " + std::string(operation_name(op.kind)) +
                                          " of layer " + std::to_string(op.layer) + " failed"));
  }
  const auto begin = stream.clock.begin();
  if (options_.timed) {
    stand_in_for(op);
    stream.clock.add(seconds_of(options_.profile, op));
  } else {
    const auto now = SteadyClock::now();
    const size_t n = host::attend_scratch_floats(*op.constants);
    if (stream.scratch.size() < n) stream.scratch.resize(n);
    host::compute(op, kernels_, stream.scratch.data());
    // It would not have begun before the copies that it waits for were over.
    stream.clock.move_to(begin + (SteadyClock::now() - now));
  }
  if (!teller_.listens()) return;
  DeviceActivity activity{
      .operation = op.index, .layer = op.layer, .name = operation_name(op.kind)};
  activity.rows = host::n_rows(op);
  activity.bytes = weight_bytes(op);
  teller_.tell(stream.id, activity, begin, std::max(begin, stream.clock.end()));
}

// ---- the orders without threads ----

uint64_t MirrorDevice::random() {
  random_state_ ^= random_state_ << 13;
  random_state_ ^= random_state_ >> 7;
  random_state_ ^= random_state_ << 17;
  return random_state_;
}

// One command of a stream that can go on; false when none can.
bool MirrorDevice::run_one() {
  const size_t n = streams_.size();
  const size_t first = options_.order == Order::kRandom && n > 0 ? random() % n : 0;
  for (size_t i = 0; i < n; ++i) {
    Stream& stream = streams_[(first + i) % n];
    const uint32_t next = stream.executed.load();
    if (next == stream.n_submitted) continue;
    const Command& command = stream.queue.at(next);
    if (blocked(command)) continue;
    execute(stream, command);
    stream.clock.sleep();
    stream.executed.raise(next + 1);
    return true;
  }
  return false;
}

void MirrorDevice::run_some() {
  for (uint64_t n = random() % 4; n > 0 && run_one(); --n) {
  }
}

Status MirrorDevice::run_until(const std::function<bool()>& reached) {
  while (!reached()) {
    if (!run_one()) {
      return Status(Code::kDevice,
                    "no stream can go on: what they wait for was never submitted or set");
    }
  }
  return ok_status();
}

// ---- host waits ----

Status MirrorDevice::await(const WaitWord& word, uint32_t value, const CancelFlag& cancel) {
  if (threaded()) {
    while (!word.wait(value, options_.timed ? kTimedSpin : kSpin, kLook)) {
      if (cancel.cancelled()) return cancelled("cancelled while waiting for the device");
      if (lost_) return lost();
    }
  } else {
    TANDEM_RETURN_IF_ERROR(run_until([&] { return word.reached(value) || lost_; }));
  }
  return take_error();
}

void MirrorDevice::set_flag(FlagId flag, uint32_t value) {
  flags_[static_cast<size_t>(flag)].raise(value);
  if (options_.order == Order::kRandom) run_some();
}

Status MirrorDevice::wait_flag(FlagId flag, uint32_t value, const CancelFlag& cancel) {
  return await(flags_[static_cast<size_t>(flag)], value, cancel);
}

void MirrorDevice::reset_flags() {
  for (WaitWord& flag : flags_) flag.reset();
}

Status MirrorDevice::synchronize(StreamId id) {
  return await(at(id).executed, at(id).n_submitted, or_never(nullptr));
}

Status MirrorDevice::synchronize() {
  Status first;
  for (size_t i = 0; i < streams_.size(); ++i) {
    Status status = synchronize(static_cast<StreamId>(i));
    if (first.ok()) first = std::move(status);
  }
  return first;
}

Status MirrorDevice::wait_for(EventId id) {
  const Event& event = events_[static_cast<size_t>(id)];
  return await(event.done, event.n_submitted, or_never(nullptr));
}

Result<bool> MirrorDevice::done(EventId id) {
  TANDEM_RETURN_IF_ERROR(lost());
  if (!threaded()) run_one();  // or whoever asks again and again would ask for ever
  const Event& event = events_[static_cast<size_t>(id)];
  const bool is_done = event.done.reached(event.n_submitted);
  TANDEM_RETURN_IF_ERROR(take_error());  // of what came before the event too
  return is_done;
}

void MirrorDevice::fail(Status status) {
  const std::lock_guard lock(mutex_);
  const bool is_loss = status.code() == Code::kDeviceLost;
  if (error_.ok() || is_loss) error_ = std::move(status);
  lost_ = lost_ || is_loss;
  failed_ = true;
  ++failures_;
}

Status MirrorDevice::take_error() {
  const std::lock_guard lock(mutex_);
  if (lost_) return error_;  // for good
  if (failed_) {
    for (Stream& stream : streams_) stream.skipped = stream.submitted.load();
    ++failures_;
  }
  failed_ = false;
  return std::exchange(error_, Status());
}

Status MirrorDevice::lost() const {
  if (!lost_) return ok_status();
  const std::lock_guard lock(mutex_);
  return error_;
}

// ---- graphs ----

Status MirrorDevice::begin_capture(StreamId id) {
  TANDEM_RETURN_IF_ERROR(lost());
  Stream& stream = at(id);
  if (stream.capture != nullptr) return invalid_argument("the stream's work is being captured");
  stream.captured = static_cast<GraphId>(n_graphs_++);
  stream.capture = &graphs_[stream.captured];
  return ok_status();
}

Result<GraphId> MirrorDevice::end_capture(StreamId id) {
  Stream& stream = at(id);
  if (stream.capture == nullptr) return invalid_argument("the stream's work is not captured");
  stream.capture = nullptr;
  return stream.captured;
}

Status MirrorDevice::replay(StreamId id, GraphId graph, const ReachedMemory& /*reached*/) {
  TANDEM_RETURN_IF_ERROR(lost());
  TANDEM_RETURN_IF_ERROR(refused());
  const auto found = graphs_.find(graph);
  if (found == graphs_.end()) return invalid_argument("there is no such graph");
  for (const Command& command : found->second) TANDEM_RETURN_IF_ERROR(enqueue(at(id), command));
  return ok_status();
}

}  // namespace

Result<std::unique_ptr<Device>> create_device(const MirrorOptions& options,
                                              const cpu::KernelTable& kernels) {
  TANDEM_ASSIGN_OR_RETURN(auto arena, DeviceArena::create(options.memory_bytes));
  return std::unique_ptr<Device>(new MirrorDevice(options, kernels, std::move(arena)));
}

}  // namespace tandem::mirror

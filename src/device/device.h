// A processor with its own memory behind a link: allocate, copy asynchronously, launch operations,
// order them.  Two backends: mirror/ (on the CPU, for machines without a card and for tests) and the
// CUDA module.  CheckedDevice (order_checker.h) wraps either and finds missing waits.
//
// Work is submitted to streams.  A stream does its work in the order of submission; different streams, and the host,
// are ordered by events and flags alone.  Submitting takes no memory in
// the steady state, and waits only where a stream holds info().most_waiting commands that were not begun.
//
// Threading: one thread at a time submits (the engine's worker); set_flag, wait_flag, used_bytes and budget_bytes from
// any thread.
// Ownership: owns its memory, streams, events, flags and graphs; all live until freed or until the device dies, which
// waits for the work submitted.  Memory, host buffers and Operations' constants must outlive the work that uses them.
// Errors: kOutOfMemory with the bytes from allocations; kDevice for what failed in execution, told by the next call that
// waits (and by none before: execution is asynchronous), naming the operation; kDeviceLost once the device is gone: from
// then on every call says so and nothing is computed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/progress.h"
#include "base/result.h"
#include "device/operation.h"

namespace tandem {

enum class StreamId : uint32_t {};
enum class EventId : uint32_t {};
enum class FlagId : uint32_t {};
enum class GraphId : uint32_t {};

struct DeviceInfo {
  std::string name;           // "mirror", "NVIDIA GeForce RTX 4090"
  std::string backend;        // "mirror" or "cuda"
  uint64_t memory_bytes = 0;  // that the device has
  double link_gb_per_s = 0;   // 0: not known yet
  double memory_gb_per_s = 0;
  bool computes = true;       // false: operations only take time (a timed mirror)
  uint32_t most_waiting = 0;  // commands that a stream takes before it goes on; 0: any number
};

// Bytes that an operation reads or writes, in device or host memory.
struct MemoryRange {
  const std::byte* begin = nullptr;
  size_t bytes = 0;
};

// What the operations of a graph reach through addresses in memory when it is replayed: attention reads `pages` and
// storing writes them, products of experts read `experts`.
struct ReachedMemory {
  std::span<const MemoryRange> pages, experts;
};

// Something that took time on a device or its link.
struct DeviceActivity {
  enum class Kind : uint8_t {
    kOperation,
    kCopyUp,      // host to device
    kCopyDown,    // device to host
    kCopyWithin,  // neither crosses the link
    kFill,
    kGraph,   // a replay, where what stands in graphs is not measured one by one
    kSignal,  // from when the work before a flag or event was over until the flag was raised
  };
  Kind kind = Kind::kOperation;
  StreamId stream{};
  int32_t operation = -1;  // Operation::index
  int32_t layer = -1;
  std::string_view name;  // operation_name(), or a literal
  int64_t rows = -1;      // that an operation computed; -1: not known
  uint64_t bytes = 0;     // copied, or of the weights that an operation read; 0: not known
  int64_t begin_ns = 0, end_ns = 0;  // of base/clock.h, since its epoch
};

// Told of each activity when it is over, one call at a time, by Device::tell_observer() at the latest; on threads of the
// device before the stream goes on, or in tell_observer().  Must return quickly and not call the device.
class DeviceObserver {
 public:
  virtual ~DeviceObserver() = default;
  virtual void observed(const DeviceActivity& activity) noexcept = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual const DeviceInfo& info() const = 0;

  // ---- memory ----
  // At least 256-byte aligned, contents undefined.  kOutOfMemory when used_bytes() would pass the budget.
  virtual Result<std::byte*> allocate(size_t bytes, std::string_view what) = 0;
  // Requires: submitted work that uses it is done.  null is allowed.
  virtual void free(std::byte* memory) = 0;
  virtual uint64_t used_bytes() const = 0;
  virtual uint64_t budget_bytes() const = 0;
  // What is allocated stays, even above the new budget: whoever owns it gives it back.
  virtual void set_budget(uint64_t bytes) = 0;
  // Page-locked memory that host and device see, zeroed.
  virtual Result<std::byte*> allocate_host(size_t bytes) = 0;
  virtual void free_host(std::byte* memory) = 0;

  // Host memory of others, page-locked until unpin(): copies of it are then as asynchronous as those of allocate_host()'s.
  // Requires: not pinned already, nor any part of it.  Takes time: it is for weights, once.
  virtual Status pin(const std::byte* memory, size_t bytes) = 0;
  virtual void unpin(const std::byte* memory) = 0;

  // ---- submission ----
  virtual Result<StreamId> create_stream(std::string_view name) = 0;
  virtual Result<EventId> create_event() = 0;
  // Between any two of device memory and host memory.  Of the host's, what is neither from allocate_host() nor pinned may
  // be copied while this waits, and only behind all work that the stream has: that must not wait for the caller.
  virtual Status copy(StreamId stream, std::byte* to, const std::byte* from, size_t bytes) = 0;
  virtual Status fill(StreamId stream, std::byte* to, uint8_t value, size_t bytes) = 0;
  // Reads and writes what operands_of() (operation_ranges.h) says, and reads `also_reads`: what is reached through
  // addresses in memory (experts, pages).
  virtual Status launch(StreamId stream, const Operation& operation,
                        std::span<const MemoryRange> also_reads = {},
                        std::span<const MemoryRange> also_writes = {}) = 0;
  virtual Status record(StreamId stream, EventId event) = 0;
  // Work submitted to the stream from now on waits for what the event's last record() covered.
  virtual Status wait(StreamId stream, EventId event) = 0;

  // ---- flags: counters that host threads and streams raise and wait for ----
  virtual Result<FlagId> create_flag() = 0;
  virtual Status stream_set_flag(StreamId stream, FlagId flag, uint32_t value) = 0;
  virtual Status stream_wait_flag(StreamId stream, FlagId flag,
                                  uint32_t value) = 0;  // until >= value
  virtual void set_flag(FlagId flag, uint32_t value) = 0;
  // Spins, then sleeps.  kCancelled; what failed on the device.
  virtual Status wait_flag(FlagId flag, uint32_t value, const CancelFlag& cancel) = 0;
  // All flags to 0.  Requires: no submitted work is left and no thread waits.
  virtual void reset_flags() = 0;

  // ---- graphs: a stream's work written down once and submitted at once ----
  virtual Status begin_capture(StreamId stream) = 0;
  virtual Result<GraphId> end_capture(StreamId stream) = 0;
  // Requires: what `reached` names was left out when its operations were captured.
  virtual Status replay(StreamId stream, GraphId graph, const ReachedMemory& reached = {}) = 0;
  virtual void free_graph(GraphId graph) = 0;

  // ---- host waits ----
  virtual Status synchronize(StreamId stream) = 0;
  virtual Status synchronize() = 0;  // all streams
  virtual Status wait_for(EventId event) = 0;
  // Tells of what failed as a wait does.
  virtual Result<bool> done(EventId event) = 0;
  // Rises when work fails and again when that is told, to whomever: of what was submitted before and is done now, all was
  // done in truth if it is still the same.  Stays what it is on a device that never works again after a failure.  Any
  // thread.
  virtual uint64_t failures() const { return 0; }

  // What host code is about to read and write of memory that streams use too.  For the checker; backends ignore it.
  virtual void host_access(std::span<const MemoryRange> reads, std::span<const MemoryRange> writes,
                           std::string_view what) {
    (void)reads, (void)writes, (void)what;
  }

  // From now on tells the observer, which must live until another or null is set; without one nothing is measured.  Of one
  // stream the times follow each other.  Requires: no submitted work is left.
  virtual Status set_observer(DeviceObserver* observer) = 0;
  // Whoever waited for work calls it before he looks at what it took.
  virtual void tell_observer() {}
};

}  // namespace tandem

// Finds accesses to memory that nothing orders: a wait that is missing, whether or not it did harm this time.
//
// Streams and the host are lanes with vector clocks.  A submission orders what the host did before it before the command;
// events and flags order what stands before a record or a set before what stands behind the wait; a host's wait that
// returned orders what it waited for before what the host does next.  Host threads count as one lane: they order each
// other by locks.  A stream's commands are looked at as soon as what they wait for has been set, so the findings do not
// depend on timing.
// For each byte the last write and the reads since are known; two accesses to one byte, at least one of them writing, of
// which neither is ordered before the other, are a finding.
//
// Source of the method: vector clocks (Lamport 1978; Mattern 1989) as data-race detectors use them.
//
// Threading: any thread.  Ownership: none.  Memory: grows with the number of distinct ranges, not with time.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "device/device.h"

namespace tandem {

class OrderChecker {
 public:
  // What accesses memory; `name` must live as long as the checker.
  struct Name {
    std::string_view what;
    int32_t layer = -1;
  };
  struct Command {
    enum class Kind : uint8_t { kAccess, kRecord, kWait, kSetFlag, kWaitFlag };
    Kind kind = Kind::kAccess;
    Name name;
    uint32_t index = 0;  // of the event or flag
    uint32_t value = 0;  // of the flag
    std::vector<MemoryRange> reads, writes;
  };

  void allocated(const std::byte* memory, size_t bytes);
  void freed(const std::byte* memory);
  // Host memory of others that is page-locked.
  void pinned(const std::byte* memory, size_t bytes);
  void unpinned(const std::byte* memory);
  // A copy is about to be submitted: one that a card may do while the host waits must find the stream with nothing left
  // that waits, and must not be captured.
  void submit_copy(StreamId stream, const MemoryRange& from, const MemoryRange& to, bool captured);
  void submit(StreamId stream, Command command);
  void host_access(std::span<const MemoryRange> reads, std::span<const MemoryRange> writes,
                   Name name);
  void host_set_flag(uint32_t flag, uint32_t value);
  void reset_flags();
  // A host's wait returned.
  void host_saw_flag(uint32_t flag, uint32_t value);
  void host_saw_event(uint32_t event);
  void host_saw_stream(StreamId stream);

  // kInternal with the first finding and how many there are.  At the end also: a stream that waits for ever.
  Status check(bool at_end = true);

 private:
  using Clock = std::vector<uint64_t>;  // by lane
  struct Epoch {
    uint32_t lane = 0;
    uint64_t time = 0;  // 0: never
    Name name;
  };
  struct Segment {
    const std::byte* end;
    Epoch write;
    std::vector<Epoch> reads;  // since the write, one per lane
  };
  struct Queued {
    Command command;
    Clock host;          // of the host when it submitted
    uint64_t count = 0;  // kRecord, kWait: which record of the event
  };
  struct Lane {
    Clock clock;
    std::deque<Queued> queue;
  };
  struct Event {
    uint64_t n_submitted = 0, n_done = 0;
    // Of the newest records that were done, the last one at the end: a wait is for the record before it, though later
    // ones may have been done meanwhile.
    std::deque<Clock> clocks;
    const Clock& clock_of(uint64_t record) const;
  };
  struct Set {
    uint32_t value;
    Clock clock;
  };

  static constexpr uint32_t kHost = 0;
  Lane& lane(uint32_t id);
  Lane& stream(StreamId id) { return lane(static_cast<uint32_t>(id) + 1); }
  static void join(Clock& clock, const Clock& other);
  static bool covers(const Clock& clock, const Clock& other);
  uint64_t tick(uint32_t id);
  void advance();
  bool step(uint32_t id);  // false: its next command has to wait
  void touch(uint32_t id, const MemoryRange& range, bool writes, const Name& name);
  void touch_segment(Segment& segment, const Epoch& epoch, bool writes, const Clock& clock);
  void split(const std::byte* at);
  bool is_locked(const MemoryRange& range) const;
  void check_allocated(const MemoryRange& range, const Name& name);
  const Set* find_set(uint32_t flag, uint32_t value) const;
  void report(std::string finding);
  std::string lane_name(uint32_t id) const;

  std::mutex mutex_;
  std::deque<Lane> lanes_;
  std::map<uint32_t, Event> events_;
  std::map<uint32_t, std::vector<Set>> flags_;  // values rise
  std::map<const std::byte*, Segment> segments_;
  std::map<const std::byte*, size_t> live_, dead_;  // of the device, and of the host from it
  std::map<const std::byte*, size_t> pinned_;
  std::vector<std::string> findings_;
  uint64_t n_findings_ = 0;
};

}  // namespace tandem

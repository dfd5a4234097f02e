#include "device/order_checker.h"

#include <algorithm>
#include <utility>

namespace tandem {
namespace {

constexpr size_t kMostFindings = 20;
// Of an event; a wait that is further behind than so many is taken for a wait for the oldest of them.
constexpr size_t kMostRecords = 4096;

std::string text_of(const OrderChecker::Name& name) {
  std::string text(name.what);
  if (name.layer >= 0) text += " of layer " + std::to_string(name.layer);
  return text;
}

using Memory = std::map<const std::byte*, size_t>;

// The last that begins before `at`, or null.
const Memory::value_type* last_before(const Memory& memory, const std::byte* at) {
  const auto after = memory.lower_bound(at);
  return after == memory.begin() ? nullptr : &*std::prev(after);
}

}  // namespace

const OrderChecker::Clock& OrderChecker::Event::clock_of(uint64_t record) const {
  const uint64_t back = n_done - record;
  return clocks[back < clocks.size() ? clocks.size() - 1 - back : 0];
}

OrderChecker::Lane& OrderChecker::lane(uint32_t id) {
  while (lanes_.size() <= id) lanes_.emplace_back();
  return lanes_[id];
}

std::string OrderChecker::lane_name(uint32_t id) const {
  return id == kHost ? "the host" : "stream " + std::to_string(id - 1);
}

void OrderChecker::join(Clock& clock, const Clock& other) {
  if (clock.size() < other.size()) clock.resize(other.size());
  for (size_t i = 0; i < other.size(); ++i) clock[i] = std::max(clock[i], other[i]);
}

bool OrderChecker::covers(const Clock& clock, const Clock& other) {
  for (size_t i = 0; i < other.size(); ++i) {
    if (other[i] > (i < clock.size() ? clock[i] : 0)) return false;
  }
  return true;
}

uint64_t OrderChecker::tick(uint32_t id) {
  Clock& clock = lane(id).clock;
  if (clock.size() <= id) clock.resize(id + 1);
  return ++clock[id];
}

void OrderChecker::report(std::string finding) {
  ++n_findings_;
  if (findings_.size() < kMostFindings) findings_.push_back(std::move(finding));
}

// ---- memory ----

void OrderChecker::allocated(const std::byte* memory, size_t bytes) {
  const std::lock_guard lock(mutex_);
  live_[memory] = bytes;
  dead_.erase(memory);
  split(memory);
  split(memory + bytes);
  segments_.erase(segments_.lower_bound(memory), segments_.lower_bound(memory + bytes));
}

void OrderChecker::freed(const std::byte* memory) {
  const std::lock_guard lock(mutex_);
  const auto found = live_.find(memory);
  if (found == live_.end()) return;
  // Freeing comes after every use.
  tick(kHost);
  touch(kHost, {memory, found->second}, /*writes=*/true, {"freeing memory", -1});
  dead_[memory] = found->second;
  live_.erase(found);
}

void OrderChecker::pinned(const std::byte* memory, size_t bytes) {
  const std::lock_guard lock(mutex_);
  pinned_[memory] = bytes;
}

void OrderChecker::unpinned(const std::byte* memory) {
  const std::lock_guard lock(mutex_);
  pinned_.erase(memory);
}

bool OrderChecker::is_locked(const MemoryRange& range) const {
  const std::byte* const end = range.begin + range.bytes;
  const auto holds = [&](const std::pair<const std::byte* const, size_t>* memory) {
    return memory != nullptr && memory->first <= range.begin &&
           end <= memory->first + memory->second;
  };
  return holds(last_before(live_, end)) || holds(last_before(pinned_, end));
}

void OrderChecker::submit_copy(StreamId id, const MemoryRange& from, const MemoryRange& to,
                               bool captured) {
  const std::lock_guard lock(mutex_);
  if (from.bytes == 0 || (is_locked(from) && is_locked(to))) return;
  advance();
  if (captured || !stream(id).queue.empty()) {
    report("a copy of memory that is not page-locked " +
           std::string(captured ? "is captured"
                                : "waits for all that " + lane_name(static_cast<uint32_t>(id) + 1) +
                                      " waits for, and the host with it"));
  }
}

// Of the host's other memory nothing is known.
void OrderChecker::check_allocated(const MemoryRange& range, const Name& name) {
  const std::byte* const end = range.begin + range.bytes;
  const auto* live = range.bytes == 0 ? nullptr : last_before(live_, end);
  if (live != nullptr && range.begin < live->first + live->second) {
    const bool inside = live->first <= range.begin && end <= live->first + live->second;
    if (!inside) report(text_of(name) + " reaches beyond the memory that was allocated");
    return;
  }
  auto dead = dead_.upper_bound(range.begin);
  if (dead == dead_.begin()) return;
  --dead;
  if (range.begin < dead->first + dead->second)
    report(text_of(name) + " uses memory that was freed");
}

// Makes `at` a border.
void OrderChecker::split(const std::byte* at) {
  auto segment = segments_.upper_bound(at);
  if (segment == segments_.begin()) return;
  --segment;
  if (segment->first == at || segment->second.end <= at) return;
  Segment rest = segment->second;
  segment->second.end = at;
  segments_.emplace(at, std::move(rest));
}

void OrderChecker::touch(uint32_t id, const MemoryRange& range, bool writes, const Name& name) {
  check_allocated(range, name);
  const std::byte* const end = range.begin + range.bytes;
  split(range.begin);
  split(end);
  const Clock& clock = lane(id).clock;
  const Epoch epoch{id, clock[id], name};
  const std::byte* at = range.begin;
  for (auto segment = segments_.lower_bound(range.begin); at < end; ++segment) {
    const std::byte* const next = segment == segments_.end() ? end : std::min(segment->first, end);
    if (at < next) {  // bytes that nobody has touched yet
      segment = segments_.emplace_hint(segment, at, Segment{next, {}, {}});
    }
    touch_segment(segment->second, epoch, writes, clock);
    at = segment->second.end;
  }
}

void OrderChecker::touch_segment(Segment& segment, const Epoch& epoch, bool writes,
                                 const Clock& clock) {
  const auto ordered = [&](const Epoch& before) {
    return before.time == 0 || before.lane == epoch.lane ||
           (before.lane < clock.size() && clock[before.lane] >= before.time);
  };
  const auto conflict = [&](const Epoch& before, const char* verb) {
    report(text_of(epoch.name) + " on " + lane_name(epoch.lane) + (writes ? " writes" : " reads") +
           " what " + text_of(before.name) + " on " + lane_name(before.lane) + " " + verb +
           ": nothing orders them, " + lane_name(epoch.lane) + " has to wait for " +
           lane_name(before.lane));
  };
  if (!ordered(segment.write)) conflict(segment.write, "writes");
  if (!writes) {
    for (Epoch& read : segment.reads) {
      if (read.lane == epoch.lane) {
        read = epoch;
        return;
      }
    }
    segment.reads.push_back(epoch);
    return;
  }
  for (const Epoch& read : segment.reads) {
    if (!ordered(read)) conflict(read, "reads");
  }
  segment.write = epoch;
  segment.reads.clear();
}

// ---- streams ----

void OrderChecker::submit(StreamId id, Command command) {
  const std::lock_guard lock(mutex_);
  Queued queued{std::move(command), lane(kHost).clock, 0};
  if (queued.command.kind == Command::Kind::kRecord) {
    queued.count = ++events_[queued.command.index].n_submitted;
  } else if (queued.command.kind == Command::Kind::kWait) {
    queued.count = events_[queued.command.index].n_submitted;
  }
  stream(id).queue.push_back(std::move(queued));
  advance();
}

void OrderChecker::advance() {
  for (bool moved = true; moved;) {
    moved = false;
    for (uint32_t id = 1; id < lanes_.size(); ++id) {
      while (!lanes_[id].queue.empty() && step(id)) moved = true;
    }
  }
}

const OrderChecker::Set* OrderChecker::find_set(uint32_t flag, uint32_t value) const {
  const auto found = flags_.find(flag);
  if (found == flags_.end()) return nullptr;
  for (const Set& set : found->second) {
    if (set.value >= value) return &set;
  }
  return nullptr;
}

bool OrderChecker::step(uint32_t id) {
  Lane& here = lanes_[id];
  const Queued& queued = here.queue.front();
  const Command& command = queued.command;
  switch (command.kind) {
    case Command::Kind::kWait: {
      const Event& event = events_[command.index];
      if (event.n_done < queued.count) return false;
      if (queued.count > 0) join(here.clock, event.clock_of(queued.count));
      break;
    }
    case Command::Kind::kWaitFlag: {
      const Set* set = find_set(command.index, command.value);
      if (set == nullptr) return false;
      join(here.clock, set->clock);
      break;
    }
    default:
      break;
  }
  join(here.clock, queued.host);
  tick(id);
  if (command.kind == Command::Kind::kRecord) {
    Event& event = events_[command.index];
    event.n_done = queued.count;
    event.clocks.push_back(here.clock);
    if (event.clocks.size() > kMostRecords) event.clocks.pop_front();
  } else if (command.kind == Command::Kind::kSetFlag) {
    flags_[command.index].push_back({command.value, here.clock});
  } else if (command.kind == Command::Kind::kAccess) {
    for (const MemoryRange& range : command.reads) touch(id, range, false, command.name);
    for (const MemoryRange& range : command.writes) touch(id, range, true, command.name);
  }
  here.queue.pop_front();
  return true;
}

// ---- the host ----

void OrderChecker::host_access(std::span<const MemoryRange> reads,
                               std::span<const MemoryRange> writes, Name name) {
  const std::lock_guard lock(mutex_);
  tick(kHost);
  for (const MemoryRange& range : reads) touch(kHost, range, false, name);
  for (const MemoryRange& range : writes) touch(kHost, range, true, name);
}

void OrderChecker::host_set_flag(uint32_t flag, uint32_t value) {
  const std::lock_guard lock(mutex_);
  tick(kHost);
  flags_[flag].push_back({value, lane(kHost).clock});
  advance();
}

void OrderChecker::reset_flags() {
  const std::lock_guard lock(mutex_);
  for (uint32_t id = 1; id < lanes_.size(); ++id) {
    const bool uses_flags =
        std::any_of(lanes_[id].queue.begin(), lanes_[id].queue.end(), [](const Queued& q) {
          return q.command.kind == Command::Kind::kWaitFlag ||
                 q.command.kind == Command::Kind::kSetFlag;
        });
    if (uses_flags)
      report("flags are reset while " + lane_name(id) + " has work left that uses them");
  }
  for (const auto& [flag, sets] : flags_) {
    for (const Set& set : sets) {
      if (!covers(lane(kHost).clock, set.clock)) {
        report("flag " + std::to_string(flag) + " is reset beside its being set to " +
               std::to_string(set.value));
      }
    }
  }
  flags_.clear();
}

void OrderChecker::host_saw_flag(uint32_t flag, uint32_t value) {
  const std::lock_guard lock(mutex_);
  advance();
  const Set* set = find_set(flag, value);
  if (set == nullptr)
    return report("the host went on at a flag that nobody set to " + std::to_string(value));
  join(lane(kHost).clock, set->clock);
}

void OrderChecker::host_saw_event(uint32_t event) {
  const std::lock_guard lock(mutex_);
  advance();
  const Event& seen = events_[event];
  if (seen.n_done > 0) join(lane(kHost).clock, seen.clock_of(seen.n_done));
}

void OrderChecker::host_saw_stream(StreamId id) {
  const std::lock_guard lock(mutex_);
  advance();
  if (!stream(id).queue.empty()) report("the host went on past a stream that has work left");
  join(lane(kHost).clock, stream(id).clock);
}

Status OrderChecker::check(bool at_end) {
  const std::lock_guard lock(mutex_);
  advance();
  for (uint32_t id = 1; at_end && id < lanes_.size(); ++id) {
    if (!lanes_[id].queue.empty()) report(lane_name(id) + " waits for ever");
  }
  if (findings_.empty()) return ok_status();
  return internal_error(findings_.front() + " (" + std::to_string(n_findings_) + " such findings)");
}

}  // namespace tandem

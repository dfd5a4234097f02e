// What waits in a stream of the mirror device.  Private to it.
//
// Threading: a Stream's queue is written by the submitting thread and read by the stream's own; the words say how far.
// Ownership and errors: plain data.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "base/wait_word.h"
#include "device/device.h"
#include "device/mirror/command_queue.h"
#include "device/mirror/stream_clock.h"

namespace tandem::mirror {

// Twice as many are more than a step of the deepest models has.
inline constexpr uint32_t kBlockCommands = 8192;

struct Command {
  enum class Kind : uint8_t { kCopy, kFill, kOperation, kRecord, kWait, kSetFlag, kWaitFlag };
  Kind kind = Kind::kCopy;
  uint8_t value = 0;   // kFill
  uint32_t index = 0;  // of the event or flag
  uint32_t count = 0;  // of the event's records, or the flag's value
  std::byte* to = nullptr;
  const std::byte* from = nullptr;
  size_t bytes = 0;
  bool over_link = false, up = false;  // kCopy
  Operation operation;                 // addresses are those of the mirror's own threads
};

struct Event {
  uint32_t n_submitted = 0;  // records
  WaitWord done;             // records that have been executed
};

struct Stream {
  StreamId id{};
  std::string name;
  CommandQueue<Command, kBlockCommands> queue;
  uint32_t n_submitted = 0;  // the submitting thread's
  WaitWord submitted, executed;
  std::atomic<uint32_t> skipped{0};  // commands before this one may build on what failed
  // What its thread waits for; null: nothing.
  std::atomic<const WaitWord*> stands_at{nullptr};
  std::atomic<uint32_t> stands_for{0};
  StreamClock clock;
  std::vector<float> scratch;
  std::vector<Command>* capture = nullptr;  // null: what is submitted is done
  GraphId captured{};                       // the graph's number
  std::thread thread;
};

}  // namespace tandem::mirror

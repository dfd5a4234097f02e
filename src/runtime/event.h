// What a running request tells its consumer, and the queue between them.
//
// Threading: one producer (the engine's worker), one consumer at a time; both sides may wait.
// Ownership: an Event owns its text.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "text/tokenizer.h"

namespace tandem {

enum class EventKind : int { kNone = 0, kProgress = 1, kToken = 2, kDone = 3 };
enum class Finish : int {
  kNone = 0,
  kEnd = 1,
  kStop = 2,
  kLength = 3,
  kContext = 4,
  kCancelled = 5,
  kError = 6
};

struct Event {
  EventKind kind = EventKind::kNone;
  std::string text;
  TokenId token = -1;
  float log_probability = 0;
  Progress progress;
  // kDone:
  Finish finish = Finish::kNone;
  Status error;
  uint64_t n_prompt_tokens = 0, n_prompt_evaluated = 0, n_generated = 0, n_kept = 0;
  double prompt_seconds = 0, generate_seconds = 0;
  uint64_t seed = 0;
};

// A ring of fixed size; signals an eventfd while it holds events.  Pushing and popping reuse the ring's memory, so that
// a stream of tokens allocates nothing once it flows.
class EventQueue {
 public:
  static Result<std::unique_ptr<EventQueue>> create(size_t capacity);
  ~EventQueue();
  EventQueue(const EventQueue&) = delete;
  EventQueue& operator=(const EventQueue&) = delete;

  // One slot beyond the capacity is kept for the last event of a request.
  bool has_room(size_t n_events = 1) const;
  // Requires: has_room(), or the last event of a request that was submitted while there was room.
  void push(const Event& event);
  // The same without copying; `event` is left unspecified.
  void push_last(Event& event) noexcept;
  // Waits up to the time-out (negative: for ever) and gives the next event, keeping what was in `event` for reuse; false
  // when there is none.
  bool pop(std::chrono::milliseconds timeout, Event& event);
  // From interrupt() until resume() no pop() waits, not even one that waits already.
  void interrupt() { set_interrupted(true); }
  void resume() { set_interrupted(false); }
  int descriptor() const { return fd_; }
  // Called after each pop, from the consumer's thread.  Set before the queue is used.
  void set_on_room(std::function<void()> on_room) { on_room_ = std::move(on_room); }

 private:
  EventQueue(size_t capacity, int fd);
  void set_interrupted(bool interrupted);
  void announce_one() noexcept;  // requires mutex_

  const int fd_;
  std::function<void()> on_room_;
  mutable std::mutex mutex_;
  std::condition_variable filled_;
  std::vector<Event> ring_;  // guarded by mutex_, like all below
  size_t first_ = 0, size_ = 0;
  bool interrupted_ = false;
};

}  // namespace tandem

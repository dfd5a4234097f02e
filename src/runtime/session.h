// One conversation: its tokens, what they left in the KV cache, and the request that runs.
//
// Threading: one caller at a time (a second one gets kBusy); cancel(), next_event() and event_descriptor() beside any other call.
// Ownership: refers to its engine, which must outlive it.
// Errors: kBusy while a request runs; a request's own failure arrives as its last event.
#pragma once

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "runtime/engine.h"
#include "runtime/event.h"
#include "runtime/request.h"
#include "runtime/sampler.h"

namespace tandem {

struct SessionOptions {
  int64_t n_context = 0;     // 0: the engine's
  size_t queue_events = 256;
};

using EventCallback = std::function<void(const Event&)>;
// Gets the logits of token `index` of an evaluation; a result other than 0 stops.
using LogitsCallback = std::function<int(size_t index, std::span<const float> logits)>;

class Session {
 public:
  static Result<std::unique_ptr<Session>> create(Engine& engine, const SessionOptions& options);
  ~Session();

  Status submit(Request request);
  // Blocks until evaluated, cancelled or stopped by the callback (kCancelled).
  Status evaluate(std::vector<TokenId> tokens, LogitsCallback callback);
  void cancel();

  // Copies the next event, or sets kind kNone when the time-out (negative: none) passed.  kBusy while a callback is set.
  Status next_event(int timeout_ms, Event& event);
  int event_descriptor() const { return queue_->descriptor(); }
  Status set_callback(EventCallback callback);

  Result<std::vector<TokenId>> tokens() const;
  Status truncate(int64_t n_tokens);
  Result<std::unique_ptr<Session>> fork();
  Status save(const std::filesystem::path& path);
  Status load(const std::filesystem::path& path);

  Engine& engine() { return engine_; }
  int64_t n_context() const { return state_->capacity(); }
  int64_t n_tokens() const { return n_tokens_.load(std::memory_order_acquire); }
  uint64_t kv_bytes() const { return state_->reserved_bytes(); }

  // ---- for the engine's worker ----
  bool runnable() const;  // a request runs and its events find room
  void step();            // a prompt chunk, or one token

 private:
  struct Run;    // the request that runs
  class Claim;   // a caller inside the session
  explicit Session(Engine& engine, const SessionOptions& options);

  Status start(std::unique_ptr<Run> run);
  void deliver();
  void stop_delivery();

  // The parts of step(), for the engine's worker.
  Status run_phase();
  Status prepare();
  Status evaluate_chunk();
  Status give_logits(size_t n);
  void give_progress();
  Status generate();
  Status choose_token();
  void give_token(TokenId token, float log_probability);
  void finish(Finish finish, const Status& error);
  void hold(std::span<const TokenId> tokens);

  // Constant after create().
  Engine& engine_;
  SessionOptions options_;
  std::unique_ptr<EventQueue> queue_;
  std::unique_ptr<SequenceState> state_;

  std::atomic<bool> claimed_{false};   // a caller is inside
  std::atomic<bool> running_{false};   // a request runs
  std::atomic<int64_t> n_tokens_{0};   // tokens_.size(), for readers
  CancelFlag cancel_;

  // Belong to the caller that holds the claim, and to the worker while a request runs.
  std::vector<TokenId> tokens_;
  std::unique_ptr<Run> run_;
  Event event_;        // being filled; reused
  std::string bytes_;  // of the token being given; reused

  std::mutex ended_mutex_;
  std::condition_variable ended_;  // running_ became false

  EventCallback callback_;
  std::atomic<bool> delivering_{false};
  std::thread deliverer_;
};

}  // namespace tandem

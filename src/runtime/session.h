// One conversation: its tokens, what they left in the KV cache, and the request that runs.
//
// Threading: one caller at a time (a second one gets kBusy); cancel(), a Consumer and event_descriptor() beside any
// other call.  Text is rendered and tokenized on a thread of the session's own; logits are handed to the thread that waits
// in evaluate(), events to the consumer's or the callback's: the engine's worker only evaluates.
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
  int64_t n_context = 0;  // 0: the engine's
  size_t queue_events = 256;
};

using EventCallback = std::function<void(const Event&)>;
// Gets the logits of token `index` of an evaluation, on the thread that called evaluate(); a result other than 0 stops.
using LogitsCallback = std::function<int(size_t index, std::span<const float> logits)>;

class Session {
 public:
  static Result<std::unique_ptr<Session>> create(Engine& engine, const SessionOptions& options);
  // Ends what runs; a callback gets every event up to the last.  Not from this session's own callback.
  ~Session();

  Status submit(Request request);
  // Blocks until evaluated, cancelled or stopped by the callback (kCancelled; the session then holds the tokens up to
  // the one whose logits were given last).
  Status evaluate(std::vector<TokenId> tokens, LogitsCallback callback);
  void cancel();

  // Who takes events out of the queue; a second one beside it, or one while a callback is set, has status() kBusy.
  class Consumer {
   public:
    explicit Consumer(Session& session);
    ~Consumer();
    Consumer(const Consumer&) = delete;
    Consumer& operator=(const Consumer&) = delete;

    const Status& status() const { return status_; }
    // Copies the next event, or sets kind kNone when the time-out (negative: none) passed.  Requires: status() is ok.
    void next(int timeout_ms, Event& event);

   private:
    Session& session_;
    bool mine_;
    Status status_;
  };
  int event_descriptor() const { return queue_->descriptor(); }
  // kBusy while a request runs or a Consumer waits.  After an error no callback is set.
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
  uint64_t kv_touched_bytes() const { return state_->touched_bytes(); }

  // ---- for the engine ----
  bool runnable() const;  // a prepared request runs, and what it gives finds room
  bool ends_now() const;  // the next step() only ends a cancelled request
  void step() noexcept;   // a prompt chunk, or one token

 private:
  struct Run;             // the request that runs
  struct LogitsHandOver;  // of an evaluation
  class Claim;            // a caller inside the session
  Session(Engine& engine, const SessionOptions& options);

  Status start(std::unique_ptr<Run> run);
  void run_prepared();  // hands the prepared request to the engine
  void wait_until_ended();
  bool take_logits(const LogitsCallback& callback);
  Status start_delivery();
  void deliver() noexcept;
  void stop_delivery();

  // On the session's own thread, or the caller's for tokens.
  Status prepare();
  Status prepare_without_throwing() noexcept;

  // The parts of step(), for the engine's worker.
  Status run_phase() noexcept;
  Status evaluate_chunk();
  Status hand_logits_over(size_t n);
  void give_progress(double share) noexcept;
  Status generate();
  Status choose_token();
  void give_token(TokenId token, float log_probability);
  void finish(Finish finish, const Status& error) noexcept;
  void hold(std::span<const TokenId> tokens);  // adds
  void keep(int64_t n_tokens);                 // forgets all others

  // Constant after create().
  Engine& engine_;
  SessionOptions options_;
  std::unique_ptr<EventQueue> queue_;
  std::unique_ptr<SequenceState> state_;
  bool attached_ = false;  // to the engine

  std::atomic<bool> claimed_{false};   // a caller is inside
  std::atomic<bool> running_{false};   // a request runs
  std::atomic<bool> prepared_{false};  // ... and its prompt is known, or why there is none
  std::atomic<int64_t> n_tokens_{0};   // tokens_.size(), for readers
  CancelFlag cancel_;

  // Belong to the caller that holds the claim, and to the worker while a request runs.
  std::vector<TokenId> tokens_;
  std::unique_ptr<Run> run_;
  std::unique_ptr<LogitsHandOver> logits_;  // while an evaluation with a callback runs
  Event event_;                             // being filled; reused
  std::string bytes_;                       // of the token being given; reused
  std::thread preparer_;

  // Made beforehand, for when there is no memory to make them.
  const Status was_cancelled_ = cancelled("cancelled");
  const Status no_memory_ = out_of_memory("no memory left for this request");

  std::mutex changed_mutex_;
  std::condition_variable changed_;  // running_ became false, or logits_->full true

  std::atomic<bool> consuming_{false};  // a Consumer exists
  EventCallback callback_;
  std::atomic<bool> delivering_{false};
  std::thread deliverer_;
};

}  // namespace tandem

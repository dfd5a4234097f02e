// A model's weights in memory, the threads that compute, and the worker that serves its sessions in turn.
//
// Threading: any thread.
// Ownership: refers to the Model, which must outlive it; sessions refer to the engine.
// Errors: kOutOfMemory with bytes needed and available before anything is loaded, unless forced.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/log.h"
#include "base/progress.h"
#include "dispatch/executor.h"
#include "dispatch/step_recorder.h"
#include "dispatch/team.h"
#include "memory/block_store.h"
#include "memory/sequence_state.h"
#include "runtime/hybrid.h"
#include "runtime/model.h"

namespace tandem {

class Session;

struct EngineOptions {
  static constexpr int64_t kMostContext = int64_t{1} << 27;

  unsigned n_threads = 0;  // 0: one per physical core that may be used
  int64_t n_context = 0;   // 0: as trained, limited by free memory
  BlockStoreOptions store;
  KvType kv_type = KvType::kF16;
  bool force = false;
  HybridOptions hybrid;
  size_t trace_records = 0;  // newest ones kept of each lane; 0: nothing is measured
  ProgressCallback progress;
  const CancelFlag* cancel = nullptr;
  LogCallback log;
};

struct EngineInfo {
  unsigned n_threads = 0;
  int64_t n_context = 0;
  std::string isa, read_mode;
  std::string device;  // "" without a second processor
  std::string plan;    // "all in RAM", "12 of 16 layers on mirror"
  double load_seconds = 0;
  uint64_t bytes_per_token = 0;
};

struct TierReport {
  const char* name = "";  // static, or the engine's
  uint64_t free_bytes = 0, weight_bytes = 0, work_bytes = 0, huge_page_bytes = 0;
  uint64_t kv_bytes = 0;                                            // that sessions have touched
  uint64_t kv_reserved_bytes = 0;                                   // that they may come to take
  uint64_t n_expert_slots = 0, expert_hits = 0, expert_misses = 0;  // of the expert cache
  uint64_t budget_bytes = 0;                                        // 0: there is none
};

class Engine {
 public:
  static Result<std::unique_ptr<Engine>> create(const Model& model, EngineOptions options);
  ~Engine();  // Requires: its sessions are gone

  const Model& model() const { return model_; }
  const EngineInfo& info() const { return info_; }
  std::vector<TierReport> memory() const;
  // Of the device's, from the next step on; 0: as much as at first.  Any thread.
  // Errors: kInvalidArgument without a device.
  Status set_device_memory(uint64_t bytes);
  // What is in force, as a place file; "" without a device.
  std::string placement_json() const;
  // What steps took; null unless options asked for it.
  StepRecorder* recorder() const { return traces_ ? recorder_.get() : nullptr; }
  // The recorder's summary for people, with the expert cache's hit rate.  Requires: recorder().
  std::string trace_text() const;
  KvLayout kv_layout() const;
  uint64_t fingerprint() const { return fingerprint_; }  // fingerprint.h

  // ---- for sessions ----
  // Sessions with work stand in a ring; the worker calls Session::step() of each in turn.
  // Errors: kOutOfMemory when the KV cache of all sessions would not fit, unless forced.
  Status attach(Session* session);
  // May this much be taken beside what sessions were promised?  Errors: as attach().
  Status admit(const std::string& what, uint64_t bytes) const;
  void detach(Session* session);  // returns when the worker has left the session
  void wake();                    // something may have become runnable
  void wake_for(
      Session*
          session);  // the same, and ends a cancelled request though the worker is busy elsewhere
  // Of a session whose turn it is: fewer while others wait for theirs.  Worker only.
  size_t prompt_tokens_at_once(const Session& session) const;
  Executor& executor() { return *executor_; }  // to evaluate: the worker only

 private:
  explicit Engine(const Model& model) : model_(model) {}
  void serve();
  // Requires mutex_.
  Status check_room(const std::string& what, uint64_t bytes, uint64_t free_bytes) const;
  void note(const std::string& text) const;
  Status observe_device();

  // Constant after create().
  const Model& model_;
  EngineInfo info_;
  LogCallback log_;
  KvType kv_type_ = KvType::kF16;
  std::unique_ptr<BlockStore> store_;
  std::unique_ptr<Team> team_;
  // Outlives the device, which tells it.  For traces, and for prompts whose experts are split by predicted times.
  std::unique_ptr<StepRecorder> recorder_;
  bool traces_ = false;
  Hybrid hybrid_;
  std::unique_ptr<Executor> executor_;
  uint64_t work_bytes_ = 0;
  uint64_t first_device_budget_ = 0;
  uint64_t fingerprint_ = 0;
  bool force_ = false;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Session*> sessions_;  // guarded by mutex_
  Session* stepping_ = nullptr;     // guarded by mutex_: whom the worker is in
  bool woken_ = false;              // guarded by mutex_
  bool closing_ = false;            // guarded by mutex_
  std::thread worker_;
};

}  // namespace tandem

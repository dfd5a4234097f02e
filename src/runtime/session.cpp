#include "runtime/session.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/thread.h"
#include "runtime/session_run.h"

namespace tandem {

// A caller inside the session; a second one is refused.  The engine's worker takes no claim: it owns the session's
// contents exactly while running_ is set.
class Session::Claim {
 public:
  explicit Claim(const Session& session)
      : claimed_(const_cast<std::atomic<bool>&>(session.claimed_)),
        mine_(!claimed_.exchange(true)) {
    if (!mine_) {
      status_ = busy("another call of this session is running");
    } else if (session.running_.load(std::memory_order_acquire)) {
      status_ = busy("a request of this session is running")
                    .suggest("wait for its last event, or cancel it");
    }
  }
  ~Claim() {
    if (mine_) claimed_.store(false, std::memory_order_release);
  }
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;

  const Status& status() const { return status_; }

 private:
  std::atomic<bool>& claimed_;
  const bool mine_;
  Status status_;
};

Session::Session(Engine& engine, const SessionOptions& options)
    : engine_(engine), options_(options) {}

Result<std::unique_ptr<Session>> Session::create(Engine& engine, const SessionOptions& options) {
  std::unique_ptr<Session> session(new Session(engine, options));
  const int64_t n_context = options.n_context > 0 ? options.n_context : engine.info().n_context;
  if (n_context > engine.info().n_context) {
    return invalid_argument("n_context is " + std::to_string(n_context) +
                            ", the engine was created for at most " +
                            std::to_string(engine.info().n_context));
  }
  TANDEM_ASSIGN_OR_RETURN(session->queue_,
                          EventQueue::create(std::max<size_t>(1, options.queue_events)));
  TANDEM_ASSIGN_OR_RETURN(session->state_, SequenceState::create(engine.kv_layout(), n_context));
  engine.executor().adopt(*session->state_);
  session->tokens_.reserve(static_cast<size_t>(n_context));
  session->queue_->set_on_room([&engine] { engine.wake(); });
  TANDEM_RETURN_IF_ERROR(engine.attach(session.get()));
  session->attached_ = true;
  return session;
}

Session::~Session() {
  if (!attached_) return;  // create() failed
  // No request starts from here on, whatever a callback still tries.
  while (claimed_.exchange(true)) {
    cancel();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  cancel();
  // A step that had looked at the flag for the last time leaves the request to the worker's next one.
  wait_until_ended();
  if (preparer_.joinable()) preparer_.join();
  engine_.detach(this);
  stop_delivery();
}

Status Session::start(std::unique_ptr<Run> run) {
  if (!queue_->has_room()) return busy("events of earlier requests wait to be taken");
  if (preparer_.joinable()) preparer_.join();  // that of the request before has ended
  run_ = std::move(run);
  cancel_.reset();
  prepared_.store(false, std::memory_order_relaxed);
  if (run_->request.kind == Request::Kind::kTokens) {
    TANDEM_RETURN_IF_ERROR(prepare());
    running_.store(true, std::memory_order_release);
    run_prepared();
    return ok_status();
  }
  running_.store(true, std::memory_order_release);
  try {
    preparer_ = start_thread([this] {
      run_->status = prepare_without_throwing();
      run_prepared();
    });
  } catch (const std::system_error& error) {
    running_.store(false, std::memory_order_release);
    return status_from_errno(error.code().value(), "thread for a prompt");
  } catch (const std::bad_alloc&) {
    running_.store(false, std::memory_order_release);
    return no_memory_;
  }
  return ok_status();
}

void Session::run_prepared() {
  prepared_.store(true, std::memory_order_release);
  engine_.wake_for(this);
}

Status Session::submit(Request request) {
  const Claim claim(*this);
  TANDEM_RETURN_IF_ERROR(claim.status());
  TANDEM_RETURN_IF_ERROR(validate(request.sampling));
  if (std::any_of(request.stop.begin(), request.stop.end(),
                  [](const std::string& s) { return s.empty(); })) {
    return invalid_argument("a stop text is empty");
  }
  return start(std::make_unique<Run>(std::move(request), engine_.model()));
}

Status Session::evaluate(std::vector<TokenId> tokens, LogitsCallback callback) {
  const Claim claim(*this);
  TANDEM_RETURN_IF_ERROR(claim.status());
  Request request;
  request.tokens = std::move(tokens);
  auto run = std::make_unique<Run>(std::move(request), engine_.model());
  run->evaluate_only = true;
  const int64_t n_before = n_tokens();
  if (callback)
    logits_ = std::make_unique<LogitsHandOver>(engine_.model().program().shape.n_vocabulary);
  struct DropLogits {
    Session& session;
    ~DropLogits() {  // whatever happened, the request ends first
      if (session.running_.load(std::memory_order_acquire)) session.cancel();
      session.wait_until_ended();
      session.logits_.reset();
    }
  } const drop_logits{*this};
  TANDEM_RETURN_IF_ERROR(start(std::move(run)));
  if (callback && !take_logits(callback)) {
    const int64_t n_given = static_cast<int64_t>(logits_->first_index + logits_->n_rows);
    cancel();
    wait_until_ended();
    keep(std::min(n_tokens(), n_before + n_given));
    return cancelled("stopped by the callback");
  }
  wait_until_ended();
  return run_->status;
}

// Until the evaluation has ended.  False when the callback stopped it; n_rows then counts the rows that it got.
bool Session::take_logits(const LogitsCallback& callback) {
  LogitsHandOver& hand_over = *logits_;
  for (;;) {
    {
      std::unique_lock lock(changed_mutex_);
      changed_.wait(lock, [&] { return hand_over.full.load() || !running_.load(); });
    }
    if (!hand_over.full.load(std::memory_order_acquire)) return true;
    for (size_t i = 0; i < hand_over.n_rows; ++i) {
      const std::span<const float> row(hand_over.rows.data() + i * hand_over.width,
                                       hand_over.width);
      if (callback(hand_over.first_index + i, row) == 0) continue;
      hand_over.n_rows = i + 1;
      return false;
    }
    hand_over.full.store(false, std::memory_order_release);
    engine_.wake();
  }
}

void Session::cancel() {
  cancel_.cancel();
  engine_.wake_for(this);
}

void Session::wait_until_ended() {
  std::unique_lock lock(changed_mutex_);
  changed_.wait(lock, [this] { return !running_.load(std::memory_order_acquire); });
}

Session::Consumer::Consumer(Session& session)
    : session_(session), mine_(!session.consuming_.exchange(true)) {
  if (!mine_) {
    status_ = busy("another thread is waiting for this session's next event");
  } else if (session.delivering_.load()) {
    status_ = busy("events of this session go to its callback");
  }
}

Session::Consumer::~Consumer() {
  if (mine_) session_.consuming_.store(false);
}

void Session::Consumer::next(int timeout_ms, Event& event) {
  event.kind = EventKind::kNone;
  session_.queue_->pop(std::chrono::milliseconds(timeout_ms), event);
}

Status Session::set_callback(EventCallback callback) {
  const Claim claim(*this);
  TANDEM_RETURN_IF_ERROR(claim.status());
  if (deliverer_.get_id() == std::this_thread::get_id()) {
    return busy("a callback cannot replace itself while it is called");
  }
  stop_delivery();
  callback_ = std::move(callback);
  if (!callback_) return ok_status();
  // A Consumer looks at these two in the other order, so one of both sees the other.
  delivering_.store(true);
  Status status = consuming_.load() ? busy("a thread is waiting for this session's next event")
                                    : start_delivery();
  if (!status.ok()) {
    delivering_.store(false);
    callback_ = nullptr;
  }
  return status;
}

Status Session::start_delivery() {
  try {
    deliverer_ = start_thread([this] { deliver(); });
  } catch (const std::system_error& error) {
    return status_from_errno(error.code().value(), "thread for callbacks");
  } catch (const std::bad_alloc&) {
    return no_memory_;
  }
  return ok_status();
}

// Until it is told to end and nothing is left to deliver.  Takes no memory.
void Session::deliver() noexcept {
  Event event;
  for (;;) {
    if (queue_->pop(std::chrono::milliseconds(-1), event)) {
      callback_(event);
    } else if (!delivering_.load()) {
      return;
    }
  }
}

void Session::stop_delivery() {
  if (!deliverer_.joinable()) return;
  delivering_.store(false);
  queue_->interrupt();
  deliverer_.join();
  queue_->resume();
}

Result<std::vector<TokenId>> Session::tokens() const {
  const Claim claim(*this);
  if (!claim.status().ok()) return claim.status();
  return tokens_;
}

Status Session::truncate(int64_t n_tokens) {
  const Claim claim(*this);
  TANDEM_RETURN_IF_ERROR(claim.status());
  if (n_tokens < 0 || n_tokens > this->n_tokens()) {
    return invalid_argument("cannot keep " + std::to_string(n_tokens) +
                            " tokens, the session holds " + std::to_string(this->n_tokens()));
  }
  keep(n_tokens);
  return ok_status();
}

void Session::keep(int64_t n_tokens) {
  tokens_.resize(static_cast<size_t>(n_tokens));
  state_->truncate(n_tokens);
  n_tokens_.store(n_tokens, std::memory_order_release);
}

Result<std::unique_ptr<Session>> Session::fork() {
  const Claim claim(*this);
  if (!claim.status().ok()) return claim.status();
  SessionOptions options = options_;
  options.n_context = n_context();
  TANDEM_RETURN_IF_ERROR(state_->park());
  TANDEM_ASSIGN_OR_RETURN(std::unique_ptr<Session> copy, create(engine_, options));
  copy->state_->restore(state_->used(), state_->size());
  copy->hold(tokens_);
  return copy;
}

void Session::hold(std::span<const TokenId> tokens) {
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  n_tokens_.store(static_cast<int64_t>(tokens_.size()), std::memory_order_release);
}

Status Session::save(const std::filesystem::path& path) {
  const Claim claim(*this);
  TANDEM_RETURN_IF_ERROR(claim.status());
  TANDEM_RETURN_IF_ERROR(state_->park());
  state_->clear_unused();  // what was taken back stays out of the file
  return save_session_file(path, {engine_.fingerprint(), tokens_, *state_});
}

Status Session::load(const std::filesystem::path& path) {
  const Claim claim(*this);
  TANDEM_RETURN_IF_ERROR(claim.status());
  const Status status = load_session_file(path, engine_, tokens_, *state_);
  n_tokens_.store(static_cast<int64_t>(tokens_.size()), std::memory_order_release);
  return status;
}

}  // namespace tandem

#include "runtime/session.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "runtime/session_run.h"

namespace tandem {

// A caller inside the session; a second one is refused.  The engine's worker takes no claim: it owns the session's
// contents exactly while running_ is set.
class Session::Claim {
 public:
  explicit Claim(const Session& session)
      : claimed_(const_cast<std::atomic<bool>&>(session.claimed_)), mine_(!claimed_.exchange(true)) {
    if (!mine_) {
      status_ = busy("another call of this session is running");
    } else if (session.running_.load(std::memory_order_acquire)) {
      status_ = busy("a request of this session is running").suggest("wait for its last event, or cancel it");
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

Session::Session(Engine& engine, const SessionOptions& options) : engine_(engine), options_(options) {}

Result<std::unique_ptr<Session>> Session::create(Engine& engine, const SessionOptions& options) {
  std::unique_ptr<Session> session(new Session(engine, options));
  const int64_t n_context = options.n_context > 0 ? options.n_context : engine.info().n_context;
  if (n_context > engine.info().n_context) {
    return invalid_argument("n_context is " + std::to_string(n_context) + ", the engine was created for at most " +
                            std::to_string(engine.info().n_context));
  }
  TANDEM_ASSIGN_OR_RETURN(session->queue_, EventQueue::create(std::max<size_t>(1, options.queue_events)));
  TANDEM_ASSIGN_OR_RETURN(session->state_, SequenceState::create(engine.kv_layout(), n_context));
  session->tokens_.reserve(static_cast<size_t>(n_context));
  session->queue_->set_on_room([&engine] { engine.wake(); });
  engine.add_kv_bytes(static_cast<int64_t>(session->kv_bytes()));
  engine.attach(session.get());
  return session;
}

Session::~Session() {
  if (state_ == nullptr) return;  // create() failed
  cancel();
  engine_.detach(this);
  stop_delivery();
  engine_.add_kv_bytes(-static_cast<int64_t>(kv_bytes()));
}

Status Session::start(std::unique_ptr<Run> run) {
  if (!queue_->has_room()) return busy("events of earlier requests wait to be taken");
  run_ = std::move(run);
  cancel_.reset();
  running_.store(true, std::memory_order_release);
  engine_.wake();
  return ok_status();
}

Status Session::submit(Request request) {
  const Claim claim(*this);
  TANDEM_RETURN_IF_ERROR(claim.status());
  TANDEM_RETURN_IF_ERROR(validate(request.sampling));
  if (std::any_of(request.stop.begin(), request.stop.end(), [](const std::string& s) { return s.empty(); })) {
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
  run->on_logits = std::move(callback);
  TANDEM_RETURN_IF_ERROR(start(std::move(run)));
  std::unique_lock lock(ended_mutex_);
  ended_.wait(lock, [this] { return !running_.load(std::memory_order_acquire); });
  return run_->status;
}

void Session::cancel() {
  cancel_.cancel();
  engine_.wake();
}

Status Session::next_event(int timeout_ms, Event& event) {
  if (delivering_.load(std::memory_order_acquire)) return busy("events of this session go to its callback");
  event.kind = EventKind::kNone;
  queue_->pop(std::chrono::milliseconds(timeout_ms), event);
  return ok_status();
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
  delivering_.store(true, std::memory_order_release);
  try {
    deliverer_ = std::thread([this] { deliver(); });
  } catch (const std::system_error& error) {
    delivering_.store(false, std::memory_order_release);
    return status_from_errno(error.code().value(), "thread for callbacks");
  }
  return ok_status();
}

void Session::deliver() {
  Event event;
  while (delivering_.load(std::memory_order_acquire)) {
    if (queue_->pop(std::chrono::milliseconds(-1), event)) callback_(event);
  }
}

void Session::stop_delivery() {
  if (!deliverer_.joinable()) return;
  delivering_.store(false, std::memory_order_release);
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
    return invalid_argument("cannot keep " + std::to_string(n_tokens) + " tokens, the session holds " +
                            std::to_string(this->n_tokens()));
  }
  tokens_.resize(static_cast<size_t>(n_tokens));
  state_->truncate(n_tokens);
  n_tokens_.store(n_tokens, std::memory_order_release);
  return ok_status();
}

Result<std::unique_ptr<Session>> Session::fork() {
  const Claim claim(*this);
  if (!claim.status().ok()) return claim.status();
  SessionOptions options = options_;
  options.n_context = n_context();
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
  return save_session_file(path, {engine_.model().fingerprint(), tokens_, *state_});
}

Status Session::load(const std::filesystem::path& path) {
  const Claim claim(*this);
  TANDEM_RETURN_IF_ERROR(claim.status());
  const Status status = load_session_file(path, engine_.model(), tokens_, *state_);
  n_tokens_.store(static_cast<int64_t>(tokens_.size()), std::memory_order_release);
  return status;
}

}  // namespace tandem

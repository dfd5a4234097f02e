// How a request runs: the engine's worker calls step() until the request has ended.
#include <algorithm>
#include <cmath>
#include <exception>
#include <new>
#include <utility>

#include "runtime/prompt.h"
#include "runtime/session_run.h"

namespace tandem {

namespace {

// What evaluate() may hold beside the work buffers: a few dozen rows of the largest vocabularies.
constexpr size_t kLogitsBytes = 32 << 20;

// Branch-free, so that it costs next to nothing beside computing them.
bool all_finite(std::span<const float> values) {
  float sum = 0;
  for (const float value : values) sum += value * 0.0f;  // NaN for infinities and NaNs
  return sum == 0.0f;
}

Status damaged_weights(size_t token) {
  return corrupt("the model's output after token " + std::to_string(token) +
                 " is not a number; its weights are damaged");
}

}  // namespace

Session::LogitsHandOver::LogitsHandOver(int64_t n_vocabulary)
    : width(static_cast<size_t>(n_vocabulary)),
      max_rows(std::max<size_t>(1, kLogitsBytes / (width * sizeof(float)))) {}

bool Session::runnable() const {
  if (!running_.load(std::memory_order_acquire) || !prepared_.load(std::memory_order_acquire))
    return false;
  if (cancel_.cancelled()) return true;
  return queue_->has_room() &&
         (logits_ == nullptr || !logits_->full.load(std::memory_order_acquire));
}

bool Session::ends_now() const {
  return cancel_.cancelled() && running_.load(std::memory_order_acquire) &&
         prepared_.load(std::memory_order_acquire);
}

void Session::step() noexcept {
  if (cancel_.cancelled()) return finish(Finish::kCancelled, was_cancelled_);
  const Status status = run_->status.ok() ? run_phase() : run_->status;
  if (status.ok()) return;
  finish(status.code() == Code::kCancelled ? Finish::kCancelled : Finish::kError, status);
}

// The worker is one of our own threads: what the standard library throws ends the request, not the process.
Status Session::run_phase() noexcept try {
  switch (run_->phase) {
    case Run::Phase::kPrompt:
      return evaluate_chunk();
    case Run::Phase::kGenerate:
    case Run::Phase::kLastToken:
      return generate();
  }
  return ok_status();
} catch (const std::exception&) {  // nothing here throws but for want of memory
  return no_memory_;
}

Status Session::prepare_without_throwing() noexcept try {
  return prepare();
} catch (const std::exception&) {
  return no_memory_;
}

Status Session::prepare() {
  Run& run = *run_;
  TANDEM_ASSIGN_OR_RETURN(Prompt prompt,
                          make_prompt(engine_.model(), run.request, tokens_, n_context(), cancel_));
  keep(static_cast<int64_t>(prompt.n_kept));
  run.n_prompt_tokens = prompt.n_kept + prompt.pending.size();
  run.pending = std::move(prompt.pending);
  if (!run.evaluate_only) run.on_share = [this](double share) { give_progress(share); };
  return ok_status();
}

Status Session::evaluate_chunk() {
  Run& run = *run_;
  Executor& executor = engine_.executor();
  const size_t most = logits_ != nullptr ? logits_->max_rows : run.pending.size();
  run.n_chunk =
      std::min({run.pending.size() - run.n_done, engine_.prompt_tokens_at_once(*this), most});
  const std::span<const TokenId> chunk(run.pending.data() + run.n_done, run.n_chunk);
  const bool last = run.n_done + run.n_chunk == run.pending.size();
  TANDEM_RETURN_IF_ERROR(executor.forward(chunk, *state_, last && !run.evaluate_only, cancel_,
                                          run.on_share ? &run.on_share : nullptr));
  hold(chunk);
  if (logits_ != nullptr) TANDEM_RETURN_IF_ERROR(hand_logits_over(run.n_chunk));
  run.n_done += run.n_chunk;
  if (!last) return ok_status();
  run.prompt_seconds = seconds_since(run.started);
  if (run.evaluate_only) {
    finish(Finish::kEnd, ok_status());
    return ok_status();
  }
  return choose_token();
}

// The logits of the chunk that was just evaluated.  All of them at once: the next session's step overwrites the
// executor's activations.
Status Session::hand_logits_over(size_t n) {
  Executor& executor = engine_.executor();
  LogitsHandOver& to = *logits_;
  to.rows.resize(n * to.width);
  for (size_t first = 0; first < n;) {
    const size_t count = std::min(static_cast<size_t>(executor.max_outputs()), n - first);
    TANDEM_RETURN_IF_ERROR(
        executor.compute_logits(static_cast<int64_t>(first), static_cast<int64_t>(count), cancel_));
    for (size_t i = 0; i < count; ++i, ++first) {
      const std::span<const float> logits = executor.logits(static_cast<int64_t>(i));
      if (!all_finite(logits)) return damaged_weights(run_->n_done + first);
      std::ranges::copy(logits, to.rows.begin() + static_cast<ptrdiff_t>(first * to.width));
    }
  }
  to.n_rows = n;
  to.first_index = run_->n_done;
  {
    std::lock_guard lock(changed_mutex_);
    to.full.store(true, std::memory_order_release);
  }
  changed_.notify_all();
  return ok_status();
}

// `share` of the running chunk has been evaluated.  At most ten times a second, and at the end if ever before.
void Session::give_progress(double share) noexcept {
  Run& run = *run_;
  const double elapsed = seconds_since(run.started);
  const double done = static_cast<double>(run.n_done) + share * static_cast<double>(run.n_chunk);
  const double total = static_cast<double>(run.pending.size());
  const bool end = done >= total && elapsed > 0.1;
  // The token that the same step may give goes before progress.
  if ((elapsed < run.next_progress_seconds && !end) || !queue_->has_room(2)) return;
  run.next_progress_seconds = elapsed + 0.1;
  event_.kind = EventKind::kProgress;
  event_.text.clear();
  event_.progress = {Stage::kPrompt, static_cast<uint64_t>(done), run.pending.size(),
                     elapsed / done * (total - done)};
  queue_->push(event_);  // copies no text, so takes no memory
}

Status Session::generate() {
  Run& run = *run_;
  const bool want_more = run.phase == Run::Phase::kGenerate;
  if (state_->size() == state_->capacity()) {
    finish(want_more ? Finish::kContext : Finish::kLength, ok_status());
    return ok_status();
  }
  TANDEM_RETURN_IF_ERROR(engine_.executor().forward({&run.last, 1}, *state_, want_more, cancel_));
  hold({&run.last, 1});
  if (want_more) return choose_token();
  finish(Finish::kLength, ok_status());
  return ok_status();
}

Status Session::choose_token() {
  Run& run = *run_;
  const Sampler::Choice choice = run.sampler.sample(engine_.executor().last_logits(), tokens_);
  if (!std::isfinite(choice.log_probability)) {
    return damaged_weights(tokens_.size());
  }
  run.last = choice.token;
  if (!run.request.ignore_end && engine_.model().tokenizer().is_end_of_generation(choice.token)) {
    finish(Finish::kEnd, ok_status());
    return ok_status();
  }
  give_token(choice.token, choice.log_probability);
  return ok_status();
}

void Session::give_token(TokenId token, float log_probability) {
  Run& run = *run_;
  ++run.n_generated;
  bytes_.clear();
  engine_.model().tokenizer().append_bytes(token, /*with_special=*/false, bytes_);
  event_.kind = EventKind::kToken;
  event_.token = token;
  event_.log_probability = log_probability;
  event_.text.clear();
  const bool stopped = run.text.push(bytes_, event_.text);
  queue_->push(event_);
  if (stopped) return finish(Finish::kStop, ok_status());
  const bool enough = run.request.max_tokens > 0 && run.n_generated >= run.request.max_tokens;
  run.phase = enough ? Run::Phase::kLastToken : Run::Phase::kGenerate;
}

void Session::finish(Finish finish, const Status& error) noexcept {
  Run& run = *run_;
  Event done = std::move(run.done);
  done.finish = finish;
  if (finish == Finish::kError) done.error = error;
  try {
    if (finish != Finish::kStop) run.text.finish(done.text);
  } catch (const std::bad_alloc&) {
    // Without memory the few bytes that were withheld are lost.
  }
  done.n_prompt_tokens = run.n_prompt_tokens;
  done.n_prompt_evaluated = run.n_done;
  done.n_generated = run.n_generated;
  done.n_kept = static_cast<uint64_t>(state_->size());
  const double elapsed = seconds_since(run.started);
  done.prompt_seconds = run.prompt_seconds > 0 ? run.prompt_seconds : elapsed;
  done.generate_seconds = elapsed - done.prompt_seconds;
  done.seed = run.request.sampling.seed;
  run.status = error;
  const bool tell = !run.evaluate_only;
  {
    // From here on the session belongs to its caller again.
    std::lock_guard lock(changed_mutex_);
    running_.store(false, std::memory_order_release);
    changed_.notify_all();
  }
  if (tell) queue_->push_last(done);
}

}  // namespace tandem

// How a request runs: the engine's worker calls step() until the request has ended.
#include <algorithm>
#include <cmath>
#include <exception>
#include <new>
#include <utility>

#include "runtime/prompt.h"
#include "runtime/session_run.h"

namespace tandem {

bool Session::runnable() const {
  if (!running_.load(std::memory_order_acquire)) return false;
  return cancel_.cancelled() || queue_->has_room();
}

void Session::step() {
  if (cancel_.cancelled()) return finish(Finish::kCancelled, cancelled("cancelled"));
  const Status status = run_phase();
  if (status.ok()) return;
  finish(status.code() == Code::kCancelled ? Finish::kCancelled : Finish::kError, status);
}

// The worker is one of our own threads: what the standard library throws ends the request, not the process.
Status Session::run_phase() try {
  switch (run_->phase) {
    case Run::Phase::kPrepare:
      return prepare();
    case Run::Phase::kPrompt:
      return evaluate_chunk();
    case Run::Phase::kGenerate:
    case Run::Phase::kLastToken:
      return generate();
  }
  return internal_error("unknown phase");
} catch (const std::bad_alloc&) {
  return out_of_memory("no memory left for this request");
} catch (const std::exception& error) {
  return internal_error(error.what());
}

Status Session::prepare() {
  Run& run = *run_;
  TANDEM_ASSIGN_OR_RETURN(Prompt prompt, make_prompt(engine_.model(), run.request, tokens_));
  const uint64_t total = prompt.n_kept + prompt.pending.size();
  if (total > static_cast<uint64_t>(n_context())) {
    return invalid_argument("the prompt has " + std::to_string(total) + " tokens, the context " +
                            std::to_string(n_context()))
        .suggest("use a larger context or a shorter prompt");
  }
  tokens_.resize(prompt.n_kept);
  state_->truncate(static_cast<int64_t>(prompt.n_kept));
  n_tokens_.store(state_->size(), std::memory_order_release);
  run.pending = std::move(prompt.pending);
  run.n_prompt_tokens = total;
  run.phase = Run::Phase::kPrompt;
  return ok_status();
}

Status Session::evaluate_chunk() {
  Run& run = *run_;
  Executor& executor = engine_.executor();
  const size_t n = std::min(run.pending.size() - run.n_done, static_cast<size_t>(executor.max_tokens()));
  const std::span<const TokenId> chunk(run.pending.data() + run.n_done, n);
  const bool last = run.n_done + n == run.pending.size();
  TANDEM_RETURN_IF_ERROR(executor.forward(chunk, *state_, last && !run.evaluate_only, cancel_));
  hold(chunk);
  if (run.on_logits) TANDEM_RETURN_IF_ERROR(give_logits(n));
  run.n_done += n;
  if (!last) {
    give_progress();
    return ok_status();
  }
  run.prompt_seconds = seconds_since(run.started);
  if (run.evaluate_only) {
    finish(Finish::kEnd, ok_status());
    return ok_status();
  }
  return choose_token();
}

// The logits of the chunk that was just evaluated, a few rows at a time.
Status Session::give_logits(size_t n) {
  Executor& executor = engine_.executor();
  const int64_t rows = executor.max_outputs();
  for (int64_t first = 0; first < static_cast<int64_t>(n); first += rows) {
    const int64_t count = n == 1 ? 1 : std::min(rows, static_cast<int64_t>(n) - first);
    TANDEM_RETURN_IF_ERROR(executor.compute_logits(first, count, cancel_));
    for (int64_t i = 0; i < count; ++i) {
      const size_t index = run_->n_done + static_cast<size_t>(first + i);
      if (run_->on_logits(index, executor.logits(i)) != 0) return cancelled("stopped by the callback");
    }
  }
  return ok_status();
}

void Session::give_progress() {
  Run& run = *run_;
  if (run.evaluate_only || !queue_->has_room()) return;
  const double elapsed = seconds_since(run.started);
  if (elapsed < run.next_progress_seconds) return;
  run.next_progress_seconds = elapsed + 0.1;
  event_ = Event{};
  event_.kind = EventKind::kProgress;
  const double left = static_cast<double>(run.pending.size() - run.n_done);
  event_.progress = {Stage::kPrompt, run.n_done, run.pending.size(),
                     elapsed / static_cast<double>(run.n_done) * left};
  queue_->push(event_);
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
    return corrupt("the model's output after token " + std::to_string(tokens_.size()) +
                   " is not a number; its weights are damaged");
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

void Session::finish(Finish finish, const Status& error) {
  Run& run = *run_;
  Event done;
  done.kind = EventKind::kDone;
  done.finish = finish;
  if (finish == Finish::kError) done.error = error;
  if (finish != Finish::kStop) run.text.finish(done.text);
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
    std::lock_guard lock(ended_mutex_);
    running_.store(false, std::memory_order_release);
    ended_.notify_all();
  }
  if (tell) queue_->push(done);
}

}  // namespace tandem

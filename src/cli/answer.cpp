#include "answer.h"

#include <poll.h>

#include <cerrno>

#include "interrupts.h"
#include "numbers.h"
#include "progress_bar.h"

namespace tandem::cli {
namespace {

double rate_of(uint64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

// Waits until an event is there, or an interrupt that has not been acted on yet.
void wait(int event_fd, bool watch_interrupts) {
  pollfd watched[2] = {{event_fd, POLLIN, 0}, {interrupts::fd(), POLLIN, 0}};
  ::poll(watched, watch_interrupts ? 2 : 1, -1);
}

void take_done(const api::Event& event, Answer& answer) {
  answer.finish = event.finish;
  if (event.error != nullptr) answer.error = api::Error::copy_of(event.error, event.error->code);
  answer.n_prompt_tokens = event.n_prompt_tokens;
  answer.n_prompt_evaluated = event.n_prompt_evaluated;
  answer.n_generated = event.n_generated;
  answer.n_kept = event.n_kept;
  answer.prompt_seconds = event.prompt_seconds;
  answer.generate_seconds = event.generate_seconds;
  answer.seed = event.seed;
}

Answer failed(const api::Error& error) {
  Answer answer;
  answer.finish = TANDEM_FINISH_ERROR;
  answer.error = error;
  return answer;
}

}  // namespace

double Answer::prompt_tokens_per_s() const { return rate_of(n_prompt_evaluated, prompt_seconds); }
std::optional<double> Answer::decode_tokens_per_s() const {
  if (n_generated < 2 || generate_seconds <= 0) return std::nullopt;
  return rate_of(n_generated, generate_seconds);
}

Answer receive(Console& console, api::Session& session, bool stream) {
  const auto event_fd = session.event_fd();
  if (!event_fd) return failed(event_fd.error());
  Answer answer;
  ProgressBar bar(console, "reading the prompt", ProgressBar::Unit::kTokens);
  bool cancelled = false;
  while (true) {
    const bool stop = interrupts::pending() || !console.out_works();
    if (stop && !cancelled) {
      session.cancel();
      cancelled = true;
    }
    const auto event = session.next_event(0);
    if (!event) return failed(event.error());
    if (event->kind == TANDEM_EVENT_NONE) {
      wait(*event_fd, !cancelled);
      continue;
    }
    if (event->kind == TANDEM_EVENT_PROGRESS) {
      bar.update(event->progress->done, event->progress->total, event->progress->eta_seconds);
      continue;
    }
    bar.clear();
    const std::string_view text = api::text_of(*event);
    answer.text += text;
    if (stream && !text.empty()) console.answer(text);
    if (event->kind == TANDEM_EVENT_TOKEN) answer.tokens.push_back(event->token);
    if (event->kind == TANDEM_EVENT_DONE) {
      take_done(*event, answer);
      return answer;
    }
  }
}

std::string summary_of(const Answer& answer, uint32_t n_context) {
  std::string text = std::to_string(answer.n_generated) + " tok";
  if (answer.prompt_tokens_per_s() > 0) {
    text += ", prompt " + std::to_string(answer.n_prompt_evaluated) + " tok at " +
            format_rate(answer.prompt_tokens_per_s()) + " tok/s";
  }
  if (const auto rate = answer.decode_tokens_per_s()) {
    text += ", decode " + format_rate(*rate) + " tok/s";
  }
  return text + ", context " + std::to_string(answer.n_kept) + "/" + std::to_string(n_context);
}

const char* finish_name(tandem_finish finish) {
  switch (finish) {
    case TANDEM_FINISH_NONE:
      return "none";
    case TANDEM_FINISH_END:
      return "end";
    case TANDEM_FINISH_STOP:
      return "stop";
    case TANDEM_FINISH_LENGTH:
      return "length";
    case TANDEM_FINISH_CONTEXT:
      return "context";
    case TANDEM_FINISH_CANCELLED:
      return "cancelled";
    case TANDEM_FINISH_ERROR:
      return "error";
  }
  return "unknown";
}

}  // namespace tandem::cli

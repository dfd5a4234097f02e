#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "input.h"
#include "interrupts.h"
#include "loading.h"
#include "progress_bar.h"

namespace tandem::cli {
namespace {

struct PerplexityFlags {
  LoadFlags load;
  std::string file;
  uint32_t stride = 0;
  bool json = false;
};

// The text, cut for a context of fixed length. Every token but those without anything before them
// is predicted exactly once. A window is an optional BOS and tokens [begin, end); those from
// `scored` on count.
struct Window {
  size_t begin, scored, end;
};

struct WindowScore {
  double nats = 0;
  size_t n_tokens = 0, n_characters = 0;
};

// A window begins with the BOS token where the model wants one, else with a token that the window
// before has scored. With a stride below what a window holds, windows overlap and each scores only
// its last `stride` tokens.
std::vector<Window> windows_over(size_t n_tokens, size_t n_context, bool with_bos, size_t stride) {
  const size_t room = n_context - (with_bos ? 1 : 0);
  const size_t least_before = with_bos ? 0 : 1;
  const size_t step = stride == 0 ? room - least_before : std::min(stride, room - least_before);
  std::vector<Window> windows;
  size_t scored = least_before;
  while (scored < n_tokens) {
    // The first window has nothing before it and scores all it holds.
    const size_t end = std::min(n_tokens, windows.empty() ? room : scored + step);
    windows.push_back({end > room ? end - room : 0, scored, end});
    if (stride == 0) windows.back().begin = scored - least_before;
    scored = end;
  }
  return windows;
}

size_t count_characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

// -log p(token)
double nats_of(std::span<const float> logits, int32_t token) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit - largest));
  return std::log(sum) - static_cast<double>(logits[static_cast<size_t>(token)] - largest);
}

class Measurement {
 public:
  // `name` is what messages call the text.
  Measurement(Console& console, Loaded& loaded, std::string text, std::string name)
      : console_(console), loaded_(loaded), text_(std::move(text)), name_(std::move(name)) {}

  int run(const PerplexityFlags& flags);

 private:
  bool prepare(int& code);
  api::Expected<> score(api::Session& session, const Window& window, ProgressBar& bar);
  int report(bool json) const;
  double standard_error(bool per_character) const;

  Console& console_;
  Loaded& loaded_;
  std::string text_, name_;
  std::vector<int32_t> tokens_;
  std::optional<int32_t> bos_;
  size_t n_context_ = 0, stride_ = 0;
  size_t n_inputs_ = 0, n_done_ = 0;  // tokens to evaluate
  std::vector<WindowScore> scores_;
};

bool Measurement::prepare(int& code) {
  api::Cancel cancel;
  const interrupts::CancelOnInterrupt cancelled(cancel);
  auto tokens = loaded_.model.tokenize(text_, false, false, &cancel);
  // What the model wants around a text shows on a short one: a first token that is not the text's
  // is BOS.
  const auto bare = loaded_.model.tokenize("a", false, false);
  const auto wrapped = loaded_.model.tokenize("a", true, false);
  if (!tokens || !bare || !wrapped) {
    code = console_.fail(!tokens ? tokens.error() : !bare ? bare.error() : wrapped.error());
    return false;
  }
  tokens_ = std::move(*tokens);
  if (!wrapped->empty() && !bare->empty() && wrapped->front() != bare->front())
    bos_ = wrapped->front();
  if (tokens_.size() < 2) {
    console_.error(name_ + ": the text is " + std::to_string(tokens_.size()) +
                   " tokens long; at least 2 are needed.");
    code = kExitFailure;
    return false;
  }
  return true;
}

api::Expected<> Measurement::score(api::Session& session, const Window& window, ProgressBar& bar) {
  const auto forgotten = session.truncate(0);
  if (!forgotten) return forgotten.error();
  std::vector<int32_t> input;
  if (bos_) input.push_back(*bos_);
  // The last token is predicted, never read.
  for (size_t i = window.begin; i + 1 < window.end; ++i) input.push_back(tokens_[i]);
  WindowScore score;
  const size_t first = window.begin + (bos_ ? 0 : 1);  // what the first row of logits predicts
  const auto done = session.evaluate(input, [&](size_t index, std::span<const float> logits) {
    const size_t predicted = first + index;
    if (predicted >= window.scored && predicted < window.end) {
      score.nats += nats_of(logits, tokens_[predicted]);
      ++score.n_tokens;
    }
    bar.update(++n_done_, n_inputs_);
    return !interrupts::pending();
  });
  if (!done) return done;
  const auto text = loaded_.model.detokenize(
      std::span(tokens_).subspan(window.scored, window.end - window.scored), true);
  if (!text) return text.error();
  score.n_characters = count_characters(*text);
  scores_.push_back(score);
  return api::Nothing{};
}

int Measurement::run(const PerplexityFlags& flags) {
  int code = kExitOk;
  if (!prepare(code)) return code;
  n_context_ = loaded_.engine_info.n_context;
  stride_ = flags.stride;
  if (n_context_ < 3) {
    console_.error("a context of " + std::to_string(n_context_) +
                   " tokens is too short to predict from.");
    return kExitFailure;
  }
  auto session = api::Session::create(loaded_.engine);
  if (!session) return console_.fail(session.error());
  const auto windows = windows_over(tokens_.size(), n_context_, bos_.has_value(), stride_);
  for (const Window& window : windows) n_inputs_ += window.end - window.begin - (bos_ ? 0 : 1);
  ProgressBar bar(console_, "reading", ProgressBar::Unit::kTokens);
  const interrupts::ActOnInterrupt cancel([&session] { session->cancel(); });
  for (const Window& window : windows) {
    const auto done = score(*session, window, bar);
    if (interrupts::pending()) {
      bar.clear();
      console_.line("interrupted: " + std::to_string(scores_.size()) + " of " +
                    std::to_string(windows.size()) + " windows were read; no result.");
      return kExitInterrupted;
    }
    if (!done) return console_.fail(done.error());
  }
  bar.clear();
  return report(flags.json);
}

// Of the mean, from how much the windows differ. 0 when there is one window.
double Measurement::standard_error(bool per_character) const {
  double nats = 0, weight = 0;
  const auto weight_of = [&](const WindowScore& score) {
    return static_cast<double>(per_character ? score.n_characters : score.n_tokens);
  };
  for (const WindowScore& score : scores_) {
    nats += score.nats;
    weight += weight_of(score);
  }
  if (scores_.size() < 2 || weight <= 0) return 0;
  const double mean = nats / weight;
  double squares = 0;
  for (const WindowScore& score : scores_) {
    const double difference = score.nats - mean * weight_of(score);
    squares += difference * difference;
  }
  const auto n = static_cast<double>(scores_.size());
  return std::sqrt(squares * n / (n - 1)) / weight;
}

int Measurement::report(bool json) const {
  WindowScore all;
  for (const WindowScore& score : scores_) {
    all.nats += score.nats;
    all.n_tokens += score.n_tokens;
    all.n_characters += score.n_characters;
  }
  const double per_token = all.nats / static_cast<double>(all.n_tokens);
  const double per_character =
      all.n_characters > 0 ? all.nats / static_cast<double>(all.n_characters) : NAN;
  const std::string method = (stride_ == 0 ? std::string("non-overlapping windows")
                                           : "windows that advance by " + std::to_string(stride_)) +
                             " of " + std::to_string(n_context_) + " tokens, each beginning with " +
                             (bos_           ? "BOS"
                              : stride_ == 0 ? "the last token of the one before"
                                             : "tokens of the one before");
  if (json) {
    const nlohmann::ordered_json object = {
        {"nats_per_token", per_token},
        {"nats_per_token_standard_error", standard_error(false)},
        {"perplexity", std::exp(per_token)},
        {"nats_per_character", per_character},
        {"nats_per_character_standard_error", standard_error(true)},
        {"nats", all.nats},
        {"tokens", tokens_.size()},
        {"scored_tokens", all.n_tokens},
        {"scored_characters", all.n_characters},
        {"windows", scores_.size()},
        {"context", n_context_},
        {"stride", stride_},
        {"bos", bos_.has_value()},
        {"method", method}};
    console_.out(object.dump() + "\n");
    return kExitOk;
  }
  const auto with_error = [](double value, double error) {
    return format_fixed(value, 4) + (error > 0 ? " +- " + format_fixed(error, 4) : "");
  };
  console_.out("perplexity          " + format_fixed(std::exp(per_token), 4) + "\n");
  console_.out("nats per token      " + with_error(per_token, standard_error(false)) + "\n");
  console_.out("nats per character  " + with_error(per_character, standard_error(true)) + "\n");
  console_.out("scored              " + std::to_string(all.n_tokens) + " of " +
               std::to_string(tokens_.size()) + " tokens, " + std::to_string(all.n_characters) +
               " characters, " + std::to_string(scores_.size()) + " windows\n");
  console_.out("method              " + method + "\n");
  return kExitOk;
}

}  // namespace

int run_perplexity(Console& console, const Arguments& arguments) {
  PerplexityFlags flags;
  CommandLine line("perplexity",
                   "How well a model predicts a text: nats per token and per character (Unicode "
                   "code point), with the\n"
                   "standard error that the differences between windows give.",
                   "tandem perplexity model.gguf -f text.txt\ntandem perplexity model.gguf -f "
                   "text.txt -c 512 --stride 256",
                   "MODEL -f FILE");
  line.group("Text");
  line.text("-f,--file", flags.file, "FILE", "the text, - for standard input");
  line.whole("--stride", flags.stride, 0, 1 << 30,
             "windows advance by this many tokens and overlap; 0: they do not overlap");
  line.group("Output");
  line.flag("--json", flags.json, "as a JSON object");
  flags.load.add_to(line);
  if (const auto code = line.parse(console, arguments)) return *code;
  const auto path = line.take_model(console, flags.load.model);
  if (!path || !line.all_taken(console)) return kExitUsage;
  if (flags.file.empty())
    return line.usage_error(console, "no text given.", "tandem perplexity MODEL -f FILE");

  std::string error;
  auto text = read_all(flags.file, error);
  if (!text) {
    if (interrupts::pending()) return kExitInterrupted;
    console.error(error);
    return kExitFailure;
  }
  int code = kExitOk;
  if (flags.load.n_context == 0) {
    constexpr uint32_t kUsualWindow = 2048;
    const auto model = open_model(console, *path, code);
    if (!model) return code;
    const auto info = model->info();
    if (!info) return console.fail(info.error());
    flags.load.n_context = std::min(info->n_context_trained, kUsualWindow);
  }
  auto loaded = load(console, *path, flags.load, code);
  if (!loaded) return code;
  return Measurement(console, *loaded, std::move(*text),
                     flags.file == "-" ? "standard input" : flags.file)
      .run(flags);
}

}  // namespace tandem::cli

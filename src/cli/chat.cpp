#include "chat.h"

#include <algorithm>

#include "commands.h"
#include "interrupts.h"

namespace tandem::cli {
namespace {

// A context that is smaller is a surprise unless somebody says so.
constexpr uint32_t kUsualContext = 8192;

struct ChatFlags {
  LoadFlags load;
  SamplingFlags sampling;
  std::string system;
  std::vector<std::string> stop;
  uint32_t n_predict = 0;

  void add_to(CommandLine& line) {
    line.group("Answer");
    line.text("--system", system, "TEXT", "the system message");
    line.whole("-n,--predict,--n-predict", n_predict, 0, UINT32_MAX,
               "most tokens of an answer, 0: until it ends");
    line.texts("--stop", stop, "TEXT", "an answer ends before this text; may be repeated");
    sampling.add_to(line);
    load.add_to(line);
    load.add_trace_to(line);
  }
};

std::string upper(std::string text) {
  for (char& c : text) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return text;
}

std::string heading(std::string name) {
  name.resize(std::max<size_t>(12, name.size() + 2), ' ');
  return name;
}

// The model that comes with tandem answers in verse and knows nothing: say so before somebody
// wonders.
void say_that_it_is_a_toy(Console& console, const tandem_model_info& model) {
  if (std::string_view(model.name) != "tiny-verse") return;
  console.line("tiny-verse " + format_bytes(model.file_bytes) +
               ", a toy trained on Shakespeare. Open a real model:  tandem chat FILE.gguf");
}

std::string model_line(const tandem_model_info& model, uint64_t weight_bytes) {
  std::string text = heading(model.name) + upper(model.type_name) + ", " +
                     format_count(model.n_parameters) + " parameters";
  if (model.n_active_parameters != model.n_parameters) {
    text += " (" + format_count(model.n_active_parameters) + " active)";
  }
  return text + ", " + format_bytes(weight_bytes) + " in RAM";
}

std::string context_line(const tandem_model_info& model, uint32_t n_context, uint64_t seed) {
  std::string text = "context     " + std::to_string(n_context) + " tokens";
  if (n_context != model.n_context_trained) {
    text += " (trained on " + std::to_string(model.n_context_trained) + ")";
  } else if (n_context < kUsualContext) {
    text += " (few, but all that it was trained on)";
  }
  return text + ", seed " + std::to_string(seed);
}

void introduce(Console& console, const Loaded& loaded, uint32_t n_context, uint64_t seed) {
  const tandem_model_info& model = loaded.model_info;
  const auto tiers = loaded.engine.memory();
  const uint64_t weight_bytes =
      tiers && !tiers->empty() ? tiers->front().weight_bytes : model.weight_bytes;
  say_that_it_is_a_toy(console, model);
  console.line(model_line(model, weight_bytes));
  const uint32_t n_threads = loaded.engine_info.n_threads;
  console.line("plan        " + std::string(loaded.engine_info.plan) + ", " +
               std::to_string(n_threads) + (n_threads == 1 ? " thread, " : " threads, ") +
               loaded.engine_info.isa);
  console.line(context_line(model, n_context, seed));
  for (const std::string& note : loaded.notes) console.note(note);
  if (console.in_is_terminal())
    console.dim_line("/help lists the commands; Ctrl-C stops an answer, Ctrl-D ends.");
}

}  // namespace

Chat::Chat(Console& console, Loaded& loaded, api::Session session, api::AnswerOptions options,
           std::string system)
    : console_(console),
      loaded_(loaded),
      session_(std::move(session)),
      options_(std::move(options)) {
  conversation_.system = std::move(system);
  next_seed_ = options_.sampling->seed;
  const auto info = session_.info();
  n_context_ = info ? info->n_context : loaded_.engine_info.n_context;
}

int Chat::run(LineReader& reader) {
  introduce(console_, loaded_, n_context_, next_seed_);
  bool interrupted_before = false;
  while (!quit_ && console_.out_works() && interrupts::end_signal() == 0) {
    std::string message;
    const auto outcome = read_message(reader, message);
    if (outcome == LineReader::Outcome::kEnd) break;
    if (outcome == LineReader::Outcome::kInterrupted) {
      interrupts::clear();
      if (!console_.in_is_terminal()) return kExitInterrupted;
      if (!message.empty()) continue;  // it has cleared what was typed
      if (interrupted_before) return kExitInterrupted;
      interrupted_before = true;
      console_.dim_line("Ctrl-C again or Ctrl-D ends.");
      continue;
    }
    interrupted_before = false;
    if (message.find_first_not_of(" \t\r\n") == std::string::npos) continue;
    reader.remember(message);
    take(message);
  }
  // In a pipe somebody looks at the exit code; a person has seen the error.
  return failed_ && !console_.in_is_terminal() ? kExitFailure : kExitOk;
}

void Chat::take(const std::string& message) {
  if (message.find('\0') != std::string::npos) {
    failed_ = true;
    return console_.error("the message holds a zero byte: it is not a text, and was not sent.");
  }
  if (message.starts_with("//")) {
    conversation_.turns.push_back({"user", message.substr(1)});
  } else if (message.starts_with("/")) {
    return obey(message);
  } else {
    conversation_.turns.push_back({"user", message});
  }
  answer();
}

void Chat::failed(const api::Error& error) {
  console_.fail(error);
  failed_ = true;
}

// Requires: the last turn is the user's.
void Chat::answer() {
  options_.sampling->seed = next_seed_++;
  const auto submitted = session_.submit(conversation_.messages(), options_);
  if (!submitted) {
    conversation_.turns.pop_back();
    return failed(submitted.error());
  }
  const Answer answer = receive(console_, session_, true);
  if (!answer.text.empty() && !answer.text.ends_with("\n")) console_.out("\n");
  keep(answer);
}

void Chat::keep(const Answer& answer) {
  const bool cancelled = answer.finish == TANDEM_FINISH_CANCELLED;
  if (cancelled) interrupts::clear();
  if (answer.finish == TANDEM_FINISH_ERROR) failed(answer.error);
  const bool unfinished = cancelled || answer.finish == TANDEM_FINISH_ERROR;
  if (unfinished && answer.text.empty()) {
    conversation_.turns.pop_back();
    if (cancelled)
      console_.dim_line("  stopped before the answer began; the message is taken back");
    return;
  }
  conversation_.turns.push_back({"assistant", answer.text});
  if (answer.finish == TANDEM_FINISH_CONTEXT) {
    console_.note("the context of " + std::to_string(n_context_) +
                  " tokens is full: the answer stops here.\n/undo takes the last turn back, /reset "
                  "starts over, "
                  "--ctx N opens a larger one.");
  }
  if (answer.finish == TANDEM_FINISH_LENGTH)
    console_.note("stopped after " + std::to_string(answer.n_generated) + " tokens, as -n asked.");
  console_.dim_line("  " + std::string(cancelled ? "stopped, " : "") +
                    summary_of(answer, n_context_));
}

int run_chat(Console& console, const Arguments& arguments) {
  ChatFlags flags;
  CommandLine line("chat",
                   "Talk with a model; without MODEL, with the small one that comes with tandem. "
                   "From a pipe, every\n"
                   "line is one turn. At the prompt, /help lists the commands; a backslash at the "
                   "end of a line or a\n"
                   "block in \"\"\" makes a message of several lines.",
                   "tandem chat\ntandem chat model.gguf --system \"Answer in one sentence.\"",
                   "[MODEL]");
  flags.add_to(line);
  if (const auto code = line.parse(console, arguments)) return *code;
  std::string path = flags.load.model;
  if (path.empty()) path = line.take_positional().value_or("");
  if (!line.all_taken(console)) return kExitUsage;
  if (path.empty()) path = bundled_model();
  if (path.empty()) {
    console.error("no model given, and the one that comes with tandem was not found.",
                  "Open one with  tandem chat FILE.gguf  or name the bundled model's folder in "
                  "TANDEM_MODELS.");
    return kExitFailure;
  }
  int code = kExitOk;
  LoadFlags how = flags.load;
  how.keeps_times = true;
  auto loaded = load(console, path, how, code);
  if (!loaded) return code;
  if (loaded->model_info.has_chat_template == 0) {
    return no_template(console, loaded->model_info,
                       "Let it continue a text with  tandem run MODEL --raw -p TEXT");
  }
  api::AnswerOptions options;
  const auto sampling = flags.sampling.over(loaded->model);
  if (!sampling) return console.fail(sampling.error());
  options.sampling = *sampling;
  options.max_tokens = flags.n_predict;
  options.stop = flags.stop;
  auto session = api::Session::create(loaded->engine);
  if (!session) return console.fail(session.error());
  const auto reader = make_line_reader(console);
  Chat chat(console, *loaded, std::move(*session), std::move(options), flags.system);
  return finish_trace(console, *loaded, chat.run(*reader));
}

}  // namespace tandem::cli

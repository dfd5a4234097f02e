#include <poll.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "answer.h"
#include "commands.h"
#include "input.h"
#include "interrupts.h"
#include "loading.h"
#include "output_file.h"
#include "sampling_flags.h"

namespace tandem::cli {
namespace {

struct RunFlags {
  LoadFlags load;
  SamplingFlags sampling;
  std::optional<std::string> prompt, file, system;
  std::string save_state, load_state;
  std::vector<std::string> stop;
  uint32_t n_predict = 0;
  bool raw = false, special = false, json = false, quiet = false, print_place = false;

  void add_to(CommandLine& line);
};

void RunFlags::add_to(CommandLine& line) {
  line.group("Prompt");
  line.text("-p,--prompt", prompt, "TEXT", "the prompt; what comes through a pipe follows it");
  line.text("-f,--file", file, "FILE", "a file that follows the prompt, - for standard input");
  line.text("--system", system, "TEXT", "the system message");
  line.flag("--raw", raw, "no chat template: the text is continued as it stands");
  line.flag("--special", special, "with --raw: control tokens written in the text become tokens");
  line.group("Answer");
  line.whole("-n,--predict,--n-predict", n_predict, 0, UINT32_MAX,
             "most tokens of the answer, 0: until it ends");
  line.texts("--stop", stop, "TEXT", "the answer ends before this text; may be repeated");
  line.flag("--json", json, "one JSON object at the end instead of the text");
  line.flag("-q,--quiet", quiet, "nothing on standard error but errors");
  line.text("--save-state", save_state, "FILE", "keep what the model has read and written");
  line.text("--load-state", load_state, "FILE",
            "continue from a state; with --raw the text is appended");
  sampling.add_to(line);
  load.add_to(line);
  load.add_trace_to(line);
  line.flag("--print-place", print_place,
            "write where every block lies, for --place, instead of answering");
}

void append(std::string& prompt, const std::string& part) {
  if (part.empty()) return;
  if (!prompt.empty()) prompt += "\n\n";
  prompt += part;
}

// Standard input to its end. When a prompt is there already, somebody may have started us with an
// open pipe that never ends: say what we wait for.
std::optional<std::string> read_pipe(Console& console, bool has_prompt, std::string& error) {
  if (has_prompt) {
    pollfd watched[2] = {{STDIN_FILENO, POLLIN, 0}, {interrupts::fd(), POLLIN, 0}};
    if (::poll(watched, 2, 1000) == 0) {
      console.note("waiting for the end of standard input; to leave it out, add  < /dev/null");
    }
  }
  return read_standard_input(error);
}

// -p, then -f, then the pipe.
std::optional<std::string> gather_prompt(Console& console, const RunFlags& flags,
                                         std::string& error) {
  std::string prompt = flags.prompt.value_or("");
  if (flags.file) {
    const auto content = read_all(*flags.file, error);
    if (!content) return std::nullopt;
    append(prompt, *content);
  }
  const bool read_already = flags.file && *flags.file == "-";
  if (!console.in_is_terminal() && !read_already) {
    const auto content = read_pipe(console, flags.prompt || flags.file, error);
    if (!content) return std::nullopt;
    append(prompt, *content);
  }
  return prompt;
}

std::string json_of(const Answer& answer, const Loaded& loaded) {
  const auto decode_rate = answer.decode_tokens_per_s();
  const nlohmann::ordered_json object = {
      {"text", answer.text},
      {"tokens", answer.tokens},
      {"finish", finish_name(answer.finish)},
      {"model", loaded.model_info.name},
      {"prompt_tokens", answer.n_prompt_tokens},
      {"prompt_tokens_evaluated", answer.n_prompt_evaluated},
      {"generated_tokens", answer.n_generated},
      {"prompt_seconds", answer.prompt_seconds},
      {"generate_seconds", answer.generate_seconds},
      {"prompt_tokens_per_s", answer.prompt_tokens_per_s()},
      {"decode_tokens_per_s", decode_rate ? nlohmann::ordered_json(*decode_rate) : nullptr},
      {"load_seconds", loaded.engine_info.load_seconds},
      {"context", loaded.engine_info.n_context},
      {"seed", answer.seed}};
  return object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

int report(Console& console, const Answer& answer, const Loaded& loaded, const RunFlags& flags) {
  if (flags.json) {
    console.out(json_of(answer, loaded));
  } else if (!answer.text.empty() && (!flags.raw || console.out_is_terminal()) &&
             !answer.text.ends_with("\n")) {
    console.out("\n");
  }
  if (answer.finish == TANDEM_FINISH_ERROR) return console.fail(answer.error);
  const uint32_t n_context = loaded.engine_info.n_context;
  if (answer.finish == TANDEM_FINISH_CANCELLED) {
    if (!console.out_works()) return kExitFailure;  // the console says why
    console.line("interrupted: " + std::to_string(answer.n_generated) + " tokens were written.");
    return kExitInterrupted;
  }
  if (flags.quiet) return kExitOk;
  if (answer.finish == TANDEM_FINISH_CONTEXT) {
    console.note("the context of " + std::to_string(n_context) +
                 " tokens is full: the answer stops here. A larger one: --ctx N");
  }
  if (answer.finish == TANDEM_FINISH_LENGTH) {
    console.note("stopped after " + std::to_string(answer.n_generated) + " tokens, as -n asked.");
  }
  console.dim_line("  " + summary_of(answer, n_context) + ", seed " + std::to_string(answer.seed));
  return kExitOk;
}

int answer_prompt(Console& console, Loaded& loaded, const RunFlags& flags,
                  const std::string& prompt) {
  auto session = api::Session::create(loaded.engine);
  if (!session) return console.fail(session.error());
  if (!flags.load_state.empty()) {
    const auto restored = session->load(flags.load_state);
    if (!restored) return console.fail(restored.error());
  }
  const auto sampling = flags.sampling.over(loaded.model);
  if (!sampling) return console.fail(sampling.error());
  api::AnswerOptions options;
  options.sampling = *sampling;
  options.max_tokens = flags.n_predict;
  options.stop = flags.stop;
  options.parse_special = flags.special;
  std::vector<api::Message> messages;
  if (flags.system) messages.push_back({"system", *flags.system});
  messages.push_back({"user", prompt});
  const auto submitted =
      flags.raw ? session->submit_text(prompt, options) : session->submit(messages, options);
  if (!submitted) return console.fail(submitted.error());
  const Answer answer = receive(console, *session, !flags.json);
  const int code = report(console, answer, loaded, flags);
  if (flags.save_state.empty() || code == kExitFailure) return code;
  const auto saved = session->save(flags.save_state);
  return saved ? code : console.fail(saved.error());
}

int no_prompt(Console& console, const CommandLine& line, const Arguments& arguments,
              const RunFlags& flags) {
  if (console.in_is_terminal() && !flags.file && !flags.prompt) {
    // Without a prompt, on a terminal, run is chat.
    return run_chat(console, arguments);
  }
  return line.usage_error(console, "no prompt given.",
                          "Give one with -p TEXT, -f FILE or through a pipe.");
}

int print_place(Console& console, const std::string& path, const RunFlags& flags) {
  int code = kExitOk;
  auto loaded = load(console, path, flags.load, code);
  if (!loaded) return code;
  const auto json = loaded->engine.placement();
  if (!json) return console.fail(json.error());
  if (json->empty()) {
    console.error("there is no second processor: everything lies in RAM.",
                  "Name one with  --device");
    return kExitFailure;
  }
  return console.answer(*json + "\n") ? kExitOk : kExitFailure;
}

}  // namespace

int run_run(Console& console, const Arguments& arguments) {
  RunFlags flags;
  CommandLine line("run",
                   "One answer to one prompt, in the model's own chat template. The prompt is -p, "
                   "then -f, then what\n"
                   "comes through a pipe. Without any of them, on a terminal, this is tandem chat.",
                   "tandem run model.gguf -p \"Why is the sky blue?\"\ngit diff | tandem run "
                   "model.gguf -p \"review this\"",
                   "MODEL");
  flags.add_to(line);
  if (const auto code = line.parse(console, arguments)) return *code;
  const auto path = line.take_model(console, flags.load.model);
  if (!path || !line.all_taken(console)) return kExitUsage;
  if (flags.raw && flags.system)
    return line.usage_error(console, "--system needs the chat template that --raw leaves out.");
  if (flags.print_place) return print_place(console, *path, flags);
  if (console.in_is_terminal() && !flags.prompt && !flags.file)
    return no_prompt(console, line, arguments, flags);

  std::string error;
  const auto prompt = gather_prompt(console, flags, error);
  if (interrupts::pending()) return kExitInterrupted;
  if (!prompt) {
    console.error(error);
    return kExitFailure;
  }
  if (prompt->empty()) return no_prompt(console, line, arguments, flags);
  if (prompt->find('\0') != std::string::npos && !flags.raw) {
    console.error("the prompt holds a zero byte: it is not a text.", "Was a binary file given?");
    return kExitFailure;
  }
  // A file that cannot be written is better known now than after the answer.
  if (!flags.save_state.empty() && !can_write(flags.save_state, error)) {
    console.error("--save-state: " + error);
    return kExitFailure;
  }
  int code = kExitOk;
  auto loaded = load(console, *path, flags.load, code);
  if (!loaded) return code;
  if (!flags.quiet) {
    for (const std::string& note : loaded->notes) console.note(note);
  }
  if (!flags.raw && loaded->model_info.has_chat_template == 0) {
    return no_template(console, loaded->model_info,
                       "Let it continue the text as it stands with  --raw");
  }
  code = answer_prompt(console, *loaded, flags, *prompt);
  if (!flags.quiet) print_trace(console, *loaded);
  return finish_trace(console, *loaded, code);
}

}  // namespace tandem::cli

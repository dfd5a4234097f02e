#include <nlohmann/json.hpp>

#include "commands.h"
#include "input.h"
#include "interrupts.h"
#include "loading.h"

namespace tandem::cli {
namespace {

struct TokenizeFlags {
  LoadFlags load;
  bool special = false, json = false;
  std::optional<std::string> decode;
};

std::string joined(std::span<const int32_t> ids) {
  std::string text;
  for (const int32_t id : ids) text += (text.empty() ? "" : " ") + std::to_string(id);
  return text;
}

int encode(Console& console, const api::Model& model, const std::string& text,
           const TokenizeFlags& flags) {
  api::Cancel cancel;
  const interrupts::CancelOnInterrupt cancelled(cancel);
  const auto tokens = model.tokenize(text, false, flags.special, &cancel);
  if (!tokens && tokens.error().code == TANDEM_ERROR_CANCELLED) {
    console.line("interrupted: no tokens were written.");
    return kExitInterrupted;
  }
  if (!tokens) return console.fail(tokens.error());
  if (flags.json) {
    console.out(nlohmann::json{{"n_tokens", tokens->size()}, {"tokens", *tokens}}.dump() + "\n");
  } else {
    console.out(joined(*tokens) + "\n");
  }
  return kExitOk;
}

int decode(Console& console, const api::Model& model, const std::vector<int32_t>& ids, bool json) {
  const auto text = model.detokenize(ids, true);
  if (!text) return console.fail(text.error());
  if (json) {
    const nlohmann::json object = {{"text", *text}};
    console.out(object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  } else {
    // The bytes and nothing else, so that encoding and decoding in a pipe gives back the same file.
    console.out(console.out_is_terminal() ? *text + "\n" : *text);
  }
  return kExitOk;
}

}  // namespace

int run_tokenize(Console& console, const Arguments& arguments) {
  TokenizeFlags flags;
  CommandLine line("tokenize",
                   "A text as token ids, without the tokens that a model wants around it. Without "
                   "TEXT, the text is\n"
                   "what stands on standard input, to the last byte.",
                   "tandem tokenize model.gguf \"What light through yonder window breaks?\"\n"
                   "tandem tokenize model.gguf --decode \"12,7,99\"",
                   "MODEL [TEXT]");
  flags.load.add_model_to(line);
  line.group("Text");
  line.flag("--special", flags.special, "control tokens written in the text become tokens");
  line.text("--decode", flags.decode, "IDS",
            "the text of ids instead: 12,7,99 or \"12 7 99\" or 12 7 99");
  line.group("Output");
  line.flag("--json", flags.json, "as a JSON object");
  if (const auto code = line.parse(console, arguments)) return *code;
  const auto path = line.take_model(console, flags.load.model);
  if (!path) return kExitUsage;
  auto text = flags.decode ? flags.decode : line.take_positional();
  while (flags.decode) {
    const auto more = line.take_positional();
    if (!more) break;
    *text += " " + *more;
  }
  if (!line.all_taken(console)) return kExitUsage;
  const auto ids = flags.decode ? parse_ids(*text) : std::vector<int32_t>();
  if (!ids)
    return line.usage_error(console, "--decode: expected ids such as 1,2,3, found '" + *text + "'");

  int code = kExitOk;
  const auto model = open_model(console, *path, code);
  if (!model) return code;
  if (flags.decode) return decode(console, *model, *ids, flags.json);
  if (!text) {
    std::string error;
    text = read_standard_input(error);
    if (!text && error == "interrupted") return kExitInterrupted;
    if (!text) {
      console.error(error);
      return kExitFailure;
    }
  }
  return encode(console, *model, *text, flags);
}

}  // namespace tandem::cli

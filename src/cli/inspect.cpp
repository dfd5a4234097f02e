#include <algorithm>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "loading.h"
#include "terminal_text.h"

namespace tandem::cli {
namespace {

using Json = nlohmann::ordered_json;

struct InspectFlags {
  LoadFlags load;
  bool tensors = false, metadata = false, json = false;
};

std::string padded(std::string text, size_t width) {
  text.resize(std::max(width, text.size() + 2), ' ');
  return text;
}

std::string summary_of(const tandem_model_info& info) {
  const auto row = [](const char* name, const std::string& value) {
    return padded(name, 16) + value + "\n";
  };
  std::string text = row("name", info.name);
  text += row("architecture", info.architecture);
  text += row("weights", std::string(info.type_name) + ", " + format_bytes(info.weight_bytes));
  std::string parameters = format_count(info.n_parameters);
  if (info.n_active_parameters != info.n_parameters) {
    parameters += " (" + format_count(info.n_active_parameters) + " active per token)";
  }
  text += row("parameters", parameters);
  text += row("file", format_bytes(info.file_bytes));
  text += row("layers", std::to_string(info.n_layers));
  if (info.n_experts > 0) {
    text += row("experts", std::to_string(info.n_experts) + " per layer, " +
                               std::to_string(info.n_experts_used) + " used per token");
  }
  text += row("context", std::to_string(info.n_context_trained) + " tokens as trained");
  text += row("vocabulary", std::to_string(info.n_vocabulary) + " tokens");
  const std::string broken = info.chat_template_error;
  return text + row("chat template", info.has_chat_template != 0 ? "yes"
                                     : broken.empty()            ? "no"
                                                                 : "cannot be used: " + broken);
}

// The first line of a value, cut to what a terminal's line holds: templates are long.
std::string short_value(const Json& value) {
  constexpr size_t kMost = 100;
  std::string text = value.is_string() ? value.get<std::string>()
                                       : value.dump(-1, ' ', false, Json::error_handler_t::replace);
  const size_t end = text.find('\n');
  const bool cut = end != std::string::npos || text.size() > kMost;
  size_t keep = std::min({end, text.size(), kMost});
  // Not inside a UTF-8 character.
  while (cut && keep > 0 && keep < text.size() &&
         (static_cast<unsigned char>(text[keep]) & 0xC0) == 0x80)
    --keep;
  text.resize(keep);
  text = without_steering(text);
  return cut ? text + " ..." : text;
}

std::string metadata_of(const Json& model) {
  std::string text;
  if (!model.contains("metadata")) return text;
  for (const auto& [key, value] : model["metadata"].items())
    text += padded(key, 40) + short_value(value) + "\n";
  return text;
}

std::string tensors_of(const Json& model) {
  std::string text;
  if (!model.contains("tensors")) return text;
  for (const Json& tensor : model["tensors"]) {
    const auto bytes = tensor.value("bytes", uint64_t{0});
    text += padded(short_value(tensor.value("name", "")), 40) +
            padded(tensor.value("type", ""), 8) + padded(tensor.value("shape", Json()).dump(), 24) +
            format_bytes(bytes) + "\n";
  }
  return text;
}

}  // namespace

int run_inspect(Console& console, const Arguments& arguments) {
  InspectFlags flags;
  CommandLine line("inspect", "What a model file holds, from its header; no weights are read.",
                   "tandem inspect model.gguf\ntandem inspect model.gguf --tensors", "MODEL");
  flags.load.add_model_to(line);
  line.group("Output");
  line.flag("--tensors", flags.tensors, "every tensor with type, shape and bytes");
  line.flag("--metadata", flags.metadata, "every metadata key with its value");
  line.flag("--json", flags.json, "everything, as a JSON object");
  if (const auto code = line.parse(console, arguments)) return *code;
  const auto path = line.take_model(console, flags.load.model);
  if (!path || !line.all_taken(console)) return kExitUsage;

  int code = kExitOk;
  const auto model = open_model(console, *path, code);
  if (!model) return code;
  const auto text = model->json();
  const auto info = model->info();
  if (!text || !info) return console.fail(text ? info.error() : text.error());
  if (flags.json) {
    console.out(*text + "\n");
    return kExitOk;
  }
  const Json json = Json::parse(*text, nullptr, false);
  if (!flags.tensors && !flags.metadata) console.answer(summary_of(*info));
  for (const Json& warning : json.value("warnings", Json::array()))
    console.note(short_value(warning));
  if (flags.metadata) console.answer(metadata_of(json));
  if (flags.tensors) console.answer(tensors_of(json));
  return kExitOk;
}

}  // namespace tandem::cli

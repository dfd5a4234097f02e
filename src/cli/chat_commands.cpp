#include <algorithm>
#include <filesystem>
#include <functional>

#include "chat.h"
#include "input.h"
#include "output_file.h"
#include "suggest.h"

namespace tandem::cli {
namespace {

std::string trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

// A value that /set changes: what it expects, how it is read and shown.
struct Setting {
  std::string name;
  std::string expects;
  std::function<bool(const std::string&)> read;
  std::function<std::string()> show;
};

template <typename T>
Setting real_setting(std::string name, T& value, double least, double most) {
  return {std::move(name), "a number from " + format_rate(least) + " to " + format_rate(most),
          [&value, least, most](const std::string& text) {
            const auto number = parse_real(text);
            if (!number || *number < least || *number > most) return false;
            value = static_cast<T>(*number);
            return true;
          },
          [&value] { return format_rate(static_cast<double>(value)); }};
}

template <typename T>
Setting whole_setting(std::string name, T& value, int64_t most) {
  return {std::move(name), "a whole number from 0 to " + std::to_string(most),
          [&value, most](const std::string& text) {
            const auto number = parse_integer(text);
            if (!number || *number < 0 || *number > most) return false;
            value = static_cast<T>(*number);
            return true;
          },
          [&value] { return std::to_string(value); }};
}

std::vector<Setting> settings_of(api::AnswerOptions& options, uint64_t& next_seed) {
  tandem_sampling& sampling = *options.sampling;
  return {real_setting("temp", sampling.temperature, 0, 100),
          whole_setting("top-k", sampling.top_k, 1 << 30),
          real_setting("top-p", sampling.top_p, 0, 1),
          real_setting("min-p", sampling.min_p, 0, 1),
          real_setting("repeat-penalty", sampling.repeat_penalty, 0, 100),
          real_setting("frequency-penalty", sampling.frequency_penalty, -100, 100),
          real_setting("presence-penalty", sampling.presence_penalty, -100, 100),
          whole_setting("repeat-last-n", sampling.repeat_last_n, TANDEM_MOST_REPEAT_LAST_N),
          whole_setting("seed", next_seed, INT64_MAX),
          whole_setting("predict", options.max_tokens, UINT32_MAX)};
}

std::string turns_of(const Conversation& conversation) {
  const size_t n = conversation.turns.size() / 2;
  return std::to_string(n) + (n == 1 ? " turn" : " turns");
}

// The session's state lies beside the conversation, which people can read.
std::string state_path(const std::string& path) { return path + ".state"; }

}  // namespace

const std::vector<Chat::Command>& Chat::command_table() {
  static const std::vector<Command> table = {
      {"/help", "/help", "this list", &Chat::help},
      {"/reset", "/reset", "forget the conversation, keep the system message", &Chat::reset},
      {"/system", "/system TEXT", "set the system message; without TEXT, show it", &Chat::system},
      {"/undo", "/undo", "take the last message and its answer back", &Chat::undo},
      {"/regen", "/regen", "another answer to the last message", &Chat::regen},
      {"/set", "/set NAME VALUE",
       "temp, top-k, top-p, min-p, seed, predict, ...; without NAME, show all", &Chat::set},
      {"/save", "/save FILE", "the conversation as JSON, and what the model has read in FILE.state",
       &Chat::save},
      {"/load", "/load FILE", "go on with a saved conversation", &Chat::load},
      {"/stats", "/stats", "tokens, context and memory", &Chat::stats},
      {"/quit", "/quit", "end (also Ctrl-D)", &Chat::quit},
  };
  return table;
}

void Chat::obey(const std::string& line) {
  const size_t end = std::min(line.find_first_of(" \t\n"), line.size());
  const std::string name = line.substr(0, end);
  std::vector<std::string> names;
  for (const Command& command : command_table()) {
    if (command.name == name) return (this->*command.run)(trimmed(line.substr(end)));
    names.emplace_back(command.name);
  }
  const std::string near = nearest(name, names);
  console_.error(name + ": unknown command." +
                     (near.empty() ? " /help lists them." : " Did you mean " + near + "?"),
                 "A message that begins with a slash: write two.");
  failed_ = true;
}

void Chat::help(const std::string&) {
  for (const Command& command : command_table()) {
    std::string usage(command.usage);
    usage.resize(18, ' ');
    console_.line("  " + usage + std::string(command.help));
  }
  console_.line(
      "  A backslash at the end of a line goes on in the next; \"\"\" opens and closes a block of "
      "lines.");
  console_.line("  Ctrl-C stops an answer, and clears the line at the prompt.");
}

void Chat::reset(const std::string&) {
  conversation_.turns.clear();
  const auto done = session_.truncate(0);
  if (!done) return failed(done.error());
  console_.dim_line("  forgotten; context 0/" + std::to_string(n_context_));
}

void Chat::system(const std::string& text) {
  if (!text.empty()) conversation_.system = text;
  console_.dim_line(conversation_.system.empty() ? "  no system message"
                                                 : "  system: " + conversation_.system);
}

void Chat::undo(const std::string&) {
  auto& turns = conversation_.turns;
  if (turns.empty()) return console_.dim_line("  nothing to take back");
  while (!turns.empty() && turns.back().role != "user") turns.pop_back();
  if (!turns.empty()) turns.pop_back();
  console_.dim_line("  taken back; " + turns_of(conversation_) + " left");
}

void Chat::regen(const std::string&) {
  auto& turns = conversation_.turns;
  if (std::none_of(turns.begin(), turns.end(),
                   [](const api::Message& turn) { return turn.role == "user"; })) {
    return console_.dim_line("  nothing to answer again");
  }
  while (turns.back().role != "user") turns.pop_back();
  answer();
}

void Chat::print_settings() {
  for (const Setting& setting : settings_of(options_, next_seed_)) {
    std::string name = setting.name;
    name.resize(20, ' ');
    console_.line("  " + name + setting.show());
  }
}

void Chat::set(const std::string& argument) {
  const size_t end = std::min(argument.find_first_of(" \t="), argument.size());
  std::string name = argument.substr(0, end);
  const std::string value = trimmed(end < argument.size() ? argument.substr(end + 1) : "");
  if (name.empty()) return print_settings();
  name.erase(0, name.find_first_not_of('-'));
  std::vector<std::string> names;
  for (const Setting& setting : settings_of(options_, next_seed_)) {
    names.push_back(setting.name);
    if (setting.name != name) continue;
    if (!value.empty() && !setting.read(value)) {
      failed_ = true;
      return console_.error("/set " + name + ": expected " + setting.expects + ", found '" + value +
                            "'");
    }
    return console_.dim_line("  " + name + " " + setting.show());
  }
  const std::string near = nearest(name, names);
  console_.error("/set " + name + ": unknown setting." +
                 (near.empty() ? " /set shows them." : " Did you mean " + near + "?"));
  failed_ = true;
}

void Chat::save(const std::string& path) {
  if (path.empty()) return console_.error("/save: no file given.");
  std::string error;
  // For its owner alone, as the state beside it.
  if (!write_file(path, conversation_.to_json(loaded_.model_info.name), error, 0600)) {
    failed_ = true;
    return console_.error(error);
  }
  if (is_special_file(path)) {
    return console_.dim_line("  saved " + path +
                             " without the model's state: it is no regular file");
  }
  const auto saved = session_.save(state_path(path));
  if (!saved) {
    console_.line("  saved " + path + " without the model's state: after /load it is read again");
    return failed(saved.error());
  }
  std::error_code ignored;
  const auto bytes = std::filesystem::file_size(state_path(path), ignored);
  console_.dim_line("  saved " + path + " and " + state_path(path) + " (" +
                    format_bytes(ignored ? 0 : bytes) + ")");
}

void Chat::load(const std::string& path) {
  if (path.empty()) return console_.error("/load: no file given.");
  std::string error;
  const auto text = read_all(path, error);
  auto conversation = text ? Conversation::from_json(*text, error) : std::nullopt;
  if (!conversation) {
    failed_ = true;
    return console_.error(text ? path + ": " + error : error);
  }
  conversation_ = std::move(*conversation);
  std::string message = "  " + turns_of(conversation_) + " loaded";
  const auto loaded = session_.load(state_path(path));
  // The conversation is whole without its state: the model reads it again with the next message.
  if (!loaded) message += "; it will be read again (" + loaded.error().text + ")";
  console_.dim_line(message);
}

void Chat::stats(const std::string&) {
  const auto info = session_.info();
  if (!info) return failed(info.error());
  console_.line("  turns       " + std::to_string(conversation_.turns.size() / 2));
  console_.line("  context     " + std::to_string(info->n_tokens) + "/" +
                std::to_string(info->n_context) + " tokens, " + format_bytes(info->kv_bytes) +
                " reserved");
  console_.line("  weights     " + format_bytes(loaded_.engine_info.bytes_per_token) +
                " read per token; loaded in " + format_rate(loaded_.engine_info.load_seconds) +
                " s, " + loaded_.engine_info.read_mode);
  console_.line("  plan        " + std::string(loaded_.engine_info.plan));
  const auto tiers = loaded_.engine.memory();
  if (!tiers) return failed(tiers.error());
  for (const tandem_tier_report& tier : *tiers) {
    std::string name(tier.name);
    name.resize(12, ' ');
    const std::string huge = tier.huge_page_bytes == 0
                                 ? ""
                                 : " (" + format_bytes(tier.huge_page_bytes) + " in huge pages)";
    console_.line("  " + name + "weights " + format_bytes(tier.weight_bytes) + huge + ", KV " +
                  format_bytes(tier.kv_bytes) + ", work " + format_bytes(tier.work_bytes) +
                  ", free " + format_bytes(tier.free_bytes));
    const uint64_t n_uses = tier.expert_hits + tier.expert_misses;
    if (tier.n_expert_slots == 0 || n_uses == 0) continue;
    const double rate = 100.0 * static_cast<double>(tier.expert_hits) / static_cast<double>(n_uses);
    console_.line("  experts     " + format_fixed(rate, 0) + " % of " + std::to_string(n_uses) +
                  " uses found in " + std::to_string(tier.n_expert_slots) + " slots");
  }
  print_trace(console_, loaded_);
}

void Chat::quit(const std::string&) { quit_ = true; }

}  // namespace tandem::cli

#include <array>
#include <string>
#include <vector>

#include "commands.h"
#include "suggest.h"
#include "tandem/tandem.hpp"

namespace tandem::cli {
namespace {

constexpr std::array<Command, 9> kCommands = {{
    {"chat", "Use", "talk with a model", run_chat},
    {"run", "Use", "one answer to one prompt", run_run},
    {"inspect", "Inspect", "what a model file holds", run_inspect},
    {"machine", "Inspect", "what this machine has", run_machine},
    {"bench", "Measure", "tokens per second, and the share of the memory bandwidth", run_bench},
    {"perplexity", "Measure", "how well a model predicts a text", run_perplexity},
    {"logits", "Develop", "the logits of every position, as a file", run_logits},
    {"synth", "Develop", "a model file of a public shape with random weights", run_synth},
    {"tokenize", "Develop", "a text as token ids, and back", run_tokenize},
}};

std::string program_help() {
  std::string text =
      "  tandem chat                                  talk with the model that comes with tandem\n"
      "  tandem chat model.gguf                       talk with your own\n"
      "  git diff | tandem run model.gguf -p \"review this\"\n"
      "\nRuns language models on one workstation.\n\nUsage: tandem COMMAND [arguments]\n";
  std::string_view group;
  for (const Command& command : commands()) {
    if (command.group != group) {
      group = command.group;
      text += "\n" + std::string(group) + ":\n";
    }
    std::string name(command.name);
    name.resize(12, ' ');
    text += "  " + name + std::string(command.summary) + "\n";
  }
  return text +
         "\ntandem COMMAND --help tells more about a command; tandem --version tells the "
         "version.\n";
}

const Command* find_command(std::string_view name) {
  for (const Command& command : commands()) {
    if (command.name == name) return &command;
  }
  return nullptr;
}

int unknown(Console& console, const std::string& word) {
  std::vector<std::string> names = {"help", "--help", "--version"};
  for (const Command& command : commands()) names.emplace_back(command.name);
  const std::string near = nearest(word, names);
  const char* what = word.starts_with("-") ? ": unknown option." : ": unknown command.";
  if (near.empty()) {
    console.error(word + what, "See  tandem --help");
  } else {
    console.error(word + what + " Did you mean " + near + "?");
  }
  return kExitUsage;
}

}  // namespace

std::span<const Command> commands() { return kCommands; }

int run_program(Console& console, const Arguments& arguments) {
  if (arguments.empty()) {
    console.err(program_help());
    return kExitUsage;
  }
  const std::string& word = arguments.front();
  Arguments rest(arguments.begin() + 1, arguments.end());
  if (word == "--version" || word == "-V" || word == "version") {
    console.out(std::string("tandem ") + tandem_version() + "\n");
    return kExitOk;
  }
  if (word == "--help" || word == "-h" || word == "help") {
    if (rest.empty()) {
      console.out(program_help());
      return kExitOk;
    }
    const Command* command = find_command(rest.front());
    return command == nullptr ? unknown(console, rest.front()) : command->run(console, {"--help"});
  }
  const Command* command = find_command(word);
  return command == nullptr ? unknown(console, word) : command->run(console, rest);
}

}  // namespace tandem::cli

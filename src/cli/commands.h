// The subcommands. Each lives in a file of its name and gives the program's exit code.
#pragma once

#include <span>
#include <string_view>

#include "command_line.h"
#include "console.h"

namespace tandem::cli {

struct Command {
  std::string_view name;
  std::string_view group;  // heading in the help: "Use", "Inspect", ...
  std::string_view summary;
  int (*run)(Console& console, const Arguments& arguments);
};

std::span<const Command> commands();

int run_chat(Console& console, const Arguments& arguments);
int run_run(Console& console, const Arguments& arguments);
int run_inspect(Console& console, const Arguments& arguments);
int run_machine(Console& console, const Arguments& arguments);
int run_bench(Console& console, const Arguments& arguments);
int run_perplexity(Console& console, const Arguments& arguments);
int run_logits(Console& console, const Arguments& arguments);
int run_synth(Console& console, const Arguments& arguments);
int run_tokenize(Console& console, const Arguments& arguments);

// The whole program: picks the command, or helps.
int run_program(Console& console, const Arguments& arguments);

}  // namespace tandem::cli

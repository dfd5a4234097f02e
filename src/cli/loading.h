// Opening a model and loading its weights, with the flags that every command which computes has.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "command_line.h"
#include "console.h"
#include "tandem/tandem.hpp"

namespace tandem::cli {

struct LoadFlags {
  std::string model;  // -m
  uint32_t n_context = 0;
  uint32_t n_threads = 0;
  bool force = false;
  std::string read = "auto";
  std::string kv = "f16";
  bool no_expert_cache = false, no_split = false;
  std::string device = "none", gpu_layers = "auto", cpu_experts = "0", place_file, device_memory;

  std::string trace;  // a file; "": none is written
  // Without a file too, what tasks take is kept where there is a second processor: for print_trace().
  bool keeps_times = false;

  void add_to(CommandLine& line);
  // --trace, for commands that end with finish_trace().
  void add_trace_to(CommandLine& line);
  // Only -m.
  void add_model_to(CommandLine& line);
};

// A loaded model. Strings of the infos belong to the objects beside them.
struct Loaded {
  api::Model model;
  api::Engine engine;
  tandem_model_info model_info;
  tandem_engine_info engine_info;
  std::vector<std::string> notes;  // what the engine fell back to, and why
  std::string trace;               // the file that it is to be written to; "": there is none
  bool has_times = false;          // of tasks, for print_trace()
};

// Prints what went wrong and gives nothing.
std::optional<api::Model> open_model(Console& console, const std::string& path, int& exit_code);
std::optional<Loaded> load(Console& console, const std::string& path, const LoadFlags& flags,
                           int& exit_code);

// Writes the trace that was asked for, even if what it shows went wrong.  `code`, or failure.
int finish_trace(Console& console, const Loaded& loaded, int code);
// What tasks took, in dim lines on standard error; nothing where that was not kept.
void print_trace(Console& console, const Loaded& loaded);

// Prints that the model cannot chat, with the reason, and gives the exit code.
int no_template(Console& console, const tandem_model_info& model, std::string_view suggestion);

// The model that comes with tandem: in $TANDEM_MODELS, beside the program, in the source tree. ""
// when there is none.
std::string bundled_model();

}  // namespace tandem::cli

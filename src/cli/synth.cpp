#include <filesystem>

#include "commands.h"
#include "interrupts.h"
#include "progress_bar.h"
#include "tandem/tandem.hpp"

namespace tandem::cli {

int run_synth(Console& console, const Arguments& arguments) {
  api::SynthOptions options;
  bool overwrite = false;
  CommandLine line(
      "synth",
      "A model file with a public model's shape and random weights, for measurements. It answers\n"
      "nonsense; its speed is that of the model it is like.",
      "tandem synth bench.gguf --like llama-3.2-1b --type q4_k\n"
      "tandem synth small.gguf --like qwen3-30b-a3b --layers 4",
      "OUT --like NAME");
  line.group("Shape");
  line.text(
      "--like", options.like, "NAME",
      "llama-3.2-1b, llama-3.1-8b, llama-3.3-70b, mixtral-8x7b, qwen3-30b-a3b, qwen3-235b-a22b");
  line.whole("--layers", options.n_layers, 0, 10000, "layers, 0: as the original");
  line.text("--type", options.type, "TYPE",
            "format of the weights: q4_k (default), q8_0, f16, ...");
  line.whole("-s,--seed", options.seed, 0, INT64_MAX,
             "seed of the weights, 0 by default: the same file again");
  line.flag("--overwrite", overwrite, "replace a file that exists");
  if (const auto code = line.parse(console, arguments)) return *code;
  const auto path = line.take_positional();
  if (!path)
    return line.usage_error(console, "no output file given.", "tandem synth OUT --like NAME");
  if (!line.all_taken(console)) return kExitUsage;
  if (path->empty()) return line.usage_error(console, "the name of the output file is empty.");
  if (options.like.empty()) {
    // The library knows the names: asked without one, it lists them.
    const auto listed = api::synthesize(*path, options);
    return line.usage_error(console, "--like: no name given.", listed ? "" : listed.error().text);
  }

  std::error_code ignored;
  if (!overwrite && std::filesystem::exists(*path, ignored)) {
    console.error(*path + ": exists already.", "To replace it, add  --overwrite");
    return kExitFailure;
  }
  ProgressBar bar(console, "writing", ProgressBar::Unit::kBytes);
  api::Cancel cancel;
  bool announced = false;
  options.cancel = &cancel;
  options.progress = [&](const tandem_progress& progress) {
    if (!announced && progress.total > 0) {
      console.line("writing " + format_bytes(progress.total) + " to " + *path);
      announced = true;
    }
    bar.update(progress.done, progress.total, progress.eta_seconds);
  };
  const interrupts::CancelOnInterrupt cancelled(cancel);
  const auto done = api::synthesize(*path, options);
  bar.clear();
  if (done) return kExitOk;
  if (done.error().code != TANDEM_ERROR_CANCELLED) {
    const int code = console.fail(done.error());
    return done.error().code == TANDEM_ERROR_INVALID_ARGUMENT ? kExitUsage : code;
  }
  console.line("interrupted: " + bar.amount() + " written; nothing was kept.");
  return kExitInterrupted;
}

}  // namespace tandem::cli

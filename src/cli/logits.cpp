#include <bit>

#include "commands.h"
#include "interrupts.h"
#include "loading.h"
#include "output_file.h"
#include "progress_bar.h"

namespace tandem::cli {
namespace {

static_assert(std::endian::native == std::endian::little, "rows are written as they lie in memory");

int write_logits(Console& console, Loaded& loaded, std::span<const int32_t> tokens,
                 const std::string& path, OutputFile& file) {
  auto session = api::Session::create(loaded.engine);
  if (!session) return console.fail(session.error());
  const uint64_t row_bytes = uint64_t{loaded.model_info.n_vocabulary} * sizeof(float);
  console.line("writing " + std::to_string(tokens.size()) + " rows of " +
               std::to_string(loaded.model_info.n_vocabulary) + " float32, " +
               format_bytes(row_bytes * tokens.size()) + ", to " +
               (path == "-" ? "standard output" : path));
  ProgressBar bar(console, "computing", ProgressBar::Unit::kTokens);
  bool written = true;
  const interrupts::ActOnInterrupt cancel([&session] { session->cancel(); });
  const auto done = session->evaluate(tokens, [&](size_t index, std::span<const float> logits) {
    written = file.write(logits.data(), logits.size_bytes());
    bar.update(index + 1, tokens.size());
    return written && !interrupts::pending();
  });
  bar.clear();
  if (interrupts::pending()) {
    console.line("interrupted: " + bar.amount() + " computed; nothing was kept.");
    return kExitInterrupted;
  }
  if (written && !done) return console.fail(done.error());
  if (!written || !file.commit()) {
    console.error(file.error());
    return kExitFailure;
  }
  return kExitOk;
}

}  // namespace

int run_logits(Console& console, const Arguments& arguments) {
  LoadFlags load_flags;
  load_flags.kv =
      "f32";  // logits are written to be compared; half-precision keys and values show in them
  std::string ids, output;
  CommandLine line("logits",
                   "The logits of every position, as a file of little-endian float32, one row of "
                   "the vocabulary's\n"
                   "size per token. The file appears when it is whole.",
                   "tandem logits model.gguf --tokens 1,2,3 --output logits.bin",
                   "MODEL --tokens IDS --output FILE");
  line.group("Input and output");
  line.text("--tokens", ids, "IDS", "token ids, separated by commas or spaces");
  line.text("-o,--output", output, "FILE", "the file to write, - for standard output");
  load_flags.add_to(line);
  if (const auto code = line.parse(console, arguments)) return *code;
  const auto path = line.take_model(console, load_flags.model);
  if (!path || !line.all_taken(console)) return kExitUsage;
  const auto tokens = parse_ids(ids);
  if (!tokens || tokens->empty()) {
    return line.usage_error(console, "--tokens: expected ids such as 1,2,3, found '" + ids + "'");
  }
  if (output.empty()) return line.usage_error(console, "--output: no file given.");

  // The context must hold the tokens, and need not hold more.
  if (load_flags.n_context == 0) load_flags.n_context = static_cast<uint32_t>(tokens->size());
  OutputFile file(output);  // one that cannot be written is better known before the model is loaded
  if (!file.open()) {
    if (interrupts::pending()) return kExitInterrupted;
    console.error(file.error());
    return kExitFailure;
  }
  int code = kExitOk;
  auto loaded = load(console, *path, load_flags, code);
  if (!loaded) return code;
  return write_logits(console, *loaded, *tokens, output, file);
}

}  // namespace tandem::cli

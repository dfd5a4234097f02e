#include "loading.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "interrupts.h"
#include "output_file.h"
#include "progress_bar.h"

namespace tandem::cli {
namespace {

namespace fs = std::filesystem;

// Of each lane: a minute of tokens, and 20 MB.
constexpr uint32_t kTraceRecords = 1 << 16, kTimes = 1 << 12;

// Notes arrive on any thread of the library, also after loading.
struct NoteList {
  std::mutex mutex;
  std::vector<std::string> notes;
};

std::string first_model_in(const fs::path& folder) {
  std::error_code ignored;
  std::vector<std::string> found;
  for (fs::directory_iterator entry(folder, ignored), end; entry != end; entry.increment(ignored)) {
    if (entry->path().extension() == ".gguf") found.push_back(entry->path().string());
  }
  return found.empty() ? "" : *std::min_element(found.begin(), found.end());
}

fs::path program_folder() {
  std::error_code ignored;
  return fs::read_symlink("/proc/self/exe", ignored).parent_path();
}

uint32_t trace_records_of(const LoadFlags& flags) {
  if (!flags.trace.empty()) return kTraceRecords;
  return flags.keeps_times && flags.device != "none" ? kTimes : 0;
}

api::EngineOptions options_of(const LoadFlags& flags) {
  api::EngineOptions options;
  options.n_threads = flags.n_threads;
  options.n_context = flags.n_context;
  options.force = flags.force;
  options.read_mode = flags.read == "buffered" ? TANDEM_READ_BUFFERED
                      : flags.read == "direct" ? TANDEM_READ_DIRECT
                                               : TANDEM_READ_AUTO;
  options.kv_type = flags.kv == "f32"    ? TANDEM_KV_F32
                    : flags.kv == "q8_0" ? TANDEM_KV_Q8_0
                                         : TANDEM_KV_F16;
  options.device = flags.device;
  options.gpu_layers = flags.gpu_layers;
  options.cpu_experts = flags.cpu_experts;
  options.place_file = flags.place_file;
  options.device_memory = flags.device_memory;
  options.trace_records = trace_records_of(flags);
  options.expert_cache = !flags.no_expert_cache;
  options.split = !flags.no_split;
  return options;
}

// The library's advice for a model that does not fit, with the flags that follow it.
std::string with_flags(std::string advice) {
  constexpr std::string_view kBefore = "a context of at most ", kAfter = " tokens";
  const size_t number = advice.find(kBefore);
  const size_t end = advice.find(kAfter, number);
  if (number != std::string::npos && end != std::string::npos) {
    const size_t begin = number + kBefore.size();
    advice.insert(end + kAfter.size(), " (--ctx " + advice.substr(begin, end - begin) + ")");
  }
  return advice + ", or --force";
}

}  // namespace

void LoadFlags::add_model_to(CommandLine& line) {
  line.group("Model");
  line.text("-m,--model", model, "FILE", "the same as MODEL");
}

void LoadFlags::add_to(CommandLine& line) {
  add_model_to(line);
  line.whole("-c,--ctx", n_context, 0, TANDEM_MOST_CONTEXT,
             "context in tokens, 0: as trained, limited by free memory");
  line.whole("-t,--threads", n_threads, 0, TANDEM_MOST_THREADS,
             "threads, 0: one per physical core");
  line.choice("--read", read, {"auto", "buffered", "direct"},
              "how weights are read from the drive");
  line.choice("--kv", kv, {"f16", "f32", "q8_0"},
              "format of the keys and values that are kept (" + kv + ")");
  line.flag("--force", force, "load although the numbers say that it does not fit");
  line.group("Second processor");
  line.text("--device", device, "DEVICE",
            "none, auto, cuda[:N], or mirror:vram=4GiB,link=12GB/s,latency=10us: a stand-in made "
            "of this computer (none)");
  line.text("--device-memory", device_memory, "SIZE",
            "how much of its memory may be used: 6GiB (what is free)");
  line.text("--gpu-layers", gpu_layers, "N",
            "layers that it computes: auto, all, or how many, from the last one down (auto)");
  line.text("--cpu-experts", cpu_experts, "N",
            "layers whose experts stay in RAM: how many, or all (0)");
  line.flag("--no-expert-cache", no_expert_cache,
            "no copies of experts in what is left of its memory");
  line.flag("--no-split", no_split,
            "experts that it lacks are copied to it first, not computed by the CPU meanwhile");
  line.text("--place", place_file, "FILE", "where blocks lie, as run --print-place writes it");
}

void LoadFlags::add_trace_to(CommandLine& line) {
  line.text("--trace", trace, "FILE",
            "write when each processor did what, and what was predicted, for ui.perfetto.dev");
}

int finish_trace(Console& console, const Loaded& loaded, int code) {
  if (loaded.trace.empty()) return code;
  const auto written = loaded.engine.write_trace(loaded.trace);
  return written ? code : console.fail(written.error());
}

void print_trace(Console& console, const Loaded& loaded) {
  if (!loaded.has_times) return;
  const auto text = loaded.engine.trace_text();
  if (!text) return;
  for (size_t at = 0; at < text->size();) {
    const size_t end = std::min(text->find('\n', at), text->size());
    console.dim_line("  " + text->substr(at, end - at));
    at = end + 1;
  }
}

std::optional<api::Model> open_model(Console& console, const std::string& path, int& exit_code) {
  auto model = api::Model::open(path);
  if (model) return std::move(*model);
  exit_code = console.fail(model.error());
  return std::nullopt;
}

std::optional<Loaded> load(Console& console, const std::string& path, const LoadFlags& flags,
                           int& exit_code) {
  // A file that cannot be written is better known now than after the answer.
  // Written at the end, in one piece: only a file can be.
  std::error_code ignored;
  if (flags.trace == "-" ||
      (fs::exists(flags.trace, ignored) && !fs::is_regular_file(flags.trace, ignored))) {
    console.error("--trace: " + flags.trace + ": is not a regular file");
    exit_code = kExitFailure;
    return std::nullopt;
  }
  if (std::string error; !flags.trace.empty() && !can_write(flags.trace, error)) {
    console.error("--trace: " + error);
    exit_code = kExitFailure;
    return std::nullopt;
  }
  std::optional<api::Model> model = open_model(console, path, exit_code);
  if (!model) return std::nullopt;

  const auto notes = std::make_shared<NoteList>();
  ProgressBar bar(console, "loading", ProgressBar::Unit::kBytes);
  api::Cancel cancel;
  api::EngineOptions options = options_of(flags);
  options.cancel = &cancel;
  options.progress = [&bar](const tandem_progress& progress) {
    bar.set_label(progress.stage == TANDEM_STAGE_CHECK  ? "checking"
                  : progress.stage == TANDEM_STAGE_COPY ? "copying"
                  : progress.stage == TANDEM_STAGE_PACK ? "arranging"
                                                        : "loading");
    bar.update(progress.done, progress.total, progress.eta_seconds);
  };
  options.log = [notes](tandem_log_level level, std::string_view text) {
    if (level < TANDEM_LOG_NOTE) return;
    const std::lock_guard<std::mutex> lock(notes->mutex);
    notes->notes.emplace_back(text);
  };
  const interrupts::CancelOnInterrupt cancelled(cancel);
  auto engine = api::Engine::load(*model, std::move(options));
  bar.clear();
  if (!engine) {
    if (engine.error().code == TANDEM_ERROR_CANCELLED) {
      console.line("interrupted: loaded " + bar.amount() + "; nothing was kept.");
      exit_code = kExitInterrupted;
    } else {
      api::Error failure = engine.error();
      const bool too_large = failure.code == TANDEM_ERROR_OUT_OF_MEMORY && !flags.force;
      // Where the system itself refused there is nothing that a flag would change.
      if (too_large && !failure.suggestion.empty()) {
        failure.suggestion = with_flags(failure.suggestion);
      }
      exit_code = console.fail(failure);
    }
    return std::nullopt;
  }
  auto model_info = model->info();
  auto engine_info = engine->info();
  if (!model_info || !engine_info) {
    exit_code = console.fail(model_info ? engine_info.error() : model_info.error());
    return std::nullopt;
  }
  const std::lock_guard<std::mutex> lock(notes->mutex);
  return Loaded{
      std::move(*model), std::move(*engine),         *model_info, *engine_info, notes->notes,
      flags.trace,       trace_records_of(flags) > 0};
}

int no_template(Console& console, const tandem_model_info& model, std::string_view suggestion) {
  const std::string reason = model.chat_template_error;
  console.error(reason.empty() ? std::string(model.name) + " has no chat template."
                               : "the chat template of " + std::string(model.name) +
                                     " cannot be used: " + reason,
                suggestion);
  return kExitFailure;
}

std::string bundled_model() {
  std::vector<fs::path> folders;
  if (const char* named = std::getenv("TANDEM_MODELS"); named != nullptr && *named != '\0') {
    folders.emplace_back(named);
  }
  folders.push_back(program_folder() / ".." / "share" / "tandem" / "models");
  folders.emplace_back(TANDEM_SOURCE_MODELS);
  for (const fs::path& folder : folders) {
    std::string model = first_model_in(folder);
    if (!model.empty()) return fs::path(model).lexically_normal().string();
  }
  return "";
}

}  // namespace tandem::cli

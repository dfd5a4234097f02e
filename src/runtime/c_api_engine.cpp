// Engines of the C API.
#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "runtime/c_api.h"

namespace tandem::c_api {
namespace {

static_assert(TANDEM_MOST_THREADS == Team::kMaxThreads);
static_assert(TANDEM_MOST_CONTEXT == EngineOptions::kMostContext);
static_assert(TANDEM_MOST_REPEAT_LAST_N == SamplingParameters::kMostRepeatLastN);

constexpr uint32_t kMostTraceRecords = 1 << 22;  // 1.25 GiB

LogCallback log_callback(tandem_log_fn callback, void* user) {
  if (callback == nullptr) return {};
  return [callback, user](LogLevel level, std::string_view text) {
    callback(user, static_cast<tandem_log_level>(level), std::string(text).c_str());
  };
}

// A number where C has an enumeration; a C++ compiler may take any other value than the named ones
// for impossible.
template <typename Enum>
int number_of(const Enum& value) {
  static_assert(sizeof(Enum) == sizeof(int));
  int number = 0;
  std::memcpy(&number, &value, sizeof(number));
  return number;
}

Result<EngineOptions> read_options(const tandem_engine_options* options) {
  TANDEM_ASSIGN_OR_RETURN(const tandem_engine_options in, read_struct(options, "options"));
  EngineOptions out;
  out.n_threads = in.n_threads;
  out.n_context = in.n_context;
  const int read_mode = number_of(in.read_mode), kv_type = number_of(in.kv_type);
  switch (read_mode) {
    case TANDEM_READ_AUTO:
      out.store.read_mode = BlockStoreOptions::ReadMode::kAuto;
      break;
    case TANDEM_READ_BUFFERED:
      out.store.read_mode = BlockStoreOptions::ReadMode::kBuffered;
      break;
    case TANDEM_READ_DIRECT:
      out.store.read_mode = BlockStoreOptions::ReadMode::kDirect;
      break;
    default:
      return invalid_argument("options.read_mode is " + std::to_string(read_mode));
  }
  switch (kv_type) {
    case TANDEM_KV_F16:
      out.kv_type = KvType::kF16;
      break;
    case TANDEM_KV_F32:
      out.kv_type = KvType::kF32;
      break;
    case TANDEM_KV_Q8_0:
      out.kv_type = KvType::kQ8_0;
      break;
    default:
      return invalid_argument("options.kv_type is " + std::to_string(kv_type));
  }
  out.force = in.force != 0;
  if (in.trace_records > kMostTraceRecords) {
    return invalid_argument("options.trace_records is " + std::to_string(in.trace_records) +
                            ", at most " + std::to_string(kMostTraceRecords) + " are kept");
  }
  out.trace_records = in.trace_records;
  out.progress = progress_callback(in.progress, in.progress_user);
  out.cancel = in.cancel != nullptr ? &in.cancel->flag : nullptr;
  out.log = log_callback(in.log, in.log_user);
  const auto take = [](const char* text, auto& field) {
    if (text != nullptr) field = text;
  };
  take(in.device, out.hybrid.device);
  take(in.gpu_layers, out.hybrid.gpu_layers);
  take(in.cpu_experts, out.hybrid.cpu_experts);
  take(in.place_file, out.hybrid.place_file);
  if (in.device_memory != nullptr) {
    const Result<uint64_t> bytes = parse_bytes(in.device_memory);
    if (!bytes.ok() || *bytes == 0) {
      return invalid_argument("device_memory is '" + std::string(in.device_memory).substr(0, 64) +
                              "', expected a size like 6GiB");
    }
    out.hybrid.device_memory = *bytes;
  }
  out.hybrid.expert_cache = in.no_expert_cache == 0;
  out.hybrid.split = in.no_split == 0;
  return out;
}

// The engine refers to its model, which therefore goes after it.
std::shared_ptr<Engine> keep_model(std::unique_ptr<Engine> engine,
                                   std::shared_ptr<const Model> model) {
  return {engine.release(),
          [model = std::move(model)](Engine* last) { std::default_delete<Engine>()(last); }};
}

tandem_engine_info info_of(const EngineInfo& from) {
  tandem_engine_info info = {};
  info.struct_bytes = sizeof(info);
  info.n_threads = from.n_threads;
  info.n_context = static_cast<uint32_t>(from.n_context);
  info.isa = from.isa.c_str();
  info.read_mode = from.read_mode.c_str();
  info.load_seconds = from.load_seconds;
  info.bytes_per_token = from.bytes_per_token;
  info.device = from.device.c_str();
  info.plan = from.plan.c_str();
  return info;
}

tandem_tier_report report_of(const TierReport& from) {
  tandem_tier_report report = {};
  report.struct_bytes = sizeof(report);
  report.name = from.name;
  report.free_bytes = from.free_bytes;
  report.weight_bytes = from.weight_bytes;
  report.kv_bytes = from.kv_bytes;
  report.kv_reserved_bytes = from.kv_reserved_bytes;
  report.work_bytes = from.work_bytes;
  report.huge_page_bytes = from.huge_page_bytes;
  report.n_expert_slots = from.n_expert_slots;
  report.expert_hits = from.expert_hits;
  report.expert_misses = from.expert_misses;
  report.budget_bytes = from.budget_bytes;
  return report;
}

tandem_lane_report report_of(const TraceSummary& summary, TraceLane which) {
  const TraceSummary::Lane& lane = summary.lanes[static_cast<size_t>(which)];
  tandem_lane_report report = {};
  report.struct_bytes = sizeof(report);
  report.name = lane_name(which).data();  // literals
  report.n_records = lane.n_records;
  report.busy_seconds = lane.busy_seconds;
  report.window_seconds = summary.seconds;
  report.is_critical = summary.critical == which ? 1 : 0;
  return report;
}

Status give_lanes(const TraceSummary& summary, tandem_lane_report* lanes, size_t capacity,
                  size_t* n_lanes) {
  size_t n = 0;
  if (capacity > 0) {
    TANDEM_REQUIRE_ARGUMENT(lanes);
    TANDEM_RETURN_IF_ERROR(check_elements(lanes, std::min(capacity, kTraceLanes), "lanes"));
  }
  for (size_t i = 0; i < kTraceLanes; ++i) {
    if (summary.lanes[i].n_records == 0) continue;
    if (n < capacity) {
      write_struct(report_of(summary, static_cast<TraceLane>(i)), element(lanes, n));
    }
    ++n;
  }
  *n_lanes = n;
  return ok_status();
}

Result<StepRecorder*> recorder_of(const tandem_engine& engine) {
  StepRecorder* const recorder = engine.engine->recorder();
  if (recorder == nullptr) {
    return invalid_argument(
        "the engine was made without options.trace_records: nothing was measured");
  }
  return recorder;
}

Status give_tiers(const std::vector<TierReport>& all, tandem_tier_report* tiers, size_t capacity) {
  if (capacity == 0) return ok_status();
  TANDEM_REQUIRE_ARGUMENT(tiers);
  const size_t n = std::min(capacity, all.size());
  TANDEM_RETURN_IF_ERROR(check_elements(tiers, n, "tiers"));
  for (size_t i = 0; i < n; ++i) write_struct(report_of(all[i]), element(tiers, i));
  return ok_status();
}

}  // namespace
}  // namespace tandem::c_api

using namespace tandem;
using namespace tandem::c_api;

extern "C" {

tandem_code tandem_engine_create(const tandem_model* model, const tandem_engine_options* options,
                                 tandem_engine** out, tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(model);
    TANDEM_REQUIRE_ARGUMENT(out);
    TANDEM_ASSIGN_OR_RETURN(EngineOptions read, read_options(options));
    auto object = std::make_unique<tandem_engine>();
    TANDEM_ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine,
                            Engine::create(*model->model, std::move(read)));
    object->engine = keep_model(std::move(engine), model->model);
    *out = object.release();
    return ok_status();
  });
}

void tandem_engine_free(tandem_engine* engine) noexcept { delete engine; }

tandem_code tandem_engine_get_info(const tandem_engine* engine, tandem_engine_info* info,
                                   tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(engine);
    TANDEM_REQUIRE_ARGUMENT(info);
    return fill_struct(info_of(engine->engine->info()), info, "info");
  });
}

tandem_code tandem_engine_set_device_memory(tandem_engine* engine, uint64_t bytes,
                                            tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(engine);
    return engine->engine->set_device_memory(bytes);
  });
}

tandem_code tandem_engine_placement(const tandem_engine* engine, char** json,
                                    tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(engine);
    TANDEM_REQUIRE_ARGUMENT(json);
    *json = copy_string(engine->engine->placement_json());
    return ok_status();
  });
}

tandem_code tandem_engine_get_memory(const tandem_engine* engine, tandem_tier_report* tiers,
                                     size_t capacity, size_t* n_tiers,
                                     tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(engine);
    TANDEM_REQUIRE_ARGUMENT(n_tiers);
    const std::vector<TierReport> all = engine->engine->memory();
    TANDEM_RETURN_IF_ERROR(give_tiers(all, tiers, capacity));
    *n_tiers = all.size();
    return ok_status();
  });
}

tandem_code tandem_engine_write_trace(const tandem_engine* engine, const char* path,
                                      tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(engine);
    TANDEM_REQUIRE_ARGUMENT(path);
    TANDEM_ASSIGN_OR_RETURN(const StepRecorder* const recorder, recorder_of(*engine));
    return recorder->write_perfetto(path);
  });
}

tandem_code tandem_engine_trace_text(const tandem_engine* engine, char** text,
                                     tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(engine);
    TANDEM_REQUIRE_ARGUMENT(text);
    TANDEM_RETURN_IF_ERROR(recorder_of(*engine).status());
    *text = copy_string(engine->engine->trace_text());
    return ok_status();
  });
}

tandem_code tandem_engine_get_lanes(const tandem_engine* engine, tandem_lane_report* lanes,
                                    size_t capacity, size_t* n_lanes,
                                    tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(engine);
    TANDEM_REQUIRE_ARGUMENT(n_lanes);
    TANDEM_ASSIGN_OR_RETURN(const StepRecorder* const recorder, recorder_of(*engine));
    return give_lanes(recorder->summarize(), lanes, capacity, n_lanes);
  });
}

tandem_code tandem_engine_clear_trace(tandem_engine* engine, tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(engine);
    TANDEM_ASSIGN_OR_RETURN(StepRecorder* const recorder, recorder_of(*engine));
    recorder->clear();
    return ok_status();
  });
}

}  // extern "C"

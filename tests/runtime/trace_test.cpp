// What an engine says its steps took, through the C API.
#include <map>
#include <nlohmann/json.hpp>

#include "runtime/api.h"
#include "status_matchers.h"

namespace tandem::testing {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

tandem_engine_options traced(const char* device = nullptr) {
  tandem_engine_options options = engine_options();
  options.trace_records = 4096;
  options.device = device;
  if (device != nullptr) options.cpu_experts = "1";
  return options;
}

void decode(const Loaded& loaded, uint32_t n_tokens = 8) {
  const SessionPtr session = loaded.session();
  const TokenRequest request(some_tokens(20), n_tokens, seeded(loaded.model.get(), 3));
  EXPECT_EQ(n_tokens, ask(session.get(), request.request).tokens.size());
}

std::map<std::string, tandem_lane_report> lanes_of(const Loaded& loaded) {
  tandem_lane_report lanes[8];
  for (tandem_lane_report& lane : lanes) lane = TANDEM_INIT(tandem_lane_report);
  size_t n = 0;
  Error error;
  EXPECT_TANDEM_OK(tandem_engine_get_lanes(loaded.engine.get(), lanes, 8, &n, error), error);
  std::map<std::string, tandem_lane_report> result;
  for (size_t i = 0; i < n; ++i) result[lanes[i].name] = lanes[i];
  return result;
}

Json read_trace(const Loaded& loaded, const std::string& path) {
  Error error;
  EXPECT_TANDEM_OK(tandem_engine_write_trace(loaded.engine.get(), path.c_str(), error), error);
  std::ifstream file(path);
  return Json::parse(file, nullptr, false);
}

TEST(EngineTrace, HasTheLanesOfBothProcessors) {
  const Loaded loaded(golden_model("qwen3moe"),
                      traced("mirror:vram=64MiB,link=5GB/s,latency=20us"));
  decode(loaded);
  auto lanes = lanes_of(loaded);
  ASSERT_EQ(5u, lanes.size());
  EXPECT_EQ(1 + 8u, lanes["step"].n_records) << "a prompt, then tokens one by one";
  int n_critical = 0;
  for (const auto& [name, lane] : lanes) {
    EXPECT_GT(lane.n_records, 0u) << name;
    EXPECT_GT(lane.busy_seconds, 0) << name;
    EXPECT_LE(lane.busy_seconds, lane.window_seconds) << name;
    n_critical += lane.is_critical;
  }
  EXPECT_EQ(1, n_critical);
  EXPECT_EQ(0, lanes["step"].is_critical);
  // Each lane's work lies within the steps, but for a step's input that is copied before its first task.
  EXPECT_LE(lanes["cpu"].busy_seconds, lanes["step"].busy_seconds);
}

TEST(EngineTrace, IsWrittenForPerfettoWithPredictions) {
  const TemporaryFolder folder;
  const Loaded loaded(golden_model("qwen3moe"), traced("mirror:vram=64MiB"));
  decode(loaded);
  const Json trace = read_trace(loaded, (folder / "trace.json").string());
  ASSERT_TRUE(trace.contains("traceEvents"));
  size_t n_device = 0, n_predicted = 0;
  for (const Json& event : trace["traceEvents"]) {
    const std::string name = event["name"];
    if (event.value("cat", "") != "device" || name == "signal" || name == "fill") continue;
    ++n_device;
    n_predicted += event["args"].contains("predicted_us") ? 1 : 0;
  }
  EXPECT_GT(n_device, 100u);
  EXPECT_EQ(n_device, n_predicted);
}

TEST(EngineTrace, WorksWithTheCpuAlone) {
  const Loaded loaded(golden_model("llama-mha"), traced());
  decode(loaded);
  auto lanes = lanes_of(loaded);
  EXPECT_EQ(2u, lanes.size());
  EXPECT_EQ(1, lanes["cpu"].is_critical);
  char* text = nullptr;
  Error error;
  ASSERT_TANDEM_OK(tandem_engine_trace_text(loaded.engine.get(), &text, error), error);
  EXPECT_THAT(text, HasSubstr("critical lane cpu"));
  EXPECT_THAT(text, HasSubstr("measured over predicted"));
  tandem_string_free(text);
}

TEST(EngineTrace, IsForgottenWhenAsked) {
  const Loaded loaded(golden_model("llama-mha"), traced());
  decode(loaded);
  ASSERT_EQ(TANDEM_OK, tandem_engine_clear_trace(loaded.engine.get(), nullptr));
  EXPECT_TRUE(lanes_of(loaded).empty());
  decode(loaded, 2);
  EXPECT_EQ(1 + 2u, lanes_of(loaded)["step"].n_records);
}

TEST(EngineTrace, CanBeReadWhileStepsRun) {
  const Loaded loaded(golden_model("qwen3moe"), traced("mirror:vram=64MiB"));
  std::thread reader([&] {
    for (int i = 0; i < 20; ++i) {
      lanes_of(loaded);
      char* text = nullptr;
      EXPECT_EQ(TANDEM_OK, tandem_engine_trace_text(loaded.engine.get(), &text, nullptr));
      tandem_string_free(text);
    }
  });
  decode(loaded, 30);
  reader.join();
}

TEST(EngineTrace, DoesNotChangeTheAnswer) {
  const Loaded plain(golden_model("qwen3moe")), recorded(golden_model("qwen3moe"), traced());
  const SessionPtr a = plain.session(), b = recorded.session();
  const TokenRequest request(some_tokens(20), 20, seeded(plain.model.get(), 3));
  EXPECT_EQ(ask(a.get(), request.request).tokens, ask(b.get(), request.request).tokens);
}

TEST(EngineTrace, IsRefusedWhereNothingWasMeasured) {
  const Loaded loaded(golden_model("llama-mha"));
  Error error;
  size_t n = 0;
  char* text = nullptr;
  const tandem_engine* engine = loaded.engine.get();
  EXPECT_EQ(TANDEM_ERROR_INVALID_ARGUMENT, tandem_engine_get_lanes(engine, nullptr, 0, &n, error));
  EXPECT_THAT(error.text(), HasSubstr("trace_records"));
  EXPECT_EQ(TANDEM_ERROR_INVALID_ARGUMENT, tandem_engine_trace_text(engine, &text, nullptr));
  EXPECT_EQ(TANDEM_ERROR_INVALID_ARGUMENT, tandem_engine_write_trace(engine, "/tmp/x", nullptr));
  EXPECT_EQ(TANDEM_ERROR_INVALID_ARGUMENT, tandem_engine_clear_trace(loaded.engine.get(), nullptr));
}

TEST(EngineTrace, ErrorsOfWritingNameTheFile) {
  const Loaded loaded(golden_model("llama-mha"), traced());
  Error error;
  EXPECT_EQ(TANDEM_ERROR_NOT_FOUND,
            tandem_engine_write_trace(loaded.engine.get(), "/nonexistent/trace.json", error));
  EXPECT_STREQ("/nonexistent/trace.json", error->file);
}

}  // namespace
}  // namespace tandem::testing

// Whole models on the device, through the C API: logits against those of the reference program.
#include <cstdlib>
#include <fstream>
#include <string_view>

#include "golden.h"
#include "runtime/api.h"
#include "status_matchers.h"

namespace tandem::testing {
namespace {

// Bounds as in tests/runtime/golden_test.cpp: other orders of float32 sums, or activations rounded to int8 and nothing else.
struct Model {
  const char* name;
  double bound;
};
constexpr double kFloat = 1e-4;
constexpr Model kModels[] = {
    {"llama-mha", kFloat},
    {"llama-yarn", kFloat},
    {"mistral-wide-heads", kFloat},
    {"mistral-window", kFloat},
    {"mixtral", kFloat},
    {"qwen2-tied", kFloat},
    {"qwen3moe", kFloat},
    {"llama-f16", kFloat},
    {"llama-bf16", kFloat},
    {"llama-q8_0", 1.1 * 3.6e-2},
    {"llama-q4_0", 1.1 * 3.3e-2},
    {"llama-q4_k", 1.1 * 2.1e-2},
    {"llama-q6_k", 1.1 * 2.6e-2},
    {"qwen3moe-q4_k", 1.1 * 2.1e-2},
};

tandem_engine_options on_device(const char* layers, const char* cpu_experts) {
  const char* device = std::getenv("TANDEM_TEST_DEVICE");
  tandem_engine_options options = engine_options(2, 192);
  options.kv_type = TANDEM_KV_F32;
  options.device = device != nullptr ? device : "mirror:vram=1GiB";
  options.gpu_layers = layers;
  options.cpu_experts = cpu_experts;
  return options;
}

void expect_golden(const Model& model, const tandem_engine_options& options) {
  const Golden golden = read_golden(model.name);
  const Loaded loaded(golden_model(model.name), options);
  const std::vector<float> logits = evaluate(loaded.session().get(), golden.tokens);
  ASSERT_EQ(logits.size(), golden.logits.size()) << model.name;
  for (size_t t = 0; t < golden.tokens.size(); ++t) {
    const std::span<const float> row(logits.data() + t * golden.n_vocabulary, golden.n_vocabulary);
    ASSERT_LE(relative_l2(row, golden.row(t)), model.bound) << model.name << ", position " << t;
  }
}

TEST(ModelOnDevice, GivesTheReferencesLogits) {
  for (const Model& model : kModels) expect_golden(model, on_device("all", "0"));
}

TEST(ModelOnDevice, GivesThemWithOneLayerThere) {
  for (const Model& model : kModels) expect_golden(model, on_device("1", "0"));
}

TEST(ModelOnDevice, GivesThemWithExpertsInRam) {
  for (const Model& model : kModels) expect_golden(model, on_device("all", "all"));
}

TEST(ModelOnDevice, GivesThemWithWeightsThatAreStreamed) {
  const TemporaryFolder folder;
  const std::string path = (folder / "place.json").string();
  std::ofstream(path) << R"({"version": 1, "blocks": [
      {"match": "blk.*.attn_*", "tier": "dram", "processor": "device"}]})";
  for (const Model& model : kModels) {
    tandem_engine_options options = on_device("all", "0");
    options.place_file = path.c_str();
    expect_golden(model, options);
  }
}

TEST(ModelOnDevice, SaysWhatItsWorkTook) {
  tandem_engine_options options = on_device("all", "0");
  options.trace_records = 10000;
  const Golden golden = read_golden("llama-mha");
  const Loaded loaded(golden_model("llama-mha"), options);
  (void)evaluate(loaded.session().get(), golden.tokens);
  tandem_lane_report lanes[8];
  for (tandem_lane_report& lane : lanes) lane = TANDEM_INIT(tandem_lane_report);
  size_t n = 0;
  ASSERT_EQ(TANDEM_OK, tandem_engine_get_lanes(loaded.engine.get(), lanes, 8, &n, nullptr));
  bool found = false;
  for (const tandem_lane_report& lane : std::span(lanes, n)) {
    if (std::string_view(lane.name) != "device") continue;
    found = true;
    EXPECT_GT(lane.n_records, 20u);
    EXPECT_GT(lane.busy_seconds, 0);
  }
  EXPECT_TRUE(found);
}

TEST(ModelOnDevice, GivesTheSameBitsOneTokenAtATime) {
  for (const Model& model : kModels) {
    const Golden golden = read_golden(model.name);
    const Loaded loaded(golden_model(model.name), on_device("all", "0"));
    const SessionPtr batch = loaded.session(), single = loaded.session();
    std::vector<float> rows;
    for (const int32_t token : golden.tokens) {
      const std::vector<float> row = evaluate(single.get(), {token});
      rows.insert(rows.end(), row.begin(), row.end());
    }
    EXPECT_EQ(rows, evaluate(batch.get(), golden.tokens)) << model.name;
  }
}

}  // namespace
}  // namespace tandem::testing

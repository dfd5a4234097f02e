// Whole models on the device, through the C API: logits against those of the reference program.
#include <cstdlib>

#include "golden.h"
#include "runtime/api.h"

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

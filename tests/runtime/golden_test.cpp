// Logits of the fixture models against those of the programs they were made with, and against
// themselves along every path that must not change a bit.
#include <cstdlib>

#include "golden.h"
#include "runtime/api.h"
#include "status_matchers.h"

namespace tandem::testing {
namespace {

// Relative L2 error that a position's logits may have.
//  Float weights are multiplied with float32 activations: only the order of sums differs.
//  Quantised weights are multiplied with activations rounded to int8 in blocks of 32
//  (docs/numerics.md).  What that rounding alone does to these models was simulated when they were
//  made (tests/fixtures/README.md, column "int8, one scale per 32"), and the engine's error is that
//  one within 2 %; a tenth more is allowed for ties that round the other way.
struct Case {
  const char* name;
  double bound;
};
constexpr double kFloat = 1e-4;
constexpr Case kCases[] = {
    {"llama-mha", kFloat},           {"llama3-factors", kFloat},
    {"llama-linear", kFloat},        {"llama-yarn", kFloat},
    {"mistral-wide-heads", kFloat},  {"mixtral", kFloat},
    {"qwen2-tied", kFloat},          {"qwen3", kFloat},
    {"qwen3-yarn", kFloat},          {"qwen3moe", kFloat},
    {"llama-yarn-tuned", kFloat},    {"mistral-window", kFloat},
    {"llama-split", kFloat},         {"llama-gguf-v2", kFloat},
    {"llama-f16", kFloat},           {"llama-bf16", kFloat},
    {"llama-q8_0", 1.1 * 3.6e-2},    {"llama-q4_0", 1.1 * 3.3e-2},
    {"llama-q4_k", 1.1 * 2.1e-2},    {"llama-q6_k", 1.1 * 2.6e-2},
    {"qwen3moe-q4_k", 1.1 * 2.1e-2},
};

double worst_position(const std::vector<float>& actual, const Golden& golden) {
  if (actual.size() != golden.logits.size()) return INFINITY;
  double worst = 0;
  for (size_t t = 0; t < golden.tokens.size(); ++t) {
    const std::span<const float> row(actual.data() + t * golden.n_vocabulary, golden.n_vocabulary);
    worst = std::max(worst, relative_l2(row, golden.row(t)));
  }
  return worst;
}

tandem_engine_options exact_options(unsigned n_threads = 2) {
  tandem_engine_options options = engine_options(n_threads, 192);
  options.kv_type = TANDEM_KV_F32;
  return options;
}

std::vector<float> logits_of(const std::string& name, const tandem_engine_options& options,
                             const Golden& golden) {
  const Loaded loaded(golden_model(name), options);
  return evaluate(loaded.session().get(), golden.tokens);
}

class GoldenLogits : public ::testing::TestWithParam<Case> {};

TEST_P(GoldenLogits, MatchTheReferenceAtEveryPosition) {
  const Golden golden = read_golden(GetParam().name);
  const double worst = worst_position(logits_of(GetParam().name, exact_options(), golden), golden);
  RecordProperty("worst_relative_l2", std::to_string(worst));
  EXPECT_LE(worst, GetParam().bound);
}

// Keys and values rounded to 11 bits: what rounding every matrix product's input so does to these
// models is at most 1.8e-3 (tests/fixtures/README.md, column f16).
TEST_P(GoldenLogits, ChangeLittleWhenKeysAndValuesAreHalfPrecision) {
  const Golden golden = read_golden(GetParam().name);
  tandem_engine_options options = exact_options();
  options.kv_type = TANDEM_KV_F16;
  Golden exact = golden;
  exact.logits = logits_of(GetParam().name, exact_options(), golden);
  const double worst = worst_position(logits_of(GetParam().name, options, golden), exact);
  RecordProperty("worst_relative_l2", std::to_string(worst));
  EXPECT_GT(worst, 0);
  // Where activations are rounded to int8, a value near a tie may fall to its other side.
  EXPECT_LE(worst, GetParam().bound > kFloat ? GetParam().bound : 1.8e-3);
}

TEST_P(GoldenLogits, AreBitIdenticalOneTokenAtATime) {
  const Golden golden = read_golden(GetParam().name);
  const Loaded loaded(golden_model(GetParam().name), exact_options());
  const SessionPtr batch = loaded.session(), single = loaded.session();
  std::vector<float> rows;
  for (const int32_t token : golden.tokens) {
    const std::vector<float> row = evaluate(single.get(), {token});
    rows.insert(rows.end(), row.begin(), row.end());
  }
  EXPECT_EQ(rows, evaluate(batch.get(), golden.tokens));
}

TEST_P(GoldenLogits, AreBitIdenticalForOneAndTwoThreads) {
  const Golden golden = read_golden(GetParam().name);
  EXPECT_EQ(logits_of(GetParam().name, exact_options(1), golden),
            logits_of(GetParam().name, exact_options(2), golden));
}

TEST_P(GoldenLogits, AreBitIdenticalForBufferedAndDirectReads) {
  const Golden golden = read_golden(GetParam().name);
  tandem_engine_options buffered = exact_options(), direct = exact_options();
  buffered.read_mode = TANDEM_READ_BUFFERED;
  direct.read_mode = TANDEM_READ_DIRECT;
  const ModelPtr model = open_model(golden_model(GetParam().name));
  Error error;
  tandem_engine* made = nullptr;
  const tandem_code code = tandem_engine_create(model.get(), &direct, &made, error);
  if (code == TANDEM_ERROR_UNSUPPORTED) GTEST_SKIP() << error.text();
  ASSERT_TANDEM_OK(code, error);
  const EnginePtr engine(made);
  tandem_engine_info info = TANDEM_INIT(tandem_engine_info);
  ASSERT_TANDEM_OK(tandem_engine_get_info(engine.get(), &info, error), error);
  EXPECT_THAT(info.read_mode, ::testing::StartsWith("direct"));
  EXPECT_EQ(evaluate(create_session(engine.get()).get(), golden.tokens),
            logits_of(GetParam().name, buffered, golden));
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenLogits, ::testing::ValuesIn(kCases),
                         [](const auto& instance) {
                           std::string name = instance.param.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// Sets TANDEM_CPU_ISA for as long as it lives.
class ForcedIsa {
 public:
  explicit ForcedIsa(const char* isa) {
    const char* before = std::getenv("TANDEM_CPU_ISA");
    if (before != nullptr) before_ = before;
    had_ = before != nullptr;
    ::setenv("TANDEM_CPU_ISA", isa, 1);
  }
  ~ForcedIsa() {
    had_ ? ::setenv("TANDEM_CPU_ISA", before_.c_str(), 1) : ::unsetenv("TANDEM_CPU_ISA");
  }
  ForcedIsa(const ForcedIsa&) = delete;
  ForcedIsa& operator=(const ForcedIsa&) = delete;

 private:
  bool had_ = false;
  std::string before_;
};

class InstructionSet : public ::testing::TestWithParam<const char*> {};

TEST_P(InstructionSet, GivesTheGoldenLogitsAndTheSameLikeliestTokens) {
  const ForcedIsa forced(GetParam());
  for (const Case& c : kCases) {
    const Golden golden = read_golden(c.name);
    const ModelPtr model = open_model(golden_model(c.name));
    const tandem_engine_options options = exact_options();
    Error error;
    tandem_engine* made = nullptr;
    const tandem_code code = tandem_engine_create(model.get(), &options, &made, error);
    if (code == TANDEM_ERROR_UNSUPPORTED || code == TANDEM_ERROR_INVALID_ARGUMENT)
      GTEST_SKIP() << error.text();
    ASSERT_TANDEM_OK(code, error);
    const EnginePtr engine(made);
    tandem_engine_info info = TANDEM_INIT(tandem_engine_info);
    ASSERT_TANDEM_OK(tandem_engine_get_info(engine.get(), &info, error), error);
    ASSERT_STREQ(GetParam(), info.isa);
    const std::vector<float> actual = evaluate(create_session(engine.get()).get(), golden.tokens);
    EXPECT_LE(worst_position(actual, golden), c.bound) << c.name;
    ASSERT_EQ(golden.logits.size(), actual.size());
    for (size_t t = 0; t < golden.tokens.size(); ++t) {
      const float* expected = golden.logits.data() + t * golden.n_vocabulary;
      const float* row = actual.data() + t * golden.n_vocabulary;
      const auto best = std::max_element(expected, expected + golden.n_vocabulary) - expected;
      const auto chosen = std::max_element(row, row + golden.n_vocabulary) - row;
      // Each of the two logits may be off by the bound times the row's norm.
      double norm = 0;
      for (size_t v = 0; v < golden.n_vocabulary; ++v)
        norm += double{expected[v]} * double{expected[v]};
      EXPECT_LE(expected[best] - expected[chosen], 2 * c.bound * std::sqrt(norm))
          << c.name << " position " << t;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, InstructionSet, ::testing::Values("scalar", "avx2", "avx512"),
                         [](const auto& instance) { return std::string(instance.param); });

TEST(Evaluate, StoppedByItsCallbackKeepsTheTokensItSaw) {
  const Loaded loaded(golden_model("llama-mha"));
  const SessionPtr session = loaded.session();
  const auto stop_at_third = [](void*, size_t index, const float*, size_t) {
    return index == 2 ? 1 : 0;
  };
  const std::vector<int32_t> tokens = some_tokens(8);
  EXPECT_EQ(TANDEM_ERROR_CANCELLED,
            tandem_session_evaluate(session.get(), tokens.data(), tokens.size(), stop_at_third,
                                    nullptr, nullptr));
  EXPECT_EQ(std::vector<int32_t>(tokens.begin(), tokens.begin() + 3), held_tokens(session.get()));
}

TEST(Evaluate, RefusesTokensOutsideTheVocabularyAndKeepsTheSession) {
  const Loaded loaded(golden_model("llama-mha"));
  const SessionPtr session = loaded.session();
  evaluate(session.get(), some_tokens(4));
  for (const int32_t bad :
       {-1, static_cast<int32_t>(loaded.n_vocabulary()), INT32_MAX, INT32_MIN}) {
    Error error;
    EXPECT_EQ(TANDEM_ERROR_INVALID_ARGUMENT,
              tandem_session_evaluate(session.get(), &bad, 1, nullptr, nullptr, error));
    EXPECT_THAT(error.text(), ::testing::HasSubstr(std::to_string(bad)));
  }
  EXPECT_EQ(some_tokens(4), held_tokens(session.get()));
}

TEST(Evaluate, BeyondTheContextIsRefusedAndKeepsTheSession) {
  const Loaded loaded(golden_model("llama-mha"));
  const SessionPtr session = loaded.session(32);
  evaluate(session.get(), some_tokens(30));
  const std::vector<int32_t> more = some_tokens(3);
  Error error;
  EXPECT_EQ(
      TANDEM_ERROR_INVALID_ARGUMENT,
      tandem_session_evaluate(session.get(), more.data(), more.size(), nullptr, nullptr, error));
  EXPECT_THAT(error.text(), ::testing::HasSubstr("33"));
  EXPECT_EQ(some_tokens(30), held_tokens(session.get()));
}

}  // namespace
}  // namespace tandem::testing

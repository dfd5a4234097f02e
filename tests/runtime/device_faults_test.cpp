// What goes wrong on a device while an engine loads and decodes: whichever allocation, copy, operation, submission or command it
// is, it ends in an error that says so, never in a wrong token, and the engine can be freed.
#include <algorithm>
#include <string>

#include "runtime/api.h"

namespace tandem::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint32_t kAnswer = 4;
// Under sanitizers every fault would take minutes.
constexpr uint64_t kSanitizedStride = kSanitized ? 13 : 1;

struct Setting {
  const char* name;
  const char* model;
  const char* device;
  uint64_t stride;  // 1: every fault
};

// A kind of fault, how it is told, and when it is met.
struct Kind {
  const char* option;
  tandem_code code;
  const char* text;
  bool lasting;
  bool while_loading, while_decoding;
};

// A page that finds no memory stays in DRAM, which is no error.
constexpr Kind kAllocation = {
    "fail-allocation", TANDEM_ERROR_OUT_OF_MEMORY, "of device memory", false, true, false};
constexpr Kind kCopy = {"fail-copy", TANDEM_ERROR_DEVICE, "a copy of ", false, true, true};
constexpr Kind kOperation = {
    "fail-operation", TANDEM_ERROR_DEVICE, "operation ", false, false, true};
constexpr Kind kRefusal = {
    "refuse", TANDEM_ERROR_DEVICE, "to the mirror device was refused", false, true, true};
constexpr Kind kLoss = {
    "lost-after", TANDEM_ERROR_DEVICE_LOST, "the mirror device was lost", true, true, true};

enum class Met { kNo, kLoading, kDecoding };

class DeviceFaults : public ::testing::TestWithParam<Setting> {
 protected:
  // A prompt that ends just before a page does, and tokens beyond it.
  static std::vector<int32_t> prompt() { return some_tokens(62); }
  Answer answer(tandem_session* session) const {
    return ask(session, TokenRequest(prompt(), kAnswer, seeded(model_.get(), 3)).request);
  }

  void expect_told(const Kind& kind, tandem_code code, const std::string& text) {
    EXPECT_EQ(kind.code, code) << text;
    EXPECT_THAT(text, HasSubstr(kind.text));
    EXPECT_THAT(text, Not(HasSubstr("\n")));
  }

  // The engine could be made: how it answers.
  Met ask_despite(const Kind& kind, tandem_engine* engine) {
    const SessionPtr session = create_session(engine);
    Answer first;
    for (int round = 0;; ++round) {  // the second has what the first left everywhere
      first = answer(session.get());
      if (first.done.event.finish == TANDEM_FINISH_ERROR) break;
      EXPECT_EQ(expected_, first.tokens);
      if (round == 1) return Met::kNo;
      EXPECT_EQ(TANDEM_OK, tandem_session_truncate(session.get(), 0, nullptr));
    }
    expect_told(kind, first.done.error_code, first.done.error_text);
    EXPECT_LE(first.tokens.size(), expected_.size());
    EXPECT_TRUE(std::equal(first.tokens.begin(), first.tokens.end(), expected_.begin()))
        << "a wrong token before the error";
    EXPECT_EQ(TANDEM_OK, tandem_session_truncate(session.get(), 0, nullptr));
    const Answer second = answer(session.get());
    if (kind.lasting) {
      EXPECT_EQ(TANDEM_FINISH_ERROR, second.done.event.finish);
      expect_told(kind, second.done.error_code, second.done.error_text);
    } else {
      EXPECT_EQ(expected_, second.tokens) << second.done.error_text;
    }
    return Met::kDecoding;
  }

  Met run_with(const Kind& kind, uint64_t nth) {
    const std::string device =
        std::string(GetParam().device) + "," + kind.option + "=" + std::to_string(nth);
    SCOPED_TRACE(device);
    tandem_engine_options options = engine_options();
    options.device = device.c_str();
    tandem_engine* made = nullptr;
    Error error;
    const tandem_code code = tandem_engine_create(model_.get(), &options, &made, error);
    if (code != TANDEM_OK) {
      EXPECT_EQ(nullptr, made);
      expect_told(kind, code, error.text());
      return Met::kLoading;
    }
    const EnginePtr engine(made);
    return ask_despite(kind, engine.get());
  }

  // Each fault, the first first, until several in a row were not met.
  void expect_all_told(const Kind& kind) {
    constexpr int kClean = 6;  // an allocation that fails may do no harm
    int n_loading = 0, n_decoding = 0, n_clean = 0;
    for (uint64_t nth = 1; n_clean < kClean && !HasFailure();
         nth += GetParam().stride * kSanitizedStride) {
      const Met met = run_with(kind, nth);
      n_loading += met == Met::kLoading ? 1 : 0;
      n_decoding += met == Met::kDecoding ? 1 : 0;
      n_clean = met == Met::kNo ? n_clean + 1 : 0;
    }
    std::printf("%s, %s: %d while loading, %d while decoding\n", GetParam().name, kind.option,
                n_loading, n_decoding);
    EXPECT_EQ(kind.while_loading, n_loading > 0);
    EXPECT_EQ(kind.while_decoding, n_decoding > 0);
  }

  const ModelPtr model_ = open_model(golden_model(GetParam().model));
  const EnginePtr alone_ = create_engine(model_.get());
  const std::vector<int32_t> expected_ = answer(create_session(alone_.get()).get()).tokens;
};

TEST_P(DeviceFaults, EveryFailedAllocationIsToldOrDoneWithout) { expect_all_told(kAllocation); }
TEST_P(DeviceFaults, EveryFailedCopyIsTold) { expect_all_told(kCopy); }
TEST_P(DeviceFaults, EveryFailedOperationIsTold) { expect_all_told(kOperation); }
TEST_P(DeviceFaults, EveryRefusedSubmissionIsTold) { expect_all_told(kRefusal); }
TEST_P(DeviceFaults, ADeviceLostAfterAnyCommandIsTold) { expect_all_told(kLoss); }

INSTANTIATE_TEST_SUITE_P(
    Settings, DeviceFaults,
    ::testing::Values(Setting{"Whole", "llama-mha", "mirror:vram=64MiB", 1},
                      Setting{"WholeLazy", "llama-mha", "mirror:vram=64MiB,order=lazy,poison", 3},
                      Setting{"Experts", "qwen3moe", "mirror:vram=500KiB,poison", 1},
                      Setting{"ExpertsLazy", "qwen3moe", "mirror:vram=600KiB,order=lazy", 4},
                      Setting{"ExpertsRandom", "qwen3moe",
                              "mirror:vram=500KiB,order=random:3,poison", 3}),
    [](const auto& instance) { return instance.param.name; });

// The page that a decoded token needs finds no memory: it goes on in DRAM.
TEST(DeviceFault, APageThatFindsNoMemoryInDecodeStaysInDram) {
  const ModelPtr model = open_model(golden_model("llama-mha"));
  const TokenRequest request(some_tokens(62), 80, seeded(model.get(), 3));
  const EnginePtr alone = create_engine(model.get());
  const std::vector<int32_t> expected =
      ask(create_session(alone.get()).get(), request.request).tokens;
  ASSERT_EQ(80u, expected.size());
  // By the number of the allocation that fails, from the first that is not one of loading.
  std::vector<uint64_t> kv_bytes;
  for (int nth = 1; nth < 1000 && kv_bytes.size() < 4; ++nth) {
    const std::string device = "mirror:vram=64MiB,poison,fail-allocation=" + std::to_string(nth);
    tandem_engine_options options = engine_options();
    options.device = device.c_str();
    tandem_engine* made = nullptr;
    const tandem_code code = tandem_engine_create(model.get(), &options, &made, nullptr);
    if (code != TANDEM_OK) continue;
    const EnginePtr engine(made);
    const SessionPtr session = create_session(made);
    EXPECT_EQ(expected, ask(session.get(), request.request).tokens) << device;
    kv_bytes.push_back(device_tier(made).kv_bytes);
  }
  ASSERT_EQ(4u, kv_bytes.size());
  const uint64_t page = kv_bytes[3] - kv_bytes[2];  // nothing failed: three pages
  EXPECT_GT(page, 0u);
  EXPECT_EQ(page, kv_bytes[2] - kv_bytes[1]);
  EXPECT_EQ(page, kv_bytes[1] - kv_bytes[0]);
}

}  // namespace
}  // namespace tandem::testing

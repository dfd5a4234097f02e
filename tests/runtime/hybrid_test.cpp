// An engine with a second processor, through the C API: answers, states and errors are those of the CPU alone.
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "runtime/api.h"
#include "status_matchers.h"

namespace tandem::testing {
namespace {

using ::testing::HasSubstr;

tandem_engine_options with_device(const char* device, const char* gpu_layers = nullptr) {
  tandem_engine_options options = engine_options();
  options.device = device;
  options.gpu_layers = gpu_layers;
  return options;
}

class EngineWithDevice : public ::testing::TestWithParam<const char*> {
 protected:
  static constexpr const char* kModel = "qwen3moe";
  const Loaded alone_{golden_model(kModel)};
  const Loaded both_{golden_model(kModel), with_device(GetParam())};

  static std::vector<int32_t> answer(const Loaded& loaded, tandem_session* session, size_t n) {
    const TokenRequest request(some_tokens(n), 40, seeded(loaded.model.get(), 3));
    return ask(session, request.request).tokens;
  }
};

TEST_P(EngineWithDevice, AnswersWithTheTokensOfTheCpuAlone) {
  const SessionPtr expected = alone_.session(), given = both_.session();
  EXPECT_EQ(answer(alone_, expected.get(), 70), answer(both_, given.get(), 70));
  EXPECT_EQ(answer(alone_, expected.get(), 5), answer(both_, given.get(), 5)) << "second turn";
}

TEST_P(EngineWithDevice, SavedStatesGoOnWithOrWithoutIt) {
  const TemporaryFolder folder;
  const std::string path = (folder / "state").string(), other = (folder / "other").string();
  const SessionPtr first = both_.session();
  answer(both_, first.get(), 70);
  ASSERT_EQ(TANDEM_OK, tandem_session_save(first.get(), path.c_str(), nullptr));
  const SessionPtr on_cpu = alone_.session(), on_both = both_.session();
  ASSERT_EQ(TANDEM_OK, tandem_session_load(on_cpu.get(), path.c_str(), nullptr));
  ASSERT_EQ(TANDEM_OK, tandem_session_load(on_both.get(), path.c_str(), nullptr));
  const std::vector<int32_t> expected = answer(alone_, on_cpu.get(), 6);
  EXPECT_EQ(expected, answer(both_, on_both.get(), 6));
  EXPECT_EQ(expected, answer(both_, first.get(), 6));
  ASSERT_EQ(TANDEM_OK, tandem_session_save(on_cpu.get(), path.c_str(), nullptr));
  ASSERT_EQ(TANDEM_OK, tandem_session_save(first.get(), other.c_str(), nullptr));
  const auto bytes = [](const std::string& name) {
    std::ifstream file(name, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  const std::string ours = bytes(other), theirs = bytes(path);
  ASSERT_EQ(theirs.size(), ours.size());
  const auto differ = std::mismatch(ours.begin(), ours.end(), theirs.begin()).first;
  EXPECT_TRUE(differ == ours.end())
      << "keys and values differ from byte " << differ - ours.begin() << " of " << ours.size();
}

TEST_P(EngineWithDevice, ForkedAndTruncatedSessionsGoOnAlike) {
  const SessionPtr first = both_.session();
  answer(both_, first.get(), 70);
  tandem_session* made = nullptr;
  ASSERT_EQ(TANDEM_OK, tandem_session_fork(first.get(), &made, nullptr));
  const SessionPtr fork(made);
  ASSERT_EQ(TANDEM_OK, tandem_session_truncate(fork.get(), 66, nullptr));
  ASSERT_EQ(TANDEM_OK, tandem_session_truncate(first.get(), 66, nullptr));
  EXPECT_EQ(answer(both_, first.get(), 3), answer(both_, fork.get(), 3));
}

TEST_P(EngineWithDevice, ACancelledPromptLeavesTheSessionUsable) {
  const SessionPtr session = both_.session();
  const TokenRequest request(some_tokens(200), 20, seeded(both_.model.get(), 3));
  submit(session.get(), request.request);
  tandem_session_cancel(session.get());
  drain(session.get());
  ASSERT_EQ(TANDEM_OK, tandem_session_truncate(session.get(), 0, nullptr));
  const SessionPtr fresh = alone_.session();
  EXPECT_EQ(answer(alone_, fresh.get(), 20), answer(both_, session.get(), 20));
}

TEST_P(EngineWithDevice, SessionsTakeTurns) {
  const SessionPtr a = both_.session(), b = both_.session(), expected = alone_.session();
  const TokenRequest request(some_tokens(30), 60, seeded(both_.model.get(), 8));
  submit(a.get(), request.request);
  submit(b.get(), request.request);
  const std::vector<int32_t> tokens = ask(expected.get(), request.request).tokens;
  EXPECT_EQ(tokens, drain(a.get()).tokens);
  EXPECT_EQ(tokens, drain(b.get()).tokens);
}

INSTANTIATE_TEST_SUITE_P(Devices, EngineWithDevice,
                         ::testing::Values("mirror:vram=64MiB",
                                           "mirror:vram=500KiB,order=random:7,poison",
                                           "mirror:vram=1MiB,order=lazy,poison",
                                           "mirror:vram=64MiB,link=5GB/s,latency=20us"),
                         [](const auto& instance) {
                           return "Case" + std::to_string(instance.index);
                         });

TEST(EngineDevice, WithoutASplitAnswersAreThoseOfTheCpuAlone) {
  const Loaded alone(golden_model("qwen3moe"));
  for (const int no_split : {0, 1}) {
    tandem_engine_options options = with_device("mirror:vram=4MiB,poison");
    options.cpu_experts = "all";
    options.no_split = no_split;
    const Loaded both(golden_model("qwen3moe"), options);
    const SessionPtr expected = alone.session(), given = both.session();
    for (const size_t n : {70, 5}) {
      const TokenRequest request(some_tokens(n), 40, seeded(alone.model.get(), 3));
      EXPECT_EQ(ask(expected.get(), request.request).tokens,
                ask(given.get(), request.request).tokens)
          << "no_split " << no_split;
    }
  }
}

TEST(EngineDevice, ThatIsTooSmallForAnythingIsDoneWithout) {
  const Loaded alone(golden_model("qwen3moe"));
  const Loaded both(golden_model("qwen3moe"), with_device("mirror:vram=1"));
  const SessionPtr expected = alone.session(), given = both.session();
  const TokenRequest request(some_tokens(20), 10, seeded(alone.model.get(), 3));
  EXPECT_EQ(ask(expected.get(), request.request).tokens, ask(given.get(), request.request).tokens);
  tandem_engine_info info = TANDEM_INIT(tandem_engine_info);
  ASSERT_EQ(TANDEM_OK, tandem_engine_get_info(both.engine.get(), &info, nullptr));
  EXPECT_THAT(info.plan, HasSubstr("nothing on mirror"));
}

TEST(EngineDevice, IsNamedInTheReports) {
  const Loaded loaded(golden_model("llama-mha"), with_device("mirror:vram=64MiB"));
  tandem_engine_info info = TANDEM_INIT(tandem_engine_info);
  ASSERT_EQ(TANDEM_OK, tandem_engine_get_info(loaded.engine.get(), &info, nullptr));
  EXPECT_STREQ("mirror", info.device);
  EXPECT_THAT(info.plan, HasSubstr("mirror"));
  tandem_tier_report tiers[2] = {TANDEM_INIT(tandem_tier_report), TANDEM_INIT(tandem_tier_report)};
  size_t n = 0;
  ASSERT_EQ(TANDEM_OK, tandem_engine_get_memory(loaded.engine.get(), tiers, 2, &n, nullptr));
  ASSERT_EQ(2u, n);
  EXPECT_STREQ("mirror", tiers[1].name);
  EXPECT_GT(tiers[1].weight_bytes, 0u);
}

std::string plan_of(const char* model, const tandem_engine_options& options) {
  const Loaded loaded(golden_model(model), options);
  tandem_engine_info info = TANDEM_INIT(tandem_engine_info);
  EXPECT_EQ(TANDEM_OK, tandem_engine_get_info(loaded.engine.get(), &info, nullptr));
  return info.plan;
}

TEST(EngineDevice, ThePlanSaysWhichPartsAreThere) {
  EXPECT_EQ("all on mirror", plan_of("llama-mha", with_device("mirror:vram=64MiB")));
  EXPECT_THAT(plan_of("llama-mha", with_device("mirror:vram=64MiB", "1")),
              HasSubstr("1 of 2 layers"));
  const TemporaryFolder folder;
  const std::string path = (folder / "place.json").string();
  tandem_engine_options options = with_device("mirror:vram=64MiB");
  options.place_file = path.c_str();
  std::ofstream(path) << R"({"version": 1, "blocks": [
      {"match": "*", "tier": "dram", "processor": "cpu"},
      {"match": "blk.0.expert.*", "tier": "device", "processor": "device"}]})";
  const std::string experts = plan_of("qwen3moe", options);
  EXPECT_THAT(experts, HasSubstr(" experts on mirror, "));
  EXPECT_THAT(experts, ::testing::Not(HasSubstr("layers")));
  std::ofstream(path) << R"({"version": 1, "blocks": [
      {"match": "*", "tier": "dram", "processor": "cpu"},
      {"match": "blk.1.attn_*", "tier": "device", "processor": "device"}]})";
  EXPECT_THAT(plan_of("qwen3moe", options), HasSubstr("parts of 1 of 2 layers on mirror"));
}

TEST(EngineDevice, PlacementReadBackIsTheSame) {
  const TemporaryFolder folder;
  const std::string path = (folder / "place.json").string();
  const auto placement = [](const Loaded& loaded) {
    char* json = nullptr;
    EXPECT_EQ(TANDEM_OK, tandem_engine_placement(loaded.engine.get(), &json, nullptr));
    const std::string text = json;
    tandem_string_free(json);
    return text;
  };
  const Loaded first(golden_model("qwen3moe"), with_device("mirror:vram=600KiB"));
  const std::string text = placement(first);
  std::ofstream(path) << text;
  tandem_engine_options options = with_device("mirror:vram=64MiB");
  options.place_file = path.c_str();
  EXPECT_EQ(text, placement(Loaded(golden_model("qwen3moe"), options)));
}

struct Refusal {
  const char *device, *gpu_layers, *place;
  tandem_code code;
  const char* text;
};

TEST(EngineDevice, MemoryIsWhatTheOptionSays) {
  tandem_engine_options options = with_device("mirror:vram=64MiB");
  options.device_memory = "1MiB";
  const Loaded loaded(golden_model("qwen3moe"), options);
  EXPECT_EQ(1u << 20, device_tier(loaded.engine.get()).budget_bytes);
  const ModelPtr model = open_model(golden_model("qwen3moe"));
  for (const char* text : {"much", "0", "-1MiB", "1 MiB of it", ""}) {
    options.device_memory = text;
    tandem_engine* engine = nullptr;
    Error error;
    EXPECT_EQ(TANDEM_ERROR_INVALID_ARGUMENT,
              tandem_engine_create(model.get(), &options, &engine, error));
    EXPECT_THAT(error.text(), HasSubstr("device_memory is '" + std::string(text) + "'"));
  }
}

// Beside a request that is being answered.
TEST(EngineDevice, MemoryThatIsTakenBackAndGivenChangesNoAnswer) {
  const ModelPtr model = open_model(golden_model("qwen3moe"));
  const TokenRequest request(some_tokens(62), 100, seeded(model.get(), 3));
  const EnginePtr alone = create_engine(model.get());
  const std::vector<int32_t> expected =
      ask(create_session(alone.get()).get(), request.request).tokens;
  Error error;
  EXPECT_EQ(TANDEM_ERROR_INVALID_ARGUMENT,
            tandem_engine_set_device_memory(alone.get(), 1 << 20, error));
  EXPECT_THAT(error.text(), HasSubstr("no device"));

  const Loaded loaded(golden_model("qwen3moe"), with_device("mirror:vram=2MiB"));
  tandem_engine* const engine = loaded.engine.get();
  const SessionPtr session = loaded.session();
  EXPECT_EQ(expected, ask(session.get(), request.request).tokens);
  const tandem_tier_report at_first = device_tier(engine);
  std::atomic<bool> ends{false};
  std::thread mover([&] {
    for (uint64_t i = 0; !ends; ++i) {
      const uint64_t bytes = i % 3 == 0 ? 0 : at_first.budget_bytes / (1 + i % 3);
      EXPECT_EQ(TANDEM_OK, tandem_engine_set_device_memory(engine, bytes, nullptr));
      EXPECT_EQ(bytes == 0 ? at_first.budget_bytes : bytes, device_tier(engine).budget_bytes);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(TANDEM_OK, tandem_session_truncate(session.get(), 0, nullptr));
    EXPECT_EQ(expected, ask(session.get(), request.request).tokens);
  }
  ends = true;
  mover.join();
  EXPECT_EQ(TANDEM_OK, tandem_engine_set_device_memory(engine, 0, nullptr));
  EXPECT_EQ(at_first.budget_bytes, device_tier(engine).budget_bytes);
}

// Saving brings pages from the device while a step of another session moves its own.
TEST(EngineDevice, ASessionIsSavedBesideOneThatAnswers) {
  const ModelPtr model = open_model(golden_model("llama-mha"));
  const TokenRequest request(some_tokens(62), 100, seeded(model.get(), 3));
  const Loaded loaded(golden_model("llama-mha"), with_device("mirror:vram=64MiB"));
  const SessionPtr answering = loaded.session(), saved = loaded.session();
  const std::vector<int32_t> expected = ask(answering.get(), request.request).tokens;
  const TemporaryFolder folder;
  const std::string path = (folder / "state").string();
  std::atomic<bool> ends{false};
  std::thread saver([&] {
    for (int32_t i = 0; !ends; ++i) {
      evaluate(saved.get(), {i % 90});
      EXPECT_EQ(TANDEM_OK, tandem_session_save(saved.get(), path.c_str(), nullptr));
      if (i % 10 == 9) evaluate(loaded.session().get(), {1, 2});  // comes and goes
      if (i % 60 == 59) {
        EXPECT_EQ(TANDEM_OK, tandem_session_truncate(saved.get(), 0, nullptr));
      }
    }
  });
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(TANDEM_OK, tandem_session_truncate(answering.get(), 0, nullptr));
    EXPECT_EQ(expected, ask(answering.get(), request.request).tokens);
  }
  // Logits of all tokens are steps of their own.
  EXPECT_EQ(TANDEM_OK, tandem_session_truncate(answering.get(), 0, nullptr));
  const std::vector<float> rows = evaluate(answering.get(), some_tokens(62));
  for (int round = 0; round < 5; ++round) {
    EXPECT_EQ(TANDEM_OK, tandem_session_truncate(answering.get(), 0, nullptr));
    EXPECT_EQ(rows, evaluate(answering.get(), some_tokens(62)));
  }
  ends = true;
  saver.join();
}

class RefusedDevice : public ::testing::TestWithParam<Refusal> {};

TEST_P(RefusedDevice, IsSaidInOneLine) {
  const TemporaryFolder folder;
  const std::string path = (folder / "place.json").string();
  tandem_engine_options options = with_device(GetParam().device, GetParam().gpu_layers);
  if (GetParam().place != nullptr) {
    std::ofstream(path) << GetParam().place;
    options.place_file = path.c_str();
  }
  const ModelPtr model = open_model(golden_model("llama-mha"));
  tandem_engine* engine = nullptr;
  Error error;
  EXPECT_EQ(GetParam().code, tandem_engine_create(model.get(), &options, &engine, error));
  EXPECT_THAT(error.text(), HasSubstr(GetParam().text));
  EXPECT_THAT(error.text(), ::testing::Not(HasSubstr("\n")));
}

INSTANTIATE_TEST_SUITE_P(
    Words, RefusedDevice,
    ::testing::Values(
        Refusal{"mirrr", nullptr, nullptr, TANDEM_ERROR_INVALID_ARGUMENT, "mirrr"},
        Refusal{"mirror:vram=x", nullptr, nullptr, TANDEM_ERROR_INVALID_ARGUMENT, "vram is 'x'"},
        Refusal{"mirror:speed=1", nullptr, nullptr, TANDEM_ERROR_INVALID_ARGUMENT, "'speed'"},
        Refusal{"mirror:timed=/nowhere", nullptr, nullptr, TANDEM_ERROR_NOT_FOUND, "/nowhere"},
        Refusal{"mirror", "many", nullptr, TANDEM_ERROR_INVALID_ARGUMENT, "gpu_layers is 'many'"},
        Refusal{"mirror:vram=64KiB", "all", nullptr, TANDEM_ERROR_OUT_OF_MEMORY, "needs"},
        Refusal{"mirror", nullptr, "{", TANDEM_ERROR_CORRUPT, "JSON"},
        Refusal{"mirror", nullptr,
                "{\"version\": 1, \"blocks\": [{\"match\": \"nothing\", \"tier\": \"dram\", "
                "\"processor\": \"cpu\"}]}",
                TANDEM_ERROR_INVALID_ARGUMENT, "nothing"}),
    [](const auto& instance) { return "Case" + std::to_string(instance.index); });

}  // namespace
}  // namespace tandem::testing

// Sessions whose keys and values lie partly on the device and partly in DRAM, through the C API: they answer, fork, are saved
// and loaded as those of the CPU alone are.
#include "runtime/split_engine.h"

namespace tandem::testing {
namespace {

class SplitSession : public ::testing::TestWithParam<const char*> {
 protected:
  static constexpr const char* kDevice = ",poison";
  static tandem_engine_options alone_options() { return engine_options(2, SplitEngine::kContext); }
  static std::vector<int32_t> answer(tandem_session* session, const Loaded& loaded, size_t n_prompt,
                                     uint32_t first, uint32_t n_answer = 30) {
    const TokenRequest request(some_tokens(n_prompt, first), n_answer,
                               seeded(loaded.model.get(), first));
    return ask(session, request.request).tokens;
  }
  // The same turn of two sessions, one on each engine.
  void expect_same(tandem_session* expected, tandem_session* given, size_t n_prompt,
                   uint32_t first) {
    EXPECT_EQ(answer(expected, alone_, n_prompt, first),
              answer(given, split_.loaded(), n_prompt, first))
        << "a turn of " << n_prompt << " tokens";
  }
  static SessionPtr fork(tandem_session* of) {
    tandem_session* made = nullptr;
    Error error;
    EXPECT_EQ(TANDEM_OK, tandem_session_fork(of, &made, error)) << error.text();
    return SessionPtr(made);
  }
  // Some pages are on the device, and not all that the session has.
  void expect_split(const tandem_session* session) {
    const uint64_t n_pages = (held_tokens(session).size() + 63) / 64;
    EXPECT_GE(split_.device_pages(), 1u);
    EXPECT_LT(split_.device_pages(), n_pages);
  }

  const std::string model_ = golden_model(GetParam());
  const Loaded alone_{model_, alone_options()};
  const SplitEngine split_{model_, kDevice};
};

TEST_P(SplitSession, AnswersWithTheTokensOfTheCpuAlone) {
  const SessionPtr expected = alone_.session(), given = split_.loaded().session();
  // Across the border while decoding, and then by a prompt.
  expect_same(expected.get(), given.get(), 64 * split_.most_pages() - 10, 3);
  expect_split(given.get());
  expect_same(expected.get(), given.get(), 100, 4);
  expect_split(given.get());
  expect_same(expected.get(), given.get(), 5, 5);
}

TEST_P(SplitSession, ItsForkAndItselfGoOnApart) {
  const SessionPtr expected = alone_.session(), given = split_.loaded().session();
  expect_same(expected.get(), given.get(), split_.many_tokens(), 3);
  expect_split(given.get());
  const SessionPtr expected_fork = fork(expected.get()), given_fork = fork(given.get());
  expect_same(expected.get(), given.get(), 20, 4);
  expect_same(expected_fork.get(), given_fork.get(), 30, 5);
  expect_same(expected.get(), given.get(), 70, 6);
  expect_same(expected_fork.get(), given_fork.get(), 10, 7);
}

TEST_P(SplitSession, ForkAndOriginalAnswerInTurns) {
  const SessionPtr expected = alone_.session(), given = split_.loaded().session();
  expect_same(expected.get(), given.get(), split_.many_tokens(), 3);
  const SessionPtr given_fork = fork(given.get());
  const TokenRequest request(some_tokens(9), 80, seeded(alone_.model.get(), 8));
  const std::vector<int32_t> tokens = ask(expected.get(), request.request).tokens;
  submit(given.get(), request.request);
  submit(given_fork.get(), request.request);
  EXPECT_EQ(tokens, drain(given.get()).tokens);
  EXPECT_EQ(tokens, drain(given_fork.get()).tokens);
}

TEST_P(SplitSession, GoesOnAfterItWasTruncatedOnEitherSide) {
  const SessionPtr expected = alone_.session(), given = split_.loaded().session();
  const size_t many = split_.many_tokens();
  for (const size_t n_kept : {many - 10, many - 109, size_t{130}, size_t{3}}) {
    expect_same(expected.get(), given.get(), many + 60 - held_tokens(expected.get()).size(), 3);
    expect_split(given.get());
    ASSERT_EQ(TANDEM_OK, tandem_session_truncate(expected.get(), n_kept, nullptr));
    ASSERT_EQ(TANDEM_OK, tandem_session_truncate(given.get(), n_kept, nullptr));
    expect_same(expected.get(), given.get(), 4, 5);
  }
}

TEST_P(SplitSession, IsSavedAndLoadedOnEitherSide) {
  const TemporaryFolder folder;
  const std::string ours = (folder / "ours").string(), theirs = (folder / "theirs").string();
  const SessionPtr expected = alone_.session(), given = split_.loaded().session();
  expect_same(expected.get(), given.get(), split_.many_tokens(), 3);
  expect_split(given.get());
  ASSERT_EQ(TANDEM_OK, tandem_session_save(given.get(), ours.c_str(), nullptr));
  ASSERT_EQ(TANDEM_OK, tandem_session_save(expected.get(), theirs.c_str(), nullptr));
  const auto bytes = [](const std::string& name) {
    std::ifstream file(name, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  EXPECT_TRUE(bytes(theirs) == bytes(ours)) << "what is saved differs";

  const SessionPtr on_cpu = alone_.session(), on_both = split_.loaded().session();
  ASSERT_EQ(TANDEM_OK, tandem_session_load(on_cpu.get(), ours.c_str(), nullptr));
  ASSERT_EQ(TANDEM_OK, tandem_session_load(on_both.get(), theirs.c_str(), nullptr));
  const std::vector<int32_t> tokens = answer(expected.get(), alone_, 12, 6);
  EXPECT_EQ(tokens, answer(on_cpu.get(), alone_, 12, 6)) << "saved from both, loaded by the CPU";
  EXPECT_EQ(tokens, answer(on_both.get(), split_.loaded(), 12, 6)) << "and the other way round";
  EXPECT_EQ(tokens, answer(given.get(), split_.loaded(), 12, 6)) << "itself";
  // Into a session that has something already, on both sides.
  ASSERT_EQ(TANDEM_OK, tandem_session_load(given.get(), ours.c_str(), nullptr));
  EXPECT_EQ(tokens, answer(given.get(), split_.loaded(), 12, 6)) << "over what it had";
}

INSTANTIATE_TEST_SUITE_P(Models, SplitSession,
                         ::testing::Values("llama-mha", "qwen3moe", "mistral-window"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace tandem::testing

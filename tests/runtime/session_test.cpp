// What a session remembers: later turns, forks, truncation, files.
#include "runtime/api.h"
#include "status_matchers.h"

namespace tandem::testing {
namespace {

using ::testing::HasSubstr;

constexpr const char* kModel = "qwen3moe";

class SessionTest : public ::testing::Test {
 protected:
  Answer run(tandem_session* session, std::vector<int32_t> prompt, uint32_t max_tokens,
             uint64_t seed = 7) {
    const TokenRequest request(std::move(prompt), max_tokens, seeded(loaded_.model.get(), seed));
    return ask(session, request.request);
  }
  // The tokens that `session` would choose next, without changing it.
  std::vector<int32_t> continuation(tandem_session* session, uint64_t seed = 11) {
    Error error;
    tandem_session* copy = nullptr;
    EXPECT_TANDEM_OK(tandem_session_fork(session, &copy, error), error);
    const SessionPtr owner(copy);
    return run(copy, {9}, 12, seed).tokens;
  }

  const Loaded loaded_{golden_model(kModel)};
  const TemporaryFolder folder_;
};

std::string read_bytes(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

Answer say(const Loaded& loaded, tandem_session* session,
           const std::vector<tandem_message>& messages, uint32_t max_tokens) {
  const tandem_sampling sampling = greedy(loaded.model.get());
  tandem_request request = TANDEM_INIT(tandem_request);
  request.messages = messages.data();
  request.n_messages = messages.size();
  request.max_tokens = max_tokens;
  request.sampling = &sampling;
  request.ignore_end = 1;
  return ask(session, request);
}

TEST_F(SessionTest, SecondTurnEvaluatesOnlyWhatIsNew) {
  const SessionPtr session = loaded_.session();
  const Answer first = say(loaded_, session.get(), {message("user", "tell me of the sea")}, 6);
  ASSERT_EQ(TANDEM_FINISH_LENGTH, first.done.event.finish) << first.done.error_text;
  EXPECT_EQ(first.done.event.n_prompt_tokens, first.done.event.n_prompt_evaluated);
  const size_t held = held_tokens(session.get()).size();
  ASSERT_EQ(first.done.event.n_kept, held);

  const std::vector<tandem_message> conversation = {message("user", "tell me of the sea"),
                                                    message("assistant", first.text.c_str()),
                                                    message("user", "and then")};
  size_t whole = 0, only_new = 0;
  Error error;
  ASSERT_TANDEM_OK(tandem_model_count_tokens(loaded_.model.get(), conversation.data(), 3, nullptr,
                                             &whole, error),
                   error);
  char* text = nullptr;
  ASSERT_TANDEM_OK(
      tandem_model_render(loaded_.model.get(), conversation.data() + 2, 1, &text, error), error);
  // After the answer come its end, a line break and the second question with its roles.
  only_new = tokenize(loaded_.model.get(), std::string("<|im_end|>\n") + text, true).size();
  tandem_string_free(text);

  const Answer second = say(loaded_, session.get(), conversation, 4);
  EXPECT_EQ(only_new, second.done.event.n_prompt_evaluated);
  EXPECT_EQ(held + only_new, second.done.event.n_prompt_tokens);
}

TEST_F(SessionTest, SecondTurnAnswersAsIfTheConversationWereNew) {
  const SessionPtr session = loaded_.session(), fresh = loaded_.session();
  const Answer first = say(loaded_, session.get(), {message("user", "tell me of the sea")}, 6);
  const std::vector<tandem_message> conversation = {message("user", "tell me of the sea"),
                                                    message("assistant", first.text.c_str()),
                                                    message("user", "and then")};
  const Answer second = say(loaded_, session.get(), conversation, 8);
  // The same tokens in one piece: what the session holds, spelled out.
  std::vector<int32_t> prompt = held_tokens(session.get());
  prompt.resize(second.done.event.n_prompt_tokens);
  const TokenRequest request(prompt, 8, greedy(loaded_.model.get()));
  EXPECT_EQ(ask(fresh.get(), request.request).tokens, second.tokens);
}

TEST_F(SessionTest, AnEditedConversationKeepsTheCommonStart) {
  const SessionPtr session = loaded_.session();
  const Answer first = say(loaded_, session.get(), {message("user", "tell me of the sea")}, 6);
  const Answer edited =
      say(loaded_, session.get(), {message("user", "tell me of the hills and woods")}, 6);
  EXPECT_LT(edited.done.event.n_prompt_evaluated, edited.done.event.n_prompt_tokens);
  const SessionPtr fresh = loaded_.session();
  EXPECT_EQ(
      say(loaded_, fresh.get(), {message("user", "tell me of the hills and woods")}, 6).tokens,
      edited.tokens);
}

TEST_F(SessionTest, SamePromptAndSeedGiveTheSameTokensForOneAndTwoThreads) {
  const Loaded one(golden_model(kModel), engine_options(1)),
      two(golden_model(kModel), engine_options(2));
  const SessionPtr a = one.session(), b = two.session();
  EXPECT_EQ(run(a.get(), some_tokens(20), 40).tokens, run(b.get(), some_tokens(20), 40).tokens);
}

TEST_F(SessionTest, AnotherSeedGivesOtherTokens) {
  const SessionPtr a = loaded_.session(), b = loaded_.session();
  const Answer first = run(a.get(), some_tokens(20), 40, 1),
               second = run(b.get(), some_tokens(20), 40, 2);
  EXPECT_NE(first.tokens, second.tokens);
  EXPECT_EQ(1u, first.done.event.seed);
}

TEST_F(SessionTest, HoldsThePromptAndEveryTokenOfAnAnswerThatReachedItsLength) {
  const SessionPtr session = loaded_.session();
  std::vector<int32_t> expected = some_tokens(20);
  const Answer answer = run(session.get(), expected, 5);
  expected.insert(expected.end(), answer.tokens.begin(), answer.tokens.end());
  EXPECT_EQ(expected, held_tokens(session.get()));
  tandem_session_info info = TANDEM_INIT(tandem_session_info);
  ASSERT_EQ(TANDEM_OK, tandem_session_get_info(session.get(), &info, nullptr));
  EXPECT_EQ(25u, info.n_tokens);
  EXPECT_EQ(256u, info.n_context);
  EXPECT_GT(info.kv_bytes, 0u);
}

TEST_F(SessionTest, ForkContinuesLikeItsOriginalAndLeavesItAlone) {
  const SessionPtr session = loaded_.session();
  run(session.get(), some_tokens(70), 3);  // more than one page
  const std::vector<int32_t> before = held_tokens(session.get());
  Error error;
  tandem_session* made = nullptr;
  ASSERT_TANDEM_OK(tandem_session_fork(session.get(), &made, error), error);
  const SessionPtr fork(made);
  EXPECT_EQ(before, held_tokens(fork.get()));
  const Answer of_fork = run(fork.get(), {9}, 12);
  EXPECT_EQ(before, held_tokens(session.get()));
  EXPECT_EQ(of_fork.tokens, run(session.get(), {9}, 12).tokens);
}

TEST_F(SessionTest, ForkOutlivesItsOriginal) {
  SessionPtr session = loaded_.session();
  run(session.get(), some_tokens(20), 3);
  const std::vector<int32_t> expected = continuation(session.get());
  tandem_session* made = nullptr;
  ASSERT_EQ(TANDEM_OK, tandem_session_fork(session.get(), &made, nullptr));
  const SessionPtr fork(made);
  session.reset();
  EXPECT_EQ(expected, continuation(fork.get()));
}

TEST_F(SessionTest, TruncatedContinuesAsIfTheRestHadNeverBeen) {
  const SessionPtr session = loaded_.session(), shorter = loaded_.session();
  evaluate(session.get(), some_tokens(90));
  Error error;
  ASSERT_TANDEM_OK(tandem_session_truncate(session.get(), 50, error), error);
  const std::vector<int32_t> all = some_tokens(90);
  evaluate(shorter.get(), {all.begin(), all.begin() + 50});
  EXPECT_EQ(held_tokens(shorter.get()), held_tokens(session.get()));
  EXPECT_EQ(continuation(shorter.get()), continuation(session.get()));
}

TEST_F(SessionTest, TruncateRefusesMoreThanIsHeld) {
  const SessionPtr session = loaded_.session();
  evaluate(session.get(), some_tokens(5));
  for (const size_t n : {size_t{6}, SIZE_MAX}) {
    Error error;
    EXPECT_EQ(TANDEM_ERROR_INVALID_ARGUMENT, tandem_session_truncate(session.get(), n, error));
    EXPECT_THAT(error.text(), HasSubstr("holds 5"));
  }
  EXPECT_EQ(TANDEM_OK, tandem_session_truncate(session.get(), 0, nullptr));
  EXPECT_TRUE(held_tokens(session.get()).empty());
}

TEST_F(SessionTest, SavedAndLoadedContinuesWithTheSameTokens) {
  const SessionPtr session = loaded_.session();
  run(session.get(), some_tokens(70), 3);
  const std::string path = (folder_ / "s.tandem").string();
  Error error;
  ASSERT_TANDEM_OK(tandem_session_save(session.get(), path.c_str(), error), error);
  const Loaded other(golden_model(kModel));  // another process would open the model anew
  const SessionPtr loaded = other.session();
  evaluate(loaded.get(), some_tokens(3));  // is replaced
  ASSERT_TANDEM_OK(tandem_session_load(loaded.get(), path.c_str(), error), error);
  EXPECT_EQ(held_tokens(session.get()), held_tokens(loaded.get()));
  EXPECT_EQ(run(session.get(), {9}, 12).tokens, run(loaded.get(), {9}, 12).tokens);
}

TEST_F(SessionTest, AModelIsNotOverwritten) {
  const SessionPtr session = loaded_.session();
  const std::filesystem::path path = folder_ / "m.gguf";
  std::filesystem::copy_file(golden_model(kModel), path);
  const auto size = std::filesystem::file_size(path);
  Error error;
  EXPECT_EQ(TANDEM_ERROR_INVALID_ARGUMENT, tandem_session_save(session.get(), path.c_str(), error));
  EXPECT_THAT(error.text(), ::testing::HasSubstr("is a model"));
  EXPECT_EQ(size, std::filesystem::file_size(path));
}

TEST_F(SessionTest, AnEmptySessionCanBeSavedAndLoaded) {
  const SessionPtr session = loaded_.session(), other = loaded_.session();
  const std::string path = (folder_ / "s.tandem").string();
  ASSERT_EQ(TANDEM_OK, tandem_session_save(session.get(), path.c_str(), nullptr));
  evaluate(other.get(), some_tokens(3));
  ASSERT_EQ(TANDEM_OK, tandem_session_load(other.get(), path.c_str(), nullptr));
  EXPECT_TRUE(held_tokens(other.get()).empty());
}

TEST_F(SessionTest, FailingToSaveKeepsTheOldFile) {
  const SessionPtr session = loaded_.session();
  evaluate(session.get(), some_tokens(3));
  Error error;
  EXPECT_NE(TANDEM_OK, tandem_session_save(session.get(),
                                           (folder_ / "no/such/folder/s").string().c_str(), error));
  EXPECT_THAT(error.text(), HasSubstr("no/such/folder"));
  EXPECT_EQ(TANDEM_ERROR_NOT_FOUND,
            tandem_session_load(session.get(), (folder_ / "absent").string().c_str(), error));
  EXPECT_EQ(some_tokens(3), held_tokens(session.get()));
}

TEST_F(SessionTest, ASavedConversationIsForItsOwnerAlone) {
  const SessionPtr session = loaded_.session();
  evaluate(session.get(), some_tokens(10));
  ASSERT_EQ(TANDEM_OK, tandem_session_save(session.get(), (folder_ / "s").c_str(), nullptr));
  EXPECT_EQ(std::filesystem::perms::owner_read | std::filesystem::perms::owner_write,
            std::filesystem::status(folder_ / "s").permissions());
}

TEST_F(SessionTest, WhatWasTakenBackIsNotInTheFile) {
  const SessionPtr session = loaded_.session(), never_said = loaded_.session();
  evaluate(session.get(), some_tokens(10));
  evaluate(never_said.get(), some_tokens(10));
  evaluate(session.get(), some_tokens(20, 3));
  ASSERT_EQ(TANDEM_OK, tandem_session_truncate(session.get(), 10, nullptr));
  ASSERT_EQ(TANDEM_OK, tandem_session_save(session.get(), (folder_ / "a").c_str(), nullptr));
  ASSERT_EQ(TANDEM_OK, tandem_session_save(never_said.get(), (folder_ / "b").c_str(), nullptr));
  EXPECT_EQ(read_bytes(folder_ / "b"), read_bytes(folder_ / "a"));
}

// The same model but for its second half, which is weights.
TEST_F(SessionTest, FileOfAModelWithOtherWeightsIsRefused) {
  std::string bytes = read_bytes(golden_model("qwen3moe"));
  for (size_t i = bytes.size() / 2; i < bytes.size(); i += 4)
    bytes[i] = static_cast<char>(bytes[i] ^ 1);
  std::ofstream(folder_ / "tuned.gguf", std::ios::binary) << bytes;
  const Loaded tuned((folder_ / "tuned.gguf").string());
  const SessionPtr session = loaded_.session();
  evaluate(session.get(), some_tokens(10));
  ASSERT_EQ(TANDEM_OK, tandem_session_save(session.get(), (folder_ / "s").c_str(), nullptr));
  Error error;
  EXPECT_EQ(TANDEM_ERROR_INVALID_ARGUMENT,
            tandem_session_load(tuned.session().get(), (folder_ / "s").c_str(), error));
  EXPECT_THAT(error.text(), HasSubstr("another model"));
}

TEST_F(SessionTest, AModelWhoseFileWasReplacedIsRefused) {
  const std::string path = (folder_ / "m.gguf").string();
  std::filesystem::copy_file(golden_model("qwen3moe"), path);
  const ModelPtr model = open_model(path);
  std::filesystem::copy_file(golden_model("qwen3moe"), folder_ / "other");
  std::filesystem::rename(folder_ / "other", path);
  const tandem_engine_options options = engine_options();
  tandem_engine* engine = nullptr;
  Error error;
  EXPECT_EQ(TANDEM_ERROR_IO, tandem_engine_create(model.get(), &options, &engine, error));
  EXPECT_THAT(error.text(), HasSubstr("has changed since the model was opened"));
}

TEST_F(SessionTest, FileOfAnotherModelOrContextOrKvTypeIsRefused) {
  const SessionPtr session = loaded_.session();
  evaluate(session.get(), some_tokens(70));
  const std::string path = (folder_ / "s.tandem").string();
  ASSERT_EQ(TANDEM_OK, tandem_session_save(session.get(), path.c_str(), nullptr));

  const auto refused_by = [&](tandem_session* other, const std::string& why) {
    evaluate(other, some_tokens(4));
    Error error;
    EXPECT_EQ(TANDEM_ERROR_INVALID_ARGUMENT, tandem_session_load(other, path.c_str(), error));
    EXPECT_THAT(error.text(), HasSubstr(why));
    EXPECT_EQ(path, error->file);
    EXPECT_EQ(some_tokens(4), held_tokens(other));
  };
  const Loaded other_model(golden_model("qwen3"));
  refused_by(other_model.session().get(), "another model");
  refused_by(loaded_.session(64).get(), "70 tokens");
  tandem_engine_options options = engine_options();
  options.kv_type = TANDEM_KV_F32;
  const Loaded other_type(golden_model(kModel), options);
  refused_by(other_type.session().get(), "KV type");
}

// Of the bundled model, whose heads are wide enough: what half as many bytes hold changes little, and everything that
// sessions do they do with it.
TEST(SessionOfBlocks, GivesNearlyTheSameLogitsOnAnyProcessorAndIsSaved) {
  const std::string model = std::string(TANDEM_SOURCE_DIR) + "/examples/models/tiny-verse.gguf";
  tandem_engine_options options = engine_options();
  const Loaded plain(model, options);
  options.kv_type = TANDEM_KV_Q8_0;
  const Loaded loaded(model, options);
  const std::vector<int32_t> tokens = some_tokens(70);
  const SessionPtr session = loaded.session(), again = loaded.session();
  const std::vector<float> rows = evaluate(session.get(), tokens);
  const std::vector<float> exact = evaluate(plain.session().get(), tokens);
  ASSERT_EQ(exact.size(), rows.size());
  EXPECT_NE(exact, rows);
  const double worst = relative_l2(rows, exact);
  RecordProperty("relative_l2", std::to_string(worst));
  EXPECT_LE(worst, 2e-2);
  EXPECT_EQ(rows, evaluate(again.get(), tokens));
  options.device = "mirror:vram=2MiB,poison";
  EXPECT_EQ(rows, evaluate(Loaded(model, options).session().get(), tokens));
  options.device = nullptr;
  const TemporaryFolder folder;
  const std::string path = (folder / "state").string();
  ASSERT_EQ(TANDEM_OK, tandem_session_save(session.get(), path.c_str(), nullptr));
  const SessionPtr restored = loaded.session();
  ASSERT_EQ(TANDEM_OK, tandem_session_load(restored.get(), path.c_str(), nullptr));
  EXPECT_EQ(evaluate(session.get(), {7, 8}), evaluate(restored.get(), {7, 8}));
}

TEST(SessionOfBlocks, AreRefusedForHeadsThatBlocksDoNotFit) {
  const ModelPtr model = open_model(golden_model("mistral-wide-heads"));
  tandem_engine_options options = engine_options();
  options.kv_type = TANDEM_KV_Q8_0;
  tandem_engine* engine = nullptr;
  Error error;
  EXPECT_EQ(TANDEM_ERROR_UNSUPPORTED, tandem_engine_create(model.get(), &options, &engine, error));
  EXPECT_THAT(error.text(), HasSubstr("a multiple of 32, the model's have 24"));
}

// A saved session and a second one whose contents damaged files must not touch.
class DamagedFile : public SessionTest {
 protected:
  DamagedFile() {
    const SessionPtr session = loaded_.session();
    evaluate(session.get(), some_tokens(70));
    EXPECT_EQ(TANDEM_OK, tandem_session_save(session.get(), path_.c_str(), nullptr));
    const std::string text = read_bytes(path_);
    bytes_.assign(text.begin(), text.end());
    evaluate(victim_.get(), some_tokens(10, 3));
    expected_ = continuation(victim_.get());
  }

  void expect_refused(const std::vector<char>& bytes, const std::string& what) {
    std::ofstream(path_, std::ios::binary | std::ios::trunc)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    Error error;
    const tandem_code code = tandem_session_load(victim_.get(), path_.c_str(), error);
    EXPECT_THAT(code, ::testing::AnyOf(TANDEM_ERROR_CORRUPT, TANDEM_ERROR_INVALID_ARGUMENT,
                                       TANDEM_ERROR_UNSUPPORTED))
        << what << ": " << error.text();
    EXPECT_EQ(some_tokens(10, 3), held_tokens(victim_.get())) << what;
  }
  void expect_unchanged() { EXPECT_EQ(expected_, continuation(victim_.get())); }

  const std::string path_ = (folder_ / "s.tandem").string();
  const SessionPtr victim_ = loaded_.session();
  std::vector<char> bytes_;
  std::vector<int32_t> expected_;
};

TEST_F(DamagedFile, CutAtAnyLengthIsRefusedAndChangesNothing) {
  std::vector<size_t> lengths;
  for (size_t n = 0; n < 128; ++n) lengths.push_back(n);
  for (size_t n = 128; n < bytes_.size(); n += bytes_.size() / 64 + 1) lengths.push_back(n);
  for (size_t n = bytes_.size() - 9; n < bytes_.size(); ++n) lengths.push_back(n);
  for (const size_t n : lengths) {
    expect_refused({bytes_.begin(), bytes_.begin() + static_cast<ptrdiff_t>(n)},
                   "cut at " + std::to_string(n));
  }
  expect_unchanged();
}

TEST_F(DamagedFile, LongerByAnyByteIsRefused) {
  std::vector<char> longer = bytes_;
  longer.push_back(0);
  expect_refused(longer, "one more byte");
  longer.resize(bytes_.size() + 4096);
  expect_refused(longer, "a page more");
  expect_unchanged();
}

TEST_F(DamagedFile, AnyFlippedBitIsRefusedAndChangesNothing) {
  std::vector<size_t> places;
  for (size_t n = 0; n < 64 && n < bytes_.size(); ++n) places.push_back(n);
  for (size_t n = 64; n < bytes_.size(); n += bytes_.size() / 64 + 1) places.push_back(n);
  for (size_t n = bytes_.size() - 8; n < bytes_.size(); ++n) places.push_back(n);
  for (const size_t n : places) {
    std::vector<char> damaged = bytes_;
    damaged[n] = static_cast<char>(damaged[n] ^ (1 << (n % 8)));
    expect_refused(damaged, "bit of byte " + std::to_string(n));
  }
  expect_unchanged();
}

TEST_F(DamagedFile, AbsurdTokenCountsAreRefusedWithoutAllocatingForThem) {
  for (const int64_t n : {int64_t{-1}, int64_t{1} << 31, int64_t{1} << 60, INT64_MAX, INT64_MIN}) {
    std::vector<char> damaged = bytes_;
    std::memcpy(damaged.data() + 48, &n, sizeof(n));
    expect_refused(damaged, "token count " + std::to_string(n));
  }
  expect_unchanged();
}

TEST_F(SessionTest, TwoSessionsInterleavedAnswerAsAlone) {
  const SessionPtr alone_a = loaded_.session(), alone_b = loaded_.session();
  const std::vector<int32_t> a = run(alone_a.get(), some_tokens(30, 1), 40).tokens;
  const std::vector<int32_t> b = run(alone_b.get(), some_tokens(150, 5), 40).tokens;

  const SessionPtr first = loaded_.session(), second = loaded_.session();
  const TokenRequest request_a(some_tokens(30, 1), 40, seeded(loaded_.model.get(), 7));
  const TokenRequest request_b(some_tokens(150, 5), 40, seeded(loaded_.model.get(), 7));
  submit(first.get(), request_a.request);
  submit(second.get(), request_b.request);
  EXPECT_EQ(a, drain(first.get()).tokens);
  EXPECT_EQ(b, drain(second.get()).tokens);
}

TEST_F(SessionTest, TwoEnginesInOneProcessAnswerAsAlone) {
  const Loaded other(golden_model("llama-mha"));
  const SessionPtr alone = other.session();
  const TokenRequest request(some_tokens(30), 40, seeded(other.model.get(), 7));
  const std::vector<int32_t> expected = ask(alone.get(), request.request).tokens;
  const SessionPtr here = loaded_.session(), there = other.session();
  const TokenRequest beside(some_tokens(30), 40, seeded(loaded_.model.get(), 7));
  submit(here.get(), beside.request);
  EXPECT_EQ(expected, ask(there.get(), request.request).tokens);
  EXPECT_EQ(40u, drain(here.get()).tokens.size());
}

TEST_F(SessionTest, MemoryReportCountsTheKvOfItsSessions) {
  const auto kv = [&] {
    tandem_tier_report report = TANDEM_INIT(tandem_tier_report);
    size_t n = 0;
    EXPECT_EQ(TANDEM_OK, tandem_engine_get_memory(loaded_.engine.get(), &report, 1, &n, nullptr));
    EXPECT_EQ(1u, n);
    EXPECT_STREQ("RAM", report.name);
    EXPECT_GT(report.weight_bytes, 0u);
    EXPECT_GT(report.work_bytes, 0u);
    EXPECT_GT(report.free_bytes, 0u);
    EXPECT_LE(report.kv_bytes, report.kv_reserved_bytes);
    return std::pair(report.kv_bytes, report.kv_reserved_bytes);
  };
  using Bytes = std::pair<uint64_t, uint64_t>;
  EXPECT_EQ(Bytes(0, 0), kv());
  SessionPtr session = loaded_.session();
  tandem_session_info info = TANDEM_INIT(tandem_session_info);
  ASSERT_EQ(TANDEM_OK, tandem_session_get_info(session.get(), &info, nullptr));
  EXPECT_EQ(Bytes(0, info.kv_bytes), kv());
  evaluate(session.get(), some_tokens(3));
  const uint64_t one_page = kv().first;
  EXPECT_GT(one_page, 0u);
  evaluate(session.get(), some_tokens(100));
  EXPECT_EQ(2 * one_page, kv().first);
  ASSERT_EQ(TANDEM_OK, tandem_session_truncate(session.get(), 0, nullptr));
  EXPECT_EQ(2 * one_page, kv().first) << "what the system gave stays";
  session.reset();
  EXPECT_EQ(Bytes(0, 0), kv());
}

TEST_F(SessionTest, ContextsThatDoNotFitTogetherAreRefusedUnlessForced) {
  tandem_tier_report ram = TANDEM_INIT(tandem_tier_report);
  size_t n = 0;
  ASSERT_EQ(TANDEM_OK, tandem_engine_get_memory(loaded_.engine.get(), &ram, 1, &n, nullptr));
  tandem_session_info info = TANDEM_INIT(tandem_session_info);
  ASSERT_EQ(TANDEM_OK, tandem_session_get_info(loaded_.session(64).get(), &info, nullptr));
  // Two thirds of what is free: one such session fits, two do not.
  const auto n_context = static_cast<uint32_t>(
      std::min<uint64_t>(ram.free_bytes * 2 / 3 / info.kv_bytes * 64, 1 << 27));
  ASSERT_GT(n_context / 64 * info.kv_bytes, ram.free_bytes / 2)
      << "the model is too small for this machine";
  const Loaded roomy(golden_model("qwen3moe"), engine_options(1, n_context));
  const SessionPtr first = roomy.session();
  Error error;
  tandem_session* second = nullptr;
  EXPECT_EQ(TANDEM_ERROR_OUT_OF_MEMORY,
            tandem_session_create(roomy.engine.get(), nullptr, &second, error));
  EXPECT_GT(error->bytes_needed, error->bytes_available);
  EXPECT_EQ(TANDEM_ERROR_OUT_OF_MEMORY, tandem_session_fork(first.get(), &second, error));
  EXPECT_NE(nullptr, roomy.session(64));

  tandem_engine_options forced = engine_options(1, n_context);
  forced.force = 1;
  const Loaded careless(golden_model("qwen3moe"), forced);
  const SessionPtr third = careless.session(), fourth = careless.session();
}

}  // namespace
}  // namespace tandem::testing

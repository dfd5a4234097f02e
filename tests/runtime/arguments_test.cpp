// What a careless caller passes: NULL, sizes from other versions, numbers out of range.
#include <functional>

#include "runtime/api.h"
#include "status_matchers.h"

namespace tandem::testing {
namespace {

using ::testing::HasSubstr;

class ArgumentsTest : public ::testing::Test {
 protected:
  void expect_invalid(const char* what, const std::function<tandem_code(tandem_error**)>& call) {
    Error error;
    EXPECT_EQ(TANDEM_ERROR_INVALID_ARGUMENT, call(error)) << what;
    ASSERT_NE(nullptr, error.get()) << what;
    EXPECT_THAT(error.text(), HasSubstr(what));
    EXPECT_EQ(sizeof(tandem_error), error->struct_bytes);
    EXPECT_EQ(TANDEM_ERROR_INVALID_ARGUMENT, error->code);
    EXPECT_STREQ("", error->tensor);
    EXPECT_EQ(TANDEM_NO_OFFSET, error->offset);
    EXPECT_EQ(TANDEM_ERROR_INVALID_ARGUMENT, call(nullptr)) << what;
  }

  const Loaded loaded_{golden_model("llama-mha")};
  const SessionPtr session_ = loaded_.session();
  tandem_model* const model = loaded_.model.get();
  tandem_engine* const engine = loaded_.engine.get();
  tandem_session* const session = session_.get();
};

TEST_F(ArgumentsTest, ACountThatWrapsWhenItBecomesBytesIsRefused) {
  const int32_t token = 7;
  size_t n = 0;
  char* string = nullptr;
  const size_t wrapping = (size_t{1} << 62) + 1;
  expect_invalid("n_tokens is 4611686018427387905", [&](tandem_error** x) {
    return tandem_session_evaluate(session, &token, wrapping, nullptr, nullptr, x);
  });
  expect_invalid("n_tokens is 4611686018427387905", [&](tandem_error** x) {
    return tandem_model_detokenize(model, &token, wrapping, 0, &string, &n, x);
  });
}

TEST_F(ArgumentsTest, NullIsNamedAndNeverFollowed) {
  const char* text = "a";
  const int32_t token = 7;
  size_t n = 0;
  char* string = nullptr;
  const tandem_message said = message("user", "hello");
  tandem_model* m = nullptr;
  tandem_engine* e = nullptr;
  tandem_session* s = nullptr;
  tandem_model_info model_info = TANDEM_INIT(tandem_model_info);
  tandem_sampling sampling = TANDEM_INIT(tandem_sampling);
  tandem_engine_info engine_info = TANDEM_INIT(tandem_engine_info);
  tandem_session_info session_info = TANDEM_INIT(tandem_session_info);
  tandem_event event = TANDEM_INIT(tandem_event);
  tandem_request request = TANDEM_INIT(tandem_request);
  int fd = 0;
  using E = tandem_error**;
  expect_invalid("path", [&](E x) { return tandem_model_open(nullptr, &m, x); });
  expect_invalid("out", [&](E x) { return tandem_model_open(text, nullptr, x); });
  expect_invalid("model", [&](E x) { return tandem_model_get_info(nullptr, &model_info, x); });
  expect_invalid("info", [&](E x) { return tandem_model_get_info(model, nullptr, x); });
  expect_invalid("model", [&](E x) { return tandem_model_json(nullptr, &string, x); });
  expect_invalid("json", [&](E x) { return tandem_model_json(model, nullptr, x); });
  expect_invalid("model", [&](E x) {
    return tandem_model_tokenize(nullptr, text, 1, nullptr, nullptr, 0, &n, x);
  });
  expect_invalid("text", [&](E x) {
    return tandem_model_tokenize(model, nullptr, 1, nullptr, nullptr, 0, &n, x);
  });
  expect_invalid("tokens", [&](E x) {
    return tandem_model_tokenize(model, text, 1, nullptr, nullptr, 1, &n, x);
  });
  expect_invalid("n_tokens", [&](E x) {
    return tandem_model_tokenize(model, text, 1, nullptr, nullptr, 0, nullptr, x);
  });
  expect_invalid(
      "model", [&](E x) { return tandem_model_detokenize(nullptr, &token, 1, 0, &string, &n, x); });
  expect_invalid(
      "tokens", [&](E x) { return tandem_model_detokenize(model, nullptr, 1, 0, &string, &n, x); });
  expect_invalid("text",
                 [&](E x) { return tandem_model_detokenize(model, &token, 1, 0, nullptr, &n, x); });
  expect_invalid("model",
                 [&](E x) { return tandem_model_count_tokens(nullptr, &said, 1, nullptr, &n, x); });
  expect_invalid("messages",
                 [&](E x) { return tandem_model_count_tokens(model, nullptr, 1, nullptr, &n, x); });
  expect_invalid("n_tokens", [&](E x) {
    return tandem_model_count_tokens(model, &said, 1, nullptr, nullptr, x);
  });
  expect_invalid("model", [&](E x) { return tandem_model_render(nullptr, &said, 1, &string, x); });
  expect_invalid("text", [&](E x) { return tandem_model_render(model, &said, 1, nullptr, x); });
  expect_invalid("model",
                 [&](E x) { return tandem_model_default_sampling(nullptr, &sampling, x); });
  expect_invalid("sampling", [&](E x) { return tandem_model_default_sampling(model, nullptr, x); });
  expect_invalid("model", [&](E x) { return tandem_engine_create(nullptr, nullptr, &e, x); });
  expect_invalid("out", [&](E x) { return tandem_engine_create(model, nullptr, nullptr, x); });
  expect_invalid("engine", [&](E x) { return tandem_engine_get_info(nullptr, &engine_info, x); });
  expect_invalid("info", [&](E x) { return tandem_engine_get_info(engine, nullptr, x); });
  expect_invalid("engine",
                 [&](E x) { return tandem_engine_get_memory(nullptr, nullptr, 0, &n, x); });
  expect_invalid("tiers", [&](E x) { return tandem_engine_get_memory(engine, nullptr, 1, &n, x); });
  expect_invalid("n_tiers",
                 [&](E x) { return tandem_engine_get_memory(engine, nullptr, 0, nullptr, x); });
  expect_invalid("engine", [&](E x) { return tandem_session_create(nullptr, nullptr, &s, x); });
  expect_invalid("out", [&](E x) { return tandem_session_create(engine, nullptr, nullptr, x); });
  expect_invalid("session", [&](E x) { return tandem_session_submit(nullptr, &request, x); });
  expect_invalid("request", [&](E x) { return tandem_session_submit(session, nullptr, x); });
  expect_invalid("session", [&](E x) { return tandem_session_next_event(nullptr, 0, &event, x); });
  expect_invalid("event", [&](E x) { return tandem_session_next_event(session, 0, nullptr, x); });
  expect_invalid("session", [&](E x) { return tandem_session_event_fd(nullptr, &fd, x); });
  expect_invalid("fd", [&](E x) { return tandem_session_event_fd(session, nullptr, x); });
  expect_invalid("session",
                 [&](E x) { return tandem_session_set_callback(nullptr, nullptr, nullptr, x); });
  expect_invalid("session", [&](E x) {
    return tandem_session_evaluate(nullptr, &token, 1, nullptr, nullptr, x);
  });
  expect_invalid("tokens", [&](E x) {
    return tandem_session_evaluate(session, nullptr, 1, nullptr, nullptr, x);
  });
  expect_invalid("session",
                 [&](E x) { return tandem_session_get_tokens(nullptr, nullptr, 0, &n, x); });
  expect_invalid("n_tokens",
                 [&](E x) { return tandem_session_get_tokens(session, nullptr, 0, nullptr, x); });
  expect_invalid("session", [&](E x) { return tandem_session_truncate(nullptr, 0, x); });
  expect_invalid("session", [&](E x) { return tandem_session_fork(nullptr, &s, x); });
  expect_invalid("out", [&](E x) { return tandem_session_fork(session, nullptr, x); });
  expect_invalid("session", [&](E x) { return tandem_session_save(nullptr, text, x); });
  expect_invalid("path", [&](E x) { return tandem_session_save(session, nullptr, x); });
  expect_invalid("session", [&](E x) { return tandem_session_load(nullptr, text, x); });
  expect_invalid("path", [&](E x) { return tandem_session_load(session, nullptr, x); });
  expect_invalid("session",
                 [&](E x) { return tandem_session_get_info(nullptr, &session_info, x); });
  expect_invalid("info", [&](E x) { return tandem_session_get_info(session, nullptr, x); });
  tandem_model_free(nullptr);
  tandem_engine_free(nullptr);
  tandem_session_free(nullptr);
  tandem_error_free(nullptr);
  tandem_string_free(nullptr);
  tandem_cancel_free(nullptr);
  tandem_cancel_trigger(nullptr);
  tandem_cancel_reset(nullptr);
}

TEST_F(ArgumentsTest, ARequestHasExactlyOneKindOfPromptAndNoNullInside) {
  const auto refused = [&](const char* what, const std::function<void(tandem_request&)>& change) {
    tandem_request request = TANDEM_INIT(tandem_request);
    change(request);
    expect_invalid(what,
                   [&](tandem_error** x) { return tandem_session_submit(session, &request, x); });
  };
  const int32_t token = 7;
  const tandem_message no_role = message(nullptr, "hello"), no_content = message("user", nullptr),
                       good = message("user", "hello");
  const char* stops[] = {"a", nullptr};
  const char* empty_stop[] = {""};
  refused("exactly one", [&](tandem_request&) {});
  refused("exactly one", [&](tandem_request& r) {
    r.text = "a", r.text_bytes = 1, r.tokens = &token, r.n_tokens = 1;
  });
  refused("messages is NULL", [&](tandem_request& r) { r.n_messages = 1; });
  refused("text is NULL", [&](tandem_request& r) { r.text_bytes = 1; });
  refused("tokens is NULL", [&](tandem_request& r) { r.n_tokens = 1; });
  // A count that wraps when it becomes bytes.
  refused("n_tokens is 4611686018427387905",
          [&](tandem_request& r) { r.tokens = &token, r.n_tokens = (size_t{1} << 62) + 1; });
  refused("messages[0].role", [&](tandem_request& r) { r.messages = &no_role, r.n_messages = 1; });
  refused("messages[0].content",
          [&](tandem_request& r) { r.messages = &no_content, r.n_messages = 1; });
  refused("stop is NULL",
          [&](tandem_request& r) { r.messages = &good, r.n_messages = 1, r.n_stop = 1; });
  refused("stop[1]", [&](tandem_request& r) {
    r.messages = &good, r.n_messages = 1, r.stop = stops, r.n_stop = 2;
  });
  refused("empty", [&](tandem_request& r) {
    r.messages = &good, r.n_messages = 1, r.stop = empty_stop, r.n_stop = 1;
  });
}

TEST_F(ArgumentsTest, SamplingOutOfRangeIsRefused) {
  const auto refused = [&](const char* what, const std::function<void(tandem_sampling&)>& change) {
    TokenRequest request({7}, 1, greedy(model));
    change(request.sampling);
    expect_invalid(what, [&](tandem_error** x) {
      return tandem_session_submit(session, &request.request, x);
    });
  };
  refused("sampling.temperature", [](tandem_sampling& s) { s.temperature = -1; });
  refused("sampling.temperature", [](tandem_sampling& s) { s.temperature = NAN; });
  refused("sampling.temperature", [](tandem_sampling& s) { s.temperature = INFINITY; });
  refused("sampling.top_k", [](tandem_sampling& s) { s.top_k = -1; });
  refused("sampling.top_p", [](tandem_sampling& s) { s.top_p = 1.5f; });
  refused("sampling.top_p", [](tandem_sampling& s) { s.top_p = NAN; });
  refused("sampling.min_p", [](tandem_sampling& s) { s.min_p = -0.1f; });
  refused("sampling.repeat_penalty", [](tandem_sampling& s) { s.repeat_penalty = NAN; });
}

TEST_F(ArgumentsTest, SamplingWithNothingButATemperatureDrawsFromAllTokens) {
  tandem_sampling temperature_only = TANDEM_INIT(tandem_sampling);
  temperature_only.temperature = 0.8f;
  tandem_sampling everything_off = temperature_only;
  everything_off.top_p = everything_off.repeat_penalty = 1;
  everything_off.repeat_last_n = 64;
  const TokenRequest zeros(some_tokens(9), 20, temperature_only),
      ones(some_tokens(9), 20, everything_off);
  const Answer answer = ask(session, zeros.request);
  EXPECT_EQ(TANDEM_FINISH_LENGTH, answer.done.event.finish) << answer.done.error_text;
  EXPECT_EQ(ask(loaded_.session().get(), ones.request).tokens, answer.tokens);
}

TEST_F(ArgumentsTest, OptionsOutOfRangeAreRefused) {
  tandem_engine* e = nullptr;
  tandem_session* s = nullptr;
  const auto refused = [&](const std::function<void(tandem_engine_options&)>& change) {
    tandem_engine_options options = engine_options();
    change(options);
    EXPECT_EQ(TANDEM_ERROR_INVALID_ARGUMENT, tandem_engine_create(model, &options, &e, nullptr));
  };
  const int bad = 9;  // as a C program could write it
  refused([&](tandem_engine_options& o) { std::memcpy(&o.read_mode, &bad, sizeof(bad)); });
  refused([&](tandem_engine_options& o) { std::memcpy(&o.kv_type, &bad, sizeof(bad)); });
  refused([](tandem_engine_options& o) { o.n_threads = UINT32_MAX; });
  refused([](tandem_engine_options& o) { o.n_context = UINT32_MAX; });
  refused([](tandem_engine_options& o) { o.trace_records = UINT32_MAX; });
  tandem_session_options options = TANDEM_INIT(tandem_session_options);
  options.n_context = 1000000;
  EXPECT_EQ(TANDEM_ERROR_INVALID_ARGUMENT, tandem_session_create(engine, &options, &s, nullptr));
  options.n_context = 0;
  options.queue_events = UINT32_MAX;
  EXPECT_EQ(TANDEM_ERROR_INVALID_ARGUMENT, tandem_session_create(engine, &options, &s, nullptr));
}

TEST_F(ArgumentsTest, TokensOutsideTheVocabularyAreRefused) {
  char* text = nullptr;
  for (const int32_t bad : {-1, static_cast<int32_t>(loaded_.n_vocabulary()), INT32_MAX}) {
    EXPECT_EQ(TANDEM_ERROR_INVALID_ARGUMENT,
              tandem_model_detokenize(model, &bad, 1, 0, &text, nullptr, nullptr));
    const TokenRequest request({7, bad}, 1, greedy(model));
    Error error;
    const tandem_code code = tandem_session_submit(session, &request.request, error);
    const bool refused =
        code == TANDEM_ERROR_INVALID_ARGUMENT ||
        (code == TANDEM_OK && drain(session).done.event.finish == TANDEM_FINISH_ERROR);
    EXPECT_TRUE(refused) << bad;
  }
}

TEST_F(ArgumentsTest, StructBytesThatNobodySetAreRefused) {
  for (const size_t bytes : {size_t{0}, size_t{4}, sizeof(size_t) + 1, size_t{1} << 20, SIZE_MAX}) {
    tandem_model_info info = TANDEM_INIT(tandem_model_info);
    info.struct_bytes = bytes;
    info.n_layers = 77;
    expect_invalid("info.struct_bytes",
                   [&](tandem_error** x) { return tandem_model_get_info(model, &info, x); });
    EXPECT_EQ(77u, info.n_layers);
    tandem_session_options options = {bytes, 0, 0};
    tandem_session* s = nullptr;
    expect_invalid("options.struct_bytes", [&](tandem_error** x) {
      return tandem_session_create(engine, &options, &s, x);
    });
    tandem_event event = TANDEM_INIT(tandem_event);
    event.struct_bytes = bytes;
    expect_invalid("event.struct_bytes", [&](tandem_error** x) {
      return tandem_session_next_event(session, 0, &event, x);
    });
  }
}

TEST_F(ArgumentsTest, AnOlderCallersSmallerStructIsFilledOnlyToItsSize) {
  tandem_model_info info;
  std::memset(&info, 0xAB, sizeof(info));
  info.struct_bytes = offsetof(tandem_model_info, file_bytes);
  ASSERT_EQ(TANDEM_OK, tandem_model_get_info(model, &info, nullptr));
  EXPECT_EQ(offsetof(tandem_model_info, file_bytes), info.struct_bytes);
  EXPECT_STREQ("llama", info.architecture);
  const auto* bytes = reinterpret_cast<const unsigned char*>(&info);
  for (size_t i = offsetof(tandem_model_info, file_bytes); i < sizeof(info); ++i)
    ASSERT_EQ(0xAB, bytes[i]) << i;
}

TEST_F(ArgumentsTest, WhatAnOlderCallerDoesNotKnowIsZero) {
  tandem_session_options options = {sizeof(size_t), 9999999,
                                    0};  // n_context lies past the caller's end
  tandem_session* s = nullptr;
  Error error;
  ASSERT_TANDEM_OK(tandem_session_create(engine, &options, &s, error), error);
  const SessionPtr owner(s);
  tandem_session_info info = TANDEM_INIT(tandem_session_info);
  ASSERT_EQ(TANDEM_OK, tandem_session_get_info(s, &info, nullptr));
  EXPECT_EQ(256u, info.n_context);
}

TEST_F(ArgumentsTest, ANewerCallersLargerStructIsFilledAndItsRestZeroed) {
  struct Newer {
    tandem_model_info info;
    uint64_t later[4];
  } newer;
  std::memset(&newer, 0xAB, sizeof(newer));
  newer.info.struct_bytes = sizeof(newer);
  ASSERT_EQ(TANDEM_OK, tandem_model_get_info(model, &newer.info, nullptr));
  EXPECT_EQ(sizeof(newer), newer.info.struct_bytes);
  EXPECT_EQ(2u, newer.info.n_layers);
  for (const uint64_t word : newer.later) EXPECT_EQ(0u, word);

  struct NewerOptions {
    tandem_session_options options;
    uint64_t later[4];
  } options = {{sizeof(options), 64, 0}, {1, 2, 3, 4}};
  tandem_session* s = nullptr;
  ASSERT_EQ(TANDEM_OK, tandem_session_create(engine, &options.options, &s, nullptr));
  tandem_session_free(s);
}

TEST_F(ArgumentsTest, TierReportsOfAnotherSizeKeepTheirStride) {
  struct Newer {
    tandem_tier_report report;
    uint64_t later;
  } tiers[2] = {};
  for (Newer& tier : tiers) tier.report.struct_bytes = sizeof(Newer);
  size_t n = 0;
  ASSERT_EQ(TANDEM_OK, tandem_engine_get_memory(engine, &tiers[0].report, 2, &n, nullptr));
  EXPECT_EQ(1u, n);
  EXPECT_STREQ("RAM", tiers[0].report.name);
  EXPECT_EQ(nullptr, tiers[1].report.name);
}

TEST_F(ArgumentsTest, MessagesOfAnotherSizeKeepTheirStride) {
  struct Newer {
    tandem_message message;
    uint64_t later;
  } newer[] = {{message("system", "be brief"), 1}, {message("user", "tell of the sea"), 2}};
  for (Newer& one : newer) one.message.struct_bytes = sizeof(Newer);
  const tandem_message known[] = {message("system", "be brief"),
                                  message("user", "tell of the sea")};
  const Loaded chatty(golden_model("qwen3moe"));
  const auto render = [&](const tandem_message* messages) {
    char* text = nullptr;
    Error error;
    EXPECT_TANDEM_OK(tandem_model_render(chatty.model.get(), messages, 2, &text, error), error);
    const std::string copy = text != nullptr ? text : "";
    tandem_string_free(text);
    return copy;
  };
  EXPECT_THAT(render(known), HasSubstr("tell of the sea"));
  EXPECT_EQ(render(known), render(&newer[0].message));
}

TEST_F(ArgumentsTest, MessagesOfDifferentSizesAreRefused) {
  tandem_message messages[] = {message("user", "a"), message("assistant", "b"),
                               message("user", "c")};
  size_t n = 0;
  const auto count = [&](tandem_error** x) {
    return tandem_model_count_tokens(model, messages, 3, nullptr, &n, x);
  };
  messages[1].struct_bytes += sizeof(void*);
  expect_invalid("messages[1].struct_bytes is 32, that of messages[0] is 24", count);
  messages[1].struct_bytes = 0;
  expect_invalid("messages[1].struct_bytes is 0", count);
  tandem_message older = message("user", "a");  // that it holds more is not known to its size
  older.struct_bytes = offsetof(tandem_message, content);
  expect_invalid("messages[0].content is NULL", [&](tandem_error** x) {
    return tandem_model_count_tokens(model, &older, 1, nullptr, &n, x);
  });
}

TEST_F(ArgumentsTest, TokensAreWrittenUpToTheCapacityAndCountedWhole) {
  int32_t tokens[4] = {-7, -7, -7, -7};
  size_t n = 0;
  ASSERT_EQ(TANDEM_OK, tandem_model_tokenize(model, "abcdef", 6, nullptr, tokens, 3, &n, nullptr));
  EXPECT_EQ(tokenize(model, "abcdef").size(), n);
  EXPECT_GT(n, 3u);
  EXPECT_EQ(-7, tokens[3]);
  ASSERT_EQ(TANDEM_OK, tandem_model_tokenize(model, nullptr, 0, nullptr, nullptr, 0, &n, nullptr));
  EXPECT_EQ(0u, n);
}

TEST_F(ArgumentsTest, OutputsAndErrorsStayUntouchedOnTheOtherPath) {
  auto* mark = reinterpret_cast<tandem_error*>(this);
  tandem_error* error = mark;
  tandem_model_info info = TANDEM_INIT(tandem_model_info);
  ASSERT_EQ(TANDEM_OK, tandem_model_get_info(model, &info, &error));
  EXPECT_EQ(mark, error);
  auto* out = reinterpret_cast<tandem_model*>(this);
  EXPECT_EQ(TANDEM_ERROR_NOT_FOUND, tandem_model_open("/no/such/model.gguf", &out, nullptr));
  EXPECT_EQ(reinterpret_cast<tandem_model*>(this), out);
}

TEST_F(ArgumentsTest, AMissingFileIsNamedInTheError) {
  tandem_model* m = nullptr;
  Error error;
  EXPECT_EQ(TANDEM_ERROR_NOT_FOUND, tandem_model_open("/no/such/model.gguf", &m, error));
  EXPECT_THAT(error.text(), HasSubstr("/no/such/model.gguf"));
  EXPECT_EQ(TANDEM_ERROR_NOT_FOUND, error->code);
}

TEST_F(ArgumentsTest, ADamagedFileGivesFileAndOffset) {
  const TemporaryFolder folder;
  const std::string path = (folder / "cut.gguf").string();
  std::ifstream in(golden_model("llama-mha"), std::ios::binary);
  std::vector<char> bytes(std::istreambuf_iterator<char>(in), {});
  bytes.resize(100);
  std::ofstream(path, std::ios::binary).write(bytes.data(), 100);
  tandem_model* m = nullptr;
  Error error;
  EXPECT_EQ(TANDEM_ERROR_CORRUPT, tandem_model_open(path.c_str(), &m, error));
  EXPECT_EQ(path, error->file);
  EXPECT_NE(TANDEM_NO_OFFSET, error->offset);
}

TEST_F(ArgumentsTest, CodesAndVersionHaveNames) {
  EXPECT_STREQ("ok", tandem_code_name(TANDEM_OK));
  EXPECT_STREQ("corrupt", tandem_code_name(TANDEM_ERROR_CORRUPT));
  EXPECT_STREQ("unknown", tandem_code_name(static_cast<tandem_code>(15)));
  EXPECT_STREQ("0.1.0", tandem_version());
}

TEST_F(ArgumentsTest, ModelInfoDescribesTheFile) {
  const Loaded moe(golden_model("qwen3moe"));
  tandem_model_info info = TANDEM_INIT(tandem_model_info);
  ASSERT_EQ(TANDEM_OK, tandem_model_get_info(moe.model.get(), &info, nullptr));
  EXPECT_STREQ("qwen3moe", info.architecture);
  EXPECT_STREQ("tandem fixture qwen3moe", info.name);
  EXPECT_STREQ("f32", info.type_name);
  EXPECT_EQ(std::filesystem::file_size(golden_model("qwen3moe")), info.file_bytes);
  EXPECT_EQ(112u, info.n_vocabulary);
  EXPECT_EQ(2u, info.n_layers);
  EXPECT_EQ(512u, info.n_context_trained);
  EXPECT_EQ(8u, info.n_experts);
  EXPECT_EQ(3u, info.n_experts_used);
  EXPECT_EQ(1, info.has_chat_template);
  EXPECT_EQ(info.n_parameters * 4, info.weight_bytes);
  EXPECT_LT(info.n_active_parameters, info.n_parameters);
  char* json = nullptr;
  ASSERT_EQ(TANDEM_OK, tandem_model_json(moe.model.get(), &json, nullptr));
  EXPECT_THAT(json, ::testing::AllOf(::testing::StartsWith("{"), HasSubstr("\"tensors\""),
                                     HasSubstr("qwen3moe")));
  tandem_string_free(json);
}

// ---- Refusals before anything is loaded ----

TEST_F(ArgumentsTest, WeightsAndKvThatDoNotFitAreRefusedBeforeLoadingWithTheNumbers) {
  tandem_engine_options options =
      engine_options(2, 1u << 27);  // 2^27 tokens of KV: more than any machine has free
  int n_progress = 0;
  options.progress_user = &n_progress;
  options.progress = [](void* user, const tandem_progress*) { ++*static_cast<int*>(user); };
  tandem_engine* e = nullptr;
  Error error;
  ASSERT_EQ(TANDEM_ERROR_OUT_OF_MEMORY, tandem_engine_create(model, &options, &e, error))
      << error.text();
  EXPECT_GT(error->bytes_needed, error->bytes_available);
  EXPECT_GT(error->bytes_needed, uint64_t{1} << 27);
  EXPECT_GT(error->bytes_available, 0u);
  EXPECT_THAT(error.text(), ::testing::AllOf(HasSubstr("weights"), HasSubstr("KV")));
  EXPECT_THAT(error->suggestion,
              ::testing::MatchesRegex("use a context of at most [0-9]+ tokens"));  // no CLI words
  EXPECT_EQ(0, n_progress);
  EXPECT_EQ(nullptr, e);
}

TEST_F(ArgumentsTest, ForceLoadsAlthoughTheNumbersSayNo) {
  tandem_engine_options options = engine_options(2, 1u << 27);
  options.force = 1;
  const EnginePtr forced = create_engine(model, options);
  tandem_engine_info info = TANDEM_INIT(tandem_engine_info);
  ASSERT_EQ(TANDEM_OK, tandem_engine_get_info(forced.get(), &info, nullptr));
  EXPECT_EQ(1u << 27, info.n_context);
  const SessionPtr small = create_session(forced.get(), 64);
  EXPECT_EQ(3 * loaded_.n_vocabulary(), evaluate(small.get(), {7, 8, 9}).size());
}

}  // namespace
}  // namespace tandem::testing

// The C API with owners, for tests; tests see the library only through it.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "golden.h"
#include "tandem/c.h"

namespace tandem::testing {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

using Clock = std::chrono::steady_clock;

inline double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// What the API promises for a cancel; sanitizers slow everything ten- to twentyfold.
inline constexpr double kCancelMs = kSanitized ? 2000 : 100;

// An error object and its owner: pass `error` where the API wants a tandem_error**.
class Error {
 public:
  ~Error() { tandem_error_free(error_); }
  Error() = default;
  Error(const Error&) = delete;
  Error& operator=(const Error&) = delete;

  operator tandem_error**() {
    tandem_error_free(error_);
    error_ = nullptr;
    return &error_;
  }
  const tandem_error* get() const { return error_; }
  const tandem_error* operator->() const { return error_; }
  std::string text() const { return error_ != nullptr ? error_->text : ""; }

 private:
  tandem_error* error_ = nullptr;
};

#define ASSERT_TANDEM_OK(call, error) ASSERT_EQ(TANDEM_OK, (call)) << (error).text()
#define EXPECT_TANDEM_OK(call, error) EXPECT_EQ(TANDEM_OK, (call)) << (error).text()

struct ModelFree {
  void operator()(tandem_model* m) const { tandem_model_free(m); }
};
struct EngineFree {
  void operator()(tandem_engine* e) const { tandem_engine_free(e); }
};
struct SessionFree {
  void operator()(tandem_session* s) const { tandem_session_free(s); }
};
using ModelPtr = std::unique_ptr<tandem_model, ModelFree>;
using EnginePtr = std::unique_ptr<tandem_engine, EngineFree>;
using SessionPtr = std::unique_ptr<tandem_session, SessionFree>;

inline ModelPtr open_model(const std::string& path) {
  Error error;
  tandem_model* model = nullptr;
  EXPECT_EQ(TANDEM_OK, tandem_model_open(path.c_str(), &model, error)) << error.text();
  return ModelPtr(model);
}

inline tandem_engine_options engine_options(unsigned n_threads = 2, uint32_t n_context = 256) {
  tandem_engine_options options = TANDEM_INIT(tandem_engine_options);
  options.n_threads = n_threads;
  options.n_context = n_context;
  return options;
}

// Of an engine with a second processor.
inline tandem_tier_report device_tier(const tandem_engine* engine) {
  tandem_tier_report tiers[2] = {TANDEM_INIT(tandem_tier_report), TANDEM_INIT(tandem_tier_report)};
  size_t n = 0;
  EXPECT_EQ(TANDEM_OK, tandem_engine_get_memory(engine, tiers, 2, &n, nullptr));
  EXPECT_EQ(2u, n);
  return tiers[1];
}

inline EnginePtr create_engine(const tandem_model* model,
                               const tandem_engine_options& options = engine_options()) {
  Error error;
  tandem_engine* engine = nullptr;
  EXPECT_EQ(TANDEM_OK, tandem_engine_create(model, &options, &engine, error)) << error.text();
  return EnginePtr(engine);
}

inline SessionPtr create_session(tandem_engine* engine, uint32_t n_context = 0,
                                 uint32_t queue_events = 0) {
  Error error;
  tandem_session_options options = TANDEM_INIT(tandem_session_options);
  options.n_context = n_context;
  options.queue_events = queue_events;
  tandem_session* session = nullptr;
  EXPECT_EQ(TANDEM_OK, tandem_session_create(engine, &options, &session, error)) << error.text();
  return SessionPtr(session);
}

// A model, its engine and how to get sessions.
struct Loaded {
  explicit Loaded(const std::string& path, const tandem_engine_options& options = engine_options())
      : model(open_model(path)), engine(create_engine(model.get(), options)) {}
  SessionPtr session(uint32_t n_context = 0, uint32_t queue_events = 0) const {
    return create_session(engine.get(), n_context, queue_events);
  }
  uint32_t n_vocabulary() const {
    tandem_model_info info = TANDEM_INIT(tandem_model_info);
    EXPECT_EQ(TANDEM_OK, tandem_model_get_info(model.get(), &info, nullptr));
    return info.n_vocabulary;
  }

  ModelPtr model;
  EnginePtr engine;
};

inline std::vector<int32_t> held_tokens(const tandem_session* session) {
  size_t n = 0;
  EXPECT_EQ(TANDEM_OK, tandem_session_get_tokens(session, nullptr, 0, &n, nullptr));
  std::vector<int32_t> tokens(n);
  EXPECT_EQ(TANDEM_OK, tandem_session_get_tokens(session, tokens.data(), n, &n, nullptr));
  return tokens;
}

inline std::vector<int32_t> tokenize(const tandem_model* model, const std::string& text,
                                     bool parse_special = false) {
  tandem_tokenize_options options = TANDEM_INIT(tandem_tokenize_options);
  options.parse_special = parse_special ? 1 : 0;
  size_t n = 0;
  EXPECT_EQ(TANDEM_OK, tandem_model_tokenize(model, text.data(), text.size(), &options, nullptr, 0,
                                             &n, nullptr));
  std::vector<int32_t> tokens(n);
  EXPECT_EQ(TANDEM_OK, tandem_model_tokenize(model, text.data(), text.size(), &options,
                                             tokens.data(), n, &n, nullptr));
  return tokens;
}

// A message whose strings belong to the caller.
inline tandem_message message(const char* role, const char* content) {
  return {sizeof(tandem_message), role, content};
}

// An event with its own copy of what it points to.
struct Taken {
  tandem_event event = {};
  tandem_progress progress = {};
  std::string text, error_text;
  tandem_code error_code = TANDEM_OK;
};

// Everything that one request gave, taken from the queue.
struct Answer {
  std::vector<Taken> events;
  std::vector<int32_t> tokens;
  std::vector<float> log_probabilities;
  std::vector<std::string> pieces;
  std::string text;
  Taken done;

  void take(const tandem_event& event) {
    Taken taken;
    taken.event = event;
    taken.text.assign(event.text, event.text_bytes);
    if (event.kind == TANDEM_EVENT_DONE && event.error != nullptr) {
      taken.error_text = event.error->text;
      taken.error_code = event.error->code;
    }
    if (event.progress != nullptr) taken.progress = *event.progress;
    taken.event.text = nullptr;
    taken.event.progress = nullptr;
    taken.event.error = nullptr;
    if (event.kind == TANDEM_EVENT_TOKEN) {
      tokens.push_back(event.token);
      log_probabilities.push_back(event.log_probability);
    }
    if (event.kind == TANDEM_EVENT_TOKEN || event.kind == TANDEM_EVENT_DONE) {
      if (!taken.text.empty()) pieces.push_back(taken.text);
      text += taken.text;
    }
    if (event.kind == TANDEM_EVENT_DONE) done = taken;
    events.push_back(std::move(taken));
  }
};

// Takes events until the request has ended; gives up after a minute without one.
inline Answer drain(tandem_session* session) {
  Answer answer;
  while (answer.done.event.kind != TANDEM_EVENT_DONE) {
    Error error;
    tandem_event event = TANDEM_INIT(tandem_event);
    EXPECT_EQ(TANDEM_OK, tandem_session_next_event(session, 60000, &event, error)) << error.text();
    if (event.kind == TANDEM_EVENT_NONE) {
      ADD_FAILURE() << "no event within a minute";
      break;
    }
    answer.take(event);
  }
  return answer;
}

// Greedy, so that a random model's answer is the same everywhere.
inline tandem_sampling greedy(const tandem_model* model) {
  tandem_sampling sampling = TANDEM_INIT(tandem_sampling);
  EXPECT_EQ(TANDEM_OK, tandem_model_default_sampling(model, &sampling, nullptr));
  sampling.temperature = 0;
  return sampling;
}

inline tandem_sampling seeded(const tandem_model* model, uint64_t seed) {
  tandem_sampling sampling = TANDEM_INIT(tandem_sampling);
  EXPECT_EQ(TANDEM_OK, tandem_model_default_sampling(model, &sampling, nullptr));
  sampling.temperature = 1;
  sampling.seed = seed;
  return sampling;
}

// A request that continues from `tokens` for max_tokens, past end-of-answer tokens.
struct TokenRequest {
  TokenRequest(std::vector<int32_t> prompt, uint32_t max_tokens, const tandem_sampling& s)
      : tokens(std::move(prompt)), sampling(s) {
    request.tokens = tokens.data();
    request.n_tokens = tokens.size();
    request.max_tokens = max_tokens;
    request.sampling = &sampling;
    request.ignore_end = 1;
  }
  TokenRequest(const TokenRequest&) = delete;
  TokenRequest& operator=(const TokenRequest&) = delete;

  std::vector<int32_t> tokens;
  tandem_sampling sampling;
  tandem_request request = TANDEM_INIT(tandem_request);
};

inline void submit(tandem_session* session, const tandem_request& request) {
  Error error;
  ASSERT_EQ(TANDEM_OK, tandem_session_submit(session, &request, error)) << error.text();
}

inline Answer ask(tandem_session* session, const tandem_request& request) {
  submit(session, request);
  return drain(session);
}

inline std::vector<float> evaluate(tandem_session* session, const std::vector<int32_t>& tokens) {
  std::vector<float> rows;
  Error error;
  const auto take = [](void* user, size_t, const float* logits, size_t n) {
    auto* all = static_cast<std::vector<float>*>(user);
    all->insert(all->end(), logits, logits + n);
    return 0;
  };
  EXPECT_EQ(TANDEM_OK,
            tandem_session_evaluate(session, tokens.data(), tokens.size(), take, &rows, error))
      << error.text();
  return rows;
}

// Tokens of the fixtures' vocabularies that are ordinary text.
inline std::vector<int32_t> some_tokens(size_t n, uint32_t first = 7) {
  std::vector<int32_t> tokens(n);
  for (size_t i = 0; i < n; ++i) tokens[i] = static_cast<int32_t>(6 + (first + i * 7 + i / 5) % 26);
  return tokens;
}

}  // namespace tandem::testing

// What the tests of several threads share: a model whose prompts and answers last, and a clock that bears other programs.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <memory>
#include <string>

#include "runtime/api.h"

namespace tandem::testing {

using namespace std::chrono_literals;

// A context that takes seconds to fill, even for these small models.
inline constexpr uint32_t kLongContext = 60000;

class ConcurrencyTest : public ::testing::Test {
 protected:
  // Runs until it is cancelled.
  std::unique_ptr<TokenRequest> endless() const {
    return std::make_unique<TokenRequest>(some_tokens(10), 0, seeded(loaded_.model.get(), 5));
  }
  // A prompt that takes seconds.
  std::unique_ptr<TokenRequest> long_prompt() const {
    return std::make_unique<TokenRequest>(some_tokens(kLongContext - 100), 5,
                                          seeded(loaded_.model.get(), 5));
  }
  void expect_usable(tandem_session* session) const {
    Error error;
    ASSERT_TANDEM_OK(tandem_session_truncate(session, 0, error), error);
    const TokenRequest request(some_tokens(10), 8, seeded(loaded_.model.get(), 5));
    const SessionPtr fresh = loaded_.session();
    EXPECT_EQ(ask(fresh.get(), request.request).tokens, ask(session, request.request).tokens);
  }

  const Loaded loaded_{golden_model("qwen3moe"), engine_options(2, kLongContext)};
};

inline tandem_event next(tandem_session* session, int timeout_ms = 60000) {
  tandem_event event = TANDEM_INIT(tandem_event);
  Error error;
  EXPECT_TANDEM_OK(tandem_session_next_event(session, timeout_ms, &event, error), error);
  return event;
}

// The middle of three times that `timed` takes, each after `prepare`: once, other programs may hold
// the processors.
template <typename Prepare, typename Timed>
double median_of_three(Prepare prepare, Timed timed) {
  std::array<double, 3> ms = {};
  for (double& one : ms) {
    prepare();
    const auto start = Clock::now();
    timed();
    one = ms_since(start);
  }
  std::sort(ms.begin(), ms.end());
  return ms[1];
}

// A context so large that megabytes of text might fit it, and all of them have to be tokenized.
inline constexpr uint32_t kHugeContext = 2'000'000;
inline std::string long_text() { return std::string(8 << 20, 'a'); }

}  // namespace tandem::testing

// Cancel in each phase, and what is freed in the middle of work.
#include <functional>
#include <thread>

#include "runtime/concurrency.h"

namespace tandem::testing {
namespace {

using CancelTest = ConcurrencyTest;

TEST_F(CancelTest, CancelWhileTokensAreCounted) {
  std::string text;
  while (text.size() < (kSanitized ? 5'000'000 : 50'000'000)) text += "What light ";
  tandem_message message = TANDEM_INIT(tandem_message);
  message.role = "user";
  message.content = text.c_str();
  tandem_tokenize_options options = TANDEM_INIT(tandem_tokenize_options);
  const std::unique_ptr<tandem_cancel, void (*)(tandem_cancel*)> cancel(tandem_cancel_create(),
                                                                        tandem_cancel_free);
  options.cancel = cancel.get();
  size_t n = 0;
  const std::function<tandem_code()> calls[] = {
      [&] {
        return tandem_model_count_tokens(loaded_.model.get(), &message, 1, cancel.get(), &n,
                                         nullptr);
      },
      [&] {
        return tandem_model_tokenize(loaded_.model.get(), text.data(), text.size(), &options,
                                     nullptr, 0, &n, nullptr);
      }};
  for (const auto& call : calls) {
    std::thread caller;
    tandem_code code = TANDEM_OK;
    const double ms = median_of_three(
        [&] {
          tandem_cancel_reset(cancel.get());
          caller = std::thread([&] { code = call(); });
          std::this_thread::sleep_for(100ms);
        },
        [&] {
          tandem_cancel_trigger(cancel.get());
          caller.join();
        });
    EXPECT_EQ(TANDEM_ERROR_CANCELLED, code);
    EXPECT_LT(ms, kCancelMs);
  }
}

TEST_F(CancelTest, CancelWhileThePromptIsProcessed) {
  const SessionPtr session = loaded_.session();
  const auto request = long_prompt();
  const double median_ms = median_of_three(
      [&] {
        ASSERT_EQ(TANDEM_OK, tandem_session_truncate(session.get(), 0, nullptr));
        submit(session.get(), request->request);
        std::this_thread::sleep_for(100ms);
      },
      [&] {
        tandem_session_cancel(session.get());
        const Answer answer = drain(session.get());
        EXPECT_EQ(TANDEM_FINISH_CANCELLED, answer.done.event.finish);
        EXPECT_EQ(answer.done.event.n_prompt_evaluated, answer.done.event.n_kept);
        EXPECT_LT(answer.done.event.n_kept, request->tokens.size());
        const std::vector<int32_t> held = held_tokens(session.get());
        EXPECT_EQ(answer.done.event.n_kept, held.size());
        EXPECT_TRUE(std::equal(held.begin(), held.end(), request->tokens.begin()));
      });
  EXPECT_LT(median_ms, kCancelMs);
  expect_usable(session.get());
}

TEST_F(CancelTest, CancelWhileTokensAreGenerated) {
  const SessionPtr session = loaded_.session();
  const auto request = endless();
  submit(session.get(), request->request);
  std::thread canceller([&] {
    std::this_thread::sleep_for(50ms);
    tandem_session_cancel(session.get());
  });
  const Answer answer = drain(session.get());
  canceller.join();
  EXPECT_EQ(TANDEM_FINISH_CANCELLED, answer.done.event.finish);
  EXPECT_GT(answer.tokens.size(), 0u);
  std::vector<int32_t> given = some_tokens(10);
  given.insert(given.end(), answer.tokens.begin(), answer.tokens.end());
  const std::vector<int32_t> held = held_tokens(session.get());
  EXPECT_EQ(answer.done.event.n_kept, held.size());
  ASSERT_LE(held.size(), given.size());
  EXPECT_TRUE(std::equal(held.begin(), held.end(), given.begin()));
  expect_usable(session.get());
}

TEST_F(CancelTest, CancelWhileTheConsumerDoesNotTakeEvents) {
  const SessionPtr session = loaded_.session(0, 2);
  const auto request = endless();
  submit(session.get(), request->request);
  std::this_thread::sleep_for(20ms);
  tandem_session_cancel(session.get());
  const Answer answer = drain(session.get());
  EXPECT_EQ(TANDEM_FINISH_CANCELLED, answer.done.event.finish);
  EXPECT_LE(answer.events.size(), 3u);
  expect_usable(session.get());
}

TEST_F(CancelTest, CancelWhileEvaluating) {
  const SessionPtr session = loaded_.session();
  const std::vector<int32_t> tokens = some_tokens(kLongContext - 100);
  std::thread evaluation;
  const double median_ms = median_of_three(
      [&] {
        ASSERT_EQ(TANDEM_OK, tandem_session_truncate(session.get(), 0, nullptr));
        evaluation = std::thread([&] {
          EXPECT_EQ(TANDEM_ERROR_CANCELLED,
                    tandem_session_evaluate(session.get(), tokens.data(), tokens.size(), nullptr,
                                            nullptr, nullptr));
        });
        std::this_thread::sleep_for(100ms);
      },
      [&] {
        tandem_session_cancel(session.get());
        evaluation.join();
      });
  EXPECT_LT(median_ms, kCancelMs);
  const std::vector<int32_t> held = held_tokens(session.get());
  EXPECT_LT(held.size(), tokens.size());
  EXPECT_TRUE(std::equal(held.begin(), held.end(), tokens.begin()));
  expect_usable(session.get());
}

TEST_F(CancelTest, CancelWithNothingRunningChangesNothing) {
  const SessionPtr session = loaded_.session();
  tandem_session_cancel(session.get());
  tandem_session_cancel(nullptr);
  expect_usable(session.get());
}

TEST_F(CancelTest, CancelWhileAPromptIsTokenized) {
  const Loaded roomy(golden_model("qwen3moe"), engine_options(2, kHugeContext));
  const SessionPtr session = roomy.session();
  const std::string text = long_text();
  tandem_request request = TANDEM_INIT(tandem_request);
  request.text = text.data();
  request.text_bytes = text.size();
  const double median_ms = median_of_three(
      [&] {
        submit(session.get(), request);
        std::this_thread::sleep_for(5ms);
      },
      [&] {
        tandem_session_cancel(session.get());
        const Answer answer = drain(session.get());
        EXPECT_EQ(TANDEM_FINISH_CANCELLED, answer.done.event.finish) << answer.done.error_text;
        EXPECT_EQ(0u, answer.done.event.n_kept);
      });
  EXPECT_LT(median_ms, kCancelMs);
  expect_usable(session.get());
}

TEST_F(CancelTest, CancelDoesNotWaitForAnotherSessionsStep) {
  // A prompt keeps the worker in its session nearly always, for many times as long per step as the other one's token.
  const SessionPtr prompting = loaded_.session(), waiting = loaded_.session();
  const auto prompt = long_prompt(), request = endless();
  submit(prompting.get(), prompt->request);
  constexpr int kRounds = 20;
  int n_at_once = 0;
  for (int i = 0; i < kRounds; ++i) {
    submit(waiting.get(), request->request);
    std::this_thread::sleep_for(5ms);
    tandem_session_cancel(waiting.get());
    tandem_event event = next(waiting.get(), 0);
    while (event.kind == TANDEM_EVENT_TOKEN) event = next(waiting.get(), 0);
    n_at_once += event.kind == TANDEM_EVENT_DONE ? 1 : 0;  // it was there when the cancel returned
    while (event.kind != TANDEM_EVENT_DONE) event = next(waiting.get());
    EXPECT_EQ(TANDEM_FINISH_CANCELLED, event.finish);
  }
  EXPECT_GE(n_at_once, kRounds / 2);
}

TEST_F(CancelTest, SessionsFreedWhileTheyRunEndWithin100Ms) {
  for (int i = 0; i < 4; ++i) {
    SessionPtr generating, prompting;
    const auto endless_request = endless(), long_request = long_prompt();
    const double median_ms = median_of_three(
        [&] {
          generating = loaded_.session();
          prompting = loaded_.session();
          submit(generating.get(), endless_request->request);
          submit(prompting.get(), long_request->request);
          std::this_thread::sleep_for(std::chrono::milliseconds(5 * i));
        },
        [&] {
          generating.reset();
          prompting.reset();
        });
    EXPECT_LT(median_ms, 2 * kCancelMs);
  }
}

TEST(Engine, FreedRightAfterARunningSession) {
  for (int i = 0; i < 10; ++i) {
    Loaded loaded(golden_model("llama-mha"));
    SessionPtr session = loaded.session();
    const TokenRequest request(some_tokens(10), 0, greedy(loaded.model.get()));
    submit(session.get(), request.request);
    session.reset();
    loaded.engine.reset();
  }
}

}  // namespace
}  // namespace tandem::testing

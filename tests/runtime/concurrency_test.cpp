// Several callers and several sessions at once: who is busy, who waits for whom.
#include <atomic>
#include <mutex>
#include <thread>

#include "runtime/concurrency.h"

namespace tandem::testing {
namespace {

using ::testing::HasSubstr;

TEST_F(ConcurrencyTest, EverySecondCallerIsBusyWhileARequestRuns) {
  const SessionPtr session = loaded_.session(0, 4);  // stands still after four events
  const auto request = endless();
  submit(session.get(), request->request);
  next(session.get());
  Error error;
  size_t n = 0;
  tandem_session* fork = nullptr;
  const int32_t token = 7;
  EXPECT_EQ(TANDEM_ERROR_BUSY, tandem_session_submit(session.get(), &request->request, error));
  EXPECT_THAT(error.text(), HasSubstr("running"));
  EXPECT_EQ(TANDEM_ERROR_BUSY,
            tandem_session_evaluate(session.get(), &token, 1, nullptr, nullptr, nullptr));
  EXPECT_EQ(TANDEM_ERROR_BUSY, tandem_session_truncate(session.get(), 0, nullptr));
  EXPECT_EQ(TANDEM_ERROR_BUSY, tandem_session_get_tokens(session.get(), nullptr, 0, &n, nullptr));
  EXPECT_EQ(TANDEM_ERROR_BUSY, tandem_session_fork(session.get(), &fork, nullptr));
  EXPECT_EQ(TANDEM_ERROR_BUSY, tandem_session_save(session.get(), "/nowhere/s", nullptr));
  EXPECT_EQ(TANDEM_ERROR_BUSY, tandem_session_load(session.get(), "/nowhere/s", nullptr));
  EXPECT_EQ(TANDEM_ERROR_BUSY,
            tandem_session_set_callback(session.get(), nullptr, nullptr, nullptr));
  tandem_session_cancel(session.get());
  EXPECT_EQ(TANDEM_FINISH_CANCELLED, drain(session.get()).done.event.finish);
  expect_usable(session.get());
}

TEST_F(ConcurrencyTest, OfManyCallersAtOnceOneIsServed) {
  const SessionPtr session = loaded_.session();
  for (int round = 0; round < 20; ++round) {
    const TokenRequest request(some_tokens(3), 2, greedy(loaded_.model.get()));
    std::atomic<int> n_served{0}, n_busy{0};
    std::vector<std::thread> callers;
    for (int i = 0; i < 4; ++i) {
      callers.emplace_back([&] {
        const tandem_code code = tandem_session_submit(session.get(), &request.request, nullptr);
        if (code == TANDEM_OK) ++n_served;
        if (code == TANDEM_ERROR_BUSY) ++n_busy;
      });
    }
    for (std::thread& caller : callers) caller.join();
    EXPECT_EQ(4, n_served + n_busy);
    EXPECT_GE(n_served, 1);  // a quick request may have ended before the last caller came
    for (int i = 0; i < n_served; ++i) EXPECT_EQ(2u, drain(session.get()).tokens.size());
  }
}

TEST_F(ConcurrencyTest, ASlowConsumerBlocksOnlyItsOwnSession) {
  const SessionPtr slow = loaded_.session(0, 3), quick = loaded_.session();
  const TokenRequest request(some_tokens(10), 30, seeded(loaded_.model.get(), 5));
  submit(slow.get(), request.request);
  const Answer of_quick = ask(quick.get(), request.request);
  EXPECT_EQ(30u, of_quick.tokens.size());
  // Nothing of the slow one was lost.
  const Answer of_slow = drain(slow.get());
  EXPECT_EQ(of_quick.tokens, of_slow.tokens);
  EXPECT_EQ(of_quick.text, of_slow.text);
}

TEST_F(ConcurrencyTest, ASlowLogitsCallbackBlocksOnlyItsOwnSession) {
  const SessionPtr slow = loaded_.session(), quick = loaded_.session();
  struct Sleeper {
    std::atomic<bool> entered{false}, go_on{false};
    std::thread::id thread;
    static int sleep(void* user, size_t, const float*, size_t) {
      auto& self = *static_cast<Sleeper*>(user);
      self.thread = std::this_thread::get_id();
      self.entered = true;
      while (!self.go_on) std::this_thread::sleep_for(1ms);
      return 0;
    }
  } sleeper;
  const std::vector<int32_t> tokens = some_tokens(300);
  std::thread::id caller;
  std::thread evaluation([&] {
    caller = std::this_thread::get_id();
    EXPECT_EQ(TANDEM_OK, tandem_session_evaluate(slow.get(), tokens.data(), tokens.size(),
                                                 Sleeper::sleep, &sleeper, nullptr));
  });
  while (!sleeper.entered) std::this_thread::sleep_for(1ms);
  const TokenRequest request(some_tokens(10), 30, seeded(loaded_.model.get(), 5));
  EXPECT_EQ(30u,
            ask(quick.get(), request.request).tokens.size());  // while the callback still sleeps
  sleeper.go_on = true;
  evaluation.join();
  EXPECT_EQ(caller, sleeper.thread);
  EXPECT_EQ(tokens, held_tokens(slow.get()));
}

TEST_F(ConcurrencyTest, ALogitsCallbackMayUseOtherSessions) {
  const SessionPtr outer = loaded_.session(), inner = loaded_.session();
  const auto evaluate_inner = [](void* user, size_t index, const float* logits, size_t n) {
    const std::vector<float> before(logits, logits + n);
    const int32_t token = some_tokens(20)[index];
    EXPECT_EQ(TANDEM_OK, tandem_session_evaluate(static_cast<tandem_session*>(user), &token, 1,
                                                 nullptr, nullptr, nullptr));
    EXPECT_TRUE(std::equal(before.begin(), before.end(), logits));
    return 0;
  };
  const std::vector<int32_t> tokens = some_tokens(20);
  EXPECT_EQ(TANDEM_OK, tandem_session_evaluate(outer.get(), tokens.data(), tokens.size(),
                                               evaluate_inner, inner.get(), nullptr));
  EXPECT_EQ(tokens, held_tokens(inner.get()));
}

TEST_F(ConcurrencyTest, APromptThatIsTokenizedDelaysNobodyElse) {
  const Loaded roomy(golden_model("qwen3moe"), engine_options(2, kHugeContext));
  const SessionPtr busy = roomy.session(), quick = roomy.session(256);
  const std::string text = long_text();
  tandem_request request = TANDEM_INIT(tandem_request);
  request.text = text.data();
  request.text_bytes = text.size();
  submit(busy.get(), request);
  const TokenRequest short_request(some_tokens(3), 3, greedy(loaded_.model.get()));
  EXPECT_EQ(3u, ask(quick.get(), short_request.request).tokens.size());
  tandem_event event = next(busy.get(), 0);
  EXPECT_EQ(TANDEM_EVENT_NONE, event.kind) << "the text is too short for this machine";
}

TEST_F(ConcurrencyTest, TextThatCannotFitIsRefusedWithoutTokenizingIt) {
  const SessionPtr session = loaded_.session(256);
  const std::string text(512 << 20, 'a');
  tandem_request request = TANDEM_INIT(tandem_request);
  request.text = text.data();
  request.text_bytes = text.size();
  submit(session.get(), request);
  const auto start = Clock::now();
  const Answer refused = drain(session.get());
  EXPECT_EQ(TANDEM_FINISH_ERROR, refused.done.event.finish);
  EXPECT_THAT(refused.done.error_text, HasSubstr("the prompt has more than"));
  EXPECT_LT(ms_since(start), 1000);
}

TEST_F(ConcurrencyTest, ManyThreadsWithSessionsOfTheirOwn) {
  const TokenRequest request(some_tokens(10), 20, seeded(loaded_.model.get(), 5));
  const SessionPtr alone = loaded_.session();
  const std::vector<int32_t> expected = ask(alone.get(), request.request).tokens;
  std::vector<std::thread> users;
  for (int i = 0; i < 6; ++i) {
    users.emplace_back([&] {
      for (int round = 0; round < 3; ++round) {
        const SessionPtr session = loaded_.session();
        EXPECT_EQ(expected, ask(session.get(), request.request).tokens);
      }
    });
  }
  for (std::thread& user : users) user.join();
}

}  // namespace
}  // namespace tandem::testing

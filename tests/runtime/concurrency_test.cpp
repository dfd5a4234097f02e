// Several threads: busy, cancel in each phase, queues and callbacks, ends in the middle of work.
#include <poll.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>

#include "runtime/api.h"

namespace tandem::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

// A context that takes seconds to fill, even for these small models.
constexpr uint32_t kLongContext = 60000;

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

tandem_event next(tandem_session* session, int timeout_ms = 60000) {
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

TEST_F(ConcurrencyTest, CancelWhileTokensAreCounted) {
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

TEST_F(ConcurrencyTest, CancelWhileThePromptIsProcessed) {
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

TEST_F(ConcurrencyTest, CancelWhileTokensAreGenerated) {
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

TEST_F(ConcurrencyTest, CancelWhileTheConsumerDoesNotTakeEvents) {
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

TEST_F(ConcurrencyTest, CancelWhileEvaluating) {
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

TEST_F(ConcurrencyTest, CancelWithNothingRunningChangesNothing) {
  const SessionPtr session = loaded_.session();
  tandem_session_cancel(session.get());
  tandem_session_cancel(nullptr);
  expect_usable(session.get());
}

TEST(Load, CancelledEndsTheCallAndTheModelCanBeLoadedAfterwards) {
  const ModelPtr model = open_model(golden_model("qwen3moe"));
  tandem_cancel* cancel = tandem_cancel_create();
  tandem_cancel_trigger(cancel);
  tandem_engine_options options = engine_options();
  options.cancel = cancel;
  tandem_engine* engine = nullptr;
  Error error;
  EXPECT_EQ(TANDEM_ERROR_CANCELLED, tandem_engine_create(model.get(), &options, &engine, error));
  EXPECT_EQ(nullptr, engine);
  tandem_cancel_reset(cancel);
  ASSERT_TANDEM_OK(tandem_engine_create(model.get(), &options, &engine, error), error);
  tandem_engine_free(engine);
  tandem_cancel_free(cancel);
}

TEST(Load, CancelledFromAnotherThreadAtAnyMomentGivesAnEngineOrCancelled) {
  const ModelPtr model = open_model(golden_model("qwen3moe"));
  for (int i = 0; i < 20; ++i) {
    tandem_cancel* cancel = tandem_cancel_create();
    tandem_engine_options options = engine_options();
    options.cancel = cancel;
    std::thread canceller([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(i * 100));
      tandem_cancel_trigger(cancel);
    });
    tandem_engine* engine = nullptr;
    Error error;
    const tandem_code code = tandem_engine_create(model.get(), &options, &engine, error);
    canceller.join();
    EXPECT_TRUE(code == TANDEM_OK || code == TANDEM_ERROR_CANCELLED) << error.text();
    tandem_engine_free(engine);
    tandem_cancel_free(cancel);
  }
}

TEST(Load, ReportsProgressUpToTheEndOnTheCallingThread) {
  struct Seen {
    std::thread::id thread = std::this_thread::get_id();
    uint64_t done = 0, total = 0;
    int n = 0;
  } seen;
  const ModelPtr model = open_model(golden_model("qwen3moe"));
  tandem_engine_options options = engine_options();
  options.progress_user = &seen;
  options.progress = [](void* user, const tandem_progress* progress) {
    auto& s = *static_cast<Seen*>(user);
    EXPECT_EQ(s.thread, std::this_thread::get_id());
    EXPECT_EQ(TANDEM_STAGE_LOAD, progress->stage);
    EXPECT_GE(progress->done, s.done);
    s.done = progress->done;
    s.total = progress->total;
    ++s.n;
  };
  create_engine(model.get(), options);
  EXPECT_GT(seen.n, 0);
  EXPECT_GT(seen.total, 0u);
  EXPECT_EQ(seen.total, seen.done);
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

// A context so large that megabytes of text might fit it, and all of them have to be tokenized.
constexpr uint32_t kHugeContext = 2'000'000;
std::string long_text() { return std::string(8 << 20, 'a'); }

TEST_F(ConcurrencyTest, CancelWhileAPromptIsTokenized) {
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

TEST_F(ConcurrencyTest, CancelDoesNotWaitForAnotherSessionsStep) {
  // A prompt keeps the worker in its session nearly always; the other one waits for its turn.
  const SessionPtr prompting = loaded_.session(), waiting = loaded_.session();
  const auto prompt = long_prompt(), request = endless();
  submit(prompting.get(), prompt->request);
  submit(waiting.get(), request->request);
  tandem_session_cancel(waiting.get());
  tandem_event event = next(waiting.get(), 0);
  while (event.kind == TANDEM_EVENT_TOKEN) event = next(waiting.get(), 0);
  // Either its step was running, or the event was there when the cancel returned.
  if (event.kind == TANDEM_EVENT_NONE) event = next(waiting.get());
  while (event.kind == TANDEM_EVENT_TOKEN) event = next(waiting.get());
  EXPECT_EQ(TANDEM_EVENT_DONE, event.kind);
  EXPECT_EQ(TANDEM_FINISH_CANCELLED, event.finish);
}

TEST_F(ConcurrencyTest, ACallbackIsRefusedWhileAThreadWaitsForEvents) {
  const SessionPtr session = loaded_.session();
  std::atomic<bool> waiting{false};
  std::thread waiter([&] {
    tandem_event event = TANDEM_INIT(tandem_event);
    waiting = true;
    while (event.kind != TANDEM_EVENT_DONE) {
      EXPECT_EQ(TANDEM_OK, tandem_session_next_event(session.get(), 60000, &event, nullptr));
    }
  });
  while (!waiting) std::this_thread::sleep_for(1ms);
  std::this_thread::sleep_for(20ms);
  const auto ignore = [](void*, const tandem_event*) {};
  Error error;
  EXPECT_EQ(TANDEM_ERROR_BUSY, tandem_session_set_callback(session.get(), ignore, nullptr, error));
  const TokenRequest request(some_tokens(3), 2, greedy(loaded_.model.get()));
  submit(session.get(), request.request);
  waiter.join();
}

TEST_F(ConcurrencyTest, FreeingASessionStillGivesItsCallbackTheLastEvent) {
  const auto request = endless();
  for (int i = 0; i < 50; ++i) {
    std::atomic<int> n_done{0};
    const auto count = [](void* user, const tandem_event* event) {
      if (event->kind == TANDEM_EVENT_DONE) ++*static_cast<std::atomic<int>*>(user);
    };
    SessionPtr session = loaded_.session(256);
    ASSERT_EQ(TANDEM_OK, tandem_session_set_callback(session.get(), count, &n_done, nullptr));
    submit(session.get(), request->request);
    session.reset();
    ASSERT_EQ(1, n_done) << "round " << i;
  }
}

TEST_F(ConcurrencyTest, TheDescriptorIsReadableExactlyWhileEventsWait) {
  const SessionPtr session = loaded_.session();
  int fd = -1;
  Error error;
  ASSERT_TANDEM_OK(tandem_session_event_fd(session.get(), &fd, error), error);
  const auto readable = [fd](int timeout_ms) {
    pollfd waiting = {fd, POLLIN, 0};
    return ::poll(&waiting, 1, timeout_ms) == 1;
  };
  EXPECT_FALSE(readable(0));
  EXPECT_EQ(TANDEM_EVENT_NONE, next(session.get(), 0).kind);
  const TokenRequest request(some_tokens(10), 20, greedy(loaded_.model.get()));
  submit(session.get(), request.request);
  Answer answer;
  while (answer.done.event.kind != TANDEM_EVENT_DONE) {
    ASSERT_TRUE(readable(60000));
    const tandem_event event = next(session.get(), 0);
    ASSERT_NE(TANDEM_EVENT_NONE, event.kind);
    answer.take(event);
  }
  EXPECT_EQ(20u, answer.tokens.size());
  EXPECT_FALSE(readable(0));
}

TEST_F(ConcurrencyTest, NextEventWaitsAsLongAsItWasTold) {
  const SessionPtr session = loaded_.session();
  const auto start = Clock::now();
  EXPECT_EQ(TANDEM_EVENT_NONE, next(session.get(), 30).kind);
  EXPECT_GE(ms_since(start), 29);
  EXPECT_LT(ms_since(start), 2000);
}

// What a callback saw, and when its request ended.
struct Listener {
  static void listen(void* user, const tandem_event* event) {
    auto& self = *static_cast<Listener*>(user);
    std::lock_guard lock(self.mutex);
    self.thread = std::this_thread::get_id();
    self.answer.take(*event);
    if (event->kind == TANDEM_EVENT_DONE) ++self.n_done;
    self.changed.notify_all();
  }
  void wait_for_done(int n = 1) {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(changed.wait_for(lock, 60s, [&] { return n_done >= n; }));
  }

  std::mutex mutex;
  std::condition_variable changed;
  Answer answer;
  int n_done = 0;
  std::thread::id thread;
};

TEST_F(ConcurrencyTest, ACallbackGetsTheSameEventsAsTheQueueOnAThreadOfTheLibrary) {
  const SessionPtr queued = loaded_.session(), called = loaded_.session();
  const TokenRequest request(some_tokens(10), 20, seeded(loaded_.model.get(), 5));
  const Answer expected = ask(queued.get(), request.request);
  Listener listener;
  Error error;
  ASSERT_TANDEM_OK(tandem_session_set_callback(called.get(), Listener::listen, &listener, error),
                   error);
  submit(called.get(), request.request);
  listener.wait_for_done();
  EXPECT_EQ(expected.tokens, listener.answer.tokens);
  EXPECT_EQ(expected.text, listener.answer.text);
  EXPECT_NE(std::this_thread::get_id(), listener.thread);
  tandem_event event = TANDEM_INIT(tandem_event);
  EXPECT_EQ(TANDEM_ERROR_BUSY, tandem_session_next_event(called.get(), 0, &event, error));

  ASSERT_TANDEM_OK(tandem_session_set_callback(called.get(), nullptr, nullptr, error), error);
  EXPECT_EQ(TANDEM_EVENT_NONE, next(called.get(), 0).kind);
  expect_usable(called.get());
}

TEST_F(ConcurrencyTest, AQueueAfterACallbackWaitsAgain) {
  const SessionPtr session = loaded_.session();
  Listener listener;
  ASSERT_EQ(TANDEM_OK,
            tandem_session_set_callback(session.get(), Listener::listen, &listener, nullptr));
  ASSERT_EQ(TANDEM_OK, tandem_session_set_callback(session.get(), nullptr, nullptr, nullptr));
  const auto start = Clock::now();
  EXPECT_EQ(TANDEM_EVENT_NONE, next(session.get(), 30).kind);
  EXPECT_GE(ms_since(start), 29);
}

TEST_F(ConcurrencyTest, ACallbackMaySubmitTheNextRequestAndCancel) {
  struct Chain {
    tandem_session* session = nullptr;
    const TokenRequest* request = nullptr;
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<tandem_finish> finishes;
    static void listen(void* user, const tandem_event* event) {
      auto& self = *static_cast<Chain*>(user);
      if (event->kind == TANDEM_EVENT_TOKEN && self.finishes.size() == 1)
        tandem_session_cancel(self.session);
      if (event->kind != TANDEM_EVENT_DONE) return;
      {
        std::lock_guard lock(self.mutex);
        self.finishes.push_back(event->finish);
      }
      if (self.finishes.size() < 3) {
        EXPECT_EQ(TANDEM_OK, tandem_session_submit(self.session, &self.request->request, nullptr));
      }
      self.changed.notify_all();
    }
  } chain;
  const SessionPtr session = loaded_.session(0, 4);
  const TokenRequest request(some_tokens(4), 40, seeded(loaded_.model.get(), 5));
  chain.session = session.get();
  chain.request = &request;
  ASSERT_EQ(TANDEM_OK, tandem_session_set_callback(session.get(), Chain::listen, &chain, nullptr));
  submit(session.get(), request.request);
  std::unique_lock lock(chain.mutex);
  ASSERT_TRUE(chain.changed.wait_for(lock, 60s, [&] { return chain.finishes.size() == 3; }));
  EXPECT_EQ((std::vector{TANDEM_FINISH_LENGTH, TANDEM_FINISH_CANCELLED, TANDEM_FINISH_LENGTH}),
            chain.finishes);
}

TEST_F(ConcurrencyTest, ACallbackCannotReplaceItself) {
  struct Replace {
    tandem_session* session = nullptr;
    std::atomic<int> code{-1};
    static void listen(void* user, const tandem_event* event) {
      auto& self = *static_cast<Replace*>(user);
      if (event->kind == TANDEM_EVENT_DONE) {
        self.code = tandem_session_set_callback(self.session, nullptr, nullptr, nullptr);
      }
    }
  } replace;
  const SessionPtr session = loaded_.session();
  replace.session = session.get();
  ASSERT_EQ(TANDEM_OK,
            tandem_session_set_callback(session.get(), Replace::listen, &replace, nullptr));
  const TokenRequest request(some_tokens(4), 2, greedy(loaded_.model.get()));
  submit(session.get(), request.request);
  const auto start = Clock::now();
  while (replace.code < 0 && ms_since(start) < 60000) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(TANDEM_ERROR_BUSY, replace.code);
}

TEST_F(ConcurrencyTest, ASecondConsumerIsBusy) {
  const SessionPtr session = loaded_.session();
  std::thread first([&] {
    tandem_event event = TANDEM_INIT(tandem_event);
    // Until it is the first of the two.
    while (tandem_session_next_event(session.get(), 60000, &event, nullptr) == TANDEM_ERROR_BUSY) {
    }
  });
  tandem_event event = TANDEM_INIT(tandem_event);
  tandem_code code = TANDEM_OK;
  const auto start = Clock::now();
  while (code == TANDEM_OK && ms_since(start) < 10000) {
    code = tandem_session_next_event(session.get(), 0, &event, nullptr);
  }
  EXPECT_EQ(TANDEM_ERROR_BUSY, code);
  const TokenRequest request(some_tokens(3), 1, greedy(loaded_.model.get()));
  submit(session.get(), request.request);
  first.join();
}

TEST_F(ConcurrencyTest, SessionsFreedWhileTheyRunEndWithin100Ms) {
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

TEST_F(ConcurrencyTest, ASessionFreedWhileItsCallbackIsCalledEnds) {
  SessionPtr session = loaded_.session();
  Listener listener;
  ASSERT_EQ(TANDEM_OK,
            tandem_session_set_callback(session.get(), Listener::listen, &listener, nullptr));
  const auto request = endless();
  submit(session.get(), request->request);
  std::this_thread::sleep_for(20ms);
  session.reset();
  const size_t n = listener.answer.events.size();  // no thread calls back any more
  std::this_thread::sleep_for(5ms);
  EXPECT_EQ(n, listener.answer.events.size());
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

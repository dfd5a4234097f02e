// How events reach their consumer: the queue, its descriptor, callbacks.
#include <poll.h>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "runtime/concurrency.h"

namespace tandem::testing {
namespace {

using DeliveryTest = ConcurrencyTest;

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

TEST_F(DeliveryTest, ACallbackIsRefusedWhileAThreadWaitsForEvents) {
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

TEST_F(DeliveryTest, TheLastEventIsTheLastInAQueueOfOneHoweverSlowItsConsumer) {
  // One step reports progress, gives a token and ends at a stop text.
  TokenRequest request(some_tokens(5000), 3, greedy(loaded_.model.get()));
  const std::string first_text = [&] {
    const SessionPtr session = loaded_.session();
    return ask(session.get(), request.request).text;
  }();
  ASSERT_FALSE(first_text.empty());
  const std::string stop_text = first_text.substr(0, 1);
  const char* stop = stop_text.c_str();
  request.request.stop = &stop;
  request.request.n_stop = 1;
  const SessionPtr session = loaded_.session(0, /*queue_events=*/1);
  submit(session.get(), request.request);
  std::vector<tandem_event_kind> kinds;
  while (kinds.empty() || kinds.back() != TANDEM_EVENT_DONE) {
    std::this_thread::sleep_for(kSanitized ? 500ms : 150ms);
    kinds.push_back(next(session.get()).kind);
  }
  EXPECT_EQ(1, std::count(kinds.begin(), kinds.end(), TANDEM_EVENT_TOKEN));
  EXPECT_EQ(TANDEM_EVENT_NONE, next(session.get(), 200).kind) << "after the last event";
}

TEST_F(DeliveryTest, FreeingASessionStillGivesItsCallbackTheLastEvent) {
  const auto tokens = endless();
  tandem_request text = TANDEM_INIT(tandem_request);  // freed while it is tokenized
  const std::string words = long_text().substr(0, 300'000);
  text.text = words.data();
  text.text_bytes = words.size();
  for (int i = 0; i < 50; ++i) {
    std::atomic<int> n_done{0};
    const auto count = [](void* user, const tandem_event* event) {
      if (event->kind == TANDEM_EVENT_DONE) ++*static_cast<std::atomic<int>*>(user);
    };
    SessionPtr session = loaded_.session();
    ASSERT_EQ(TANDEM_OK, tandem_session_set_callback(session.get(), count, &n_done, nullptr));
    submit(session.get(), i % 2 == 0 ? tokens->request : text);
    session.reset();
    ASSERT_EQ(1, n_done) << "round " << i;
  }
}

TEST_F(DeliveryTest, TheDescriptorIsReadableExactlyWhileEventsWait) {
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

TEST_F(DeliveryTest, NextEventWaitsAsLongAsItWasTold) {
  const SessionPtr session = loaded_.session();
  const auto start = Clock::now();
  EXPECT_EQ(TANDEM_EVENT_NONE, next(session.get(), 30).kind);
  EXPECT_GE(ms_since(start), 29);
  EXPECT_LT(ms_since(start), 2000);
}

TEST_F(DeliveryTest, ACallbackGetsTheSameEventsAsTheQueueOnAThreadOfTheLibrary) {
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

TEST_F(DeliveryTest, AQueueAfterACallbackWaitsAgain) {
  const SessionPtr session = loaded_.session();
  Listener listener;
  ASSERT_EQ(TANDEM_OK,
            tandem_session_set_callback(session.get(), Listener::listen, &listener, nullptr));
  ASSERT_EQ(TANDEM_OK, tandem_session_set_callback(session.get(), nullptr, nullptr, nullptr));
  const auto start = Clock::now();
  EXPECT_EQ(TANDEM_EVENT_NONE, next(session.get(), 30).kind);
  EXPECT_GE(ms_since(start), 29);
}

TEST_F(DeliveryTest, ACallbackMaySubmitTheNextRequestAndCancel) {
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

TEST_F(DeliveryTest, ACallbackCannotReplaceItself) {
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

TEST_F(DeliveryTest, ASecondConsumerIsBusy) {
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

TEST_F(DeliveryTest, ASessionFreedWhileItsCallbackIsCalledEnds) {
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

}  // namespace
}  // namespace tandem::testing

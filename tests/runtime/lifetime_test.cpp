// Handles are freed in whatever order a host's finalizers run; what is still held goes on working.
// Run under the address sanitizer.
#include <algorithm>
#include <array>
#include <functional>
#include <numeric>

#include "runtime/api.h"
#include "tandem/tandem.hpp"

namespace tandem::testing {
namespace {

const char* const kModel = "llama-mha";

TEST(Lifetime, HandlesGoInAnyOrder) {
  std::array<size_t, 5> order;
  std::iota(order.begin(), order.end(), size_t{0});
  do {
    Loaded loaded(golden_model(kModel));
    SessionPtr session = loaded.session(), other = loaded.session(), fork;
    tandem_session* copy = nullptr;
    Error error;
    ASSERT_TANDEM_OK(tandem_session_fork(session.get(), &copy, error), error);
    fork.reset(copy);
    const std::array<std::function<void()>, 5> frees = {
        [&] { loaded.model.reset(); }, [&] { loaded.engine.reset(); }, [&] { session.reset(); },
        [&] { other.reset(); }, [&] { fork.reset(); }};
    for (const size_t i : order) {
      frees[i]();
      for (const SessionPtr* left : {&session, &other, &fork}) {
        if (*left == nullptr) continue;
        EXPECT_FALSE(evaluate(left->get(), {7}).empty());
      }
    }
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST(Lifetime, ASessionAnswersWithoutTheHandlesItCameFrom) {
  Loaded loaded(golden_model(kModel));
  const TokenRequest request(some_tokens(9), 10, greedy(loaded.model.get()));
  const std::vector<int32_t> expected = ask(loaded.session().get(), request.request).tokens;
  const SessionPtr session = loaded.session();
  loaded.model.reset();
  loaded.engine.reset();
  EXPECT_EQ(expected, ask(session.get(), request.request).tokens);
  tandem_session* copy = nullptr;
  Error error;
  ASSERT_TANDEM_OK(tandem_session_fork(session.get(), &copy, error), error);
  const SessionPtr fork(copy);
  EXPECT_EQ(held_tokens(session.get()), held_tokens(fork.get()));
}

TEST(Lifetime, AnEngineOpensSessionsWithoutItsModelsHandle) {
  Loaded loaded(golden_model(kModel));
  loaded.model.reset();
  EXPECT_FALSE(evaluate(loaded.session().get(), {7, 8}).empty());
}

TEST(Lifetime, HandlesGoWhileARequestRuns) {
  Loaded loaded(golden_model(kModel));
  SessionPtr session = loaded.session(), other = loaded.session();
  const TokenRequest request(some_tokens(9), 200, greedy(loaded.model.get()));
  submit(session.get(), request.request);
  submit(other.get(), request.request);
  loaded.model.reset();
  loaded.engine.reset();
  session.reset();
  EXPECT_EQ(200u, drain(other.get()).tokens.size());
}

// ---- The same through the C++ header, whose callbacks must stay as long as they may be called ----

// Expects to be alive when it is asked.
class Witness {
 public:
  explicit Witness(bool& alive) : alive_(&alive) { *alive_ = true; }
  ~Witness() { *alive_ = false; }
  Witness(const Witness&) = delete;
  Witness& operator=(const Witness&) = delete;

 private:
  bool* const alive_;
};

api::EngineOptions watched_options(bool& alive) {
  api::EngineOptions options;
  options.n_threads = 2;
  options.n_context = 128;
  options.log = [witness = std::make_shared<Witness>(alive)](tandem_log_level, std::string_view) {};
  return options;
}

TEST(LifetimeInCpp, AnAssignedEngineKeepsTheLogOfItsSessions) {
  auto model = api::Model::open(golden_model(kModel));
  ASSERT_TRUE(model);
  bool first_alive = false, second_alive = false;
  {
    auto engine = api::Engine::load(*model, watched_options(first_alive));
    ASSERT_TRUE(engine) << engine.error().text;
    auto session = api::Session::create(*engine);
    ASSERT_TRUE(session);
    auto fork = session->fork();
    ASSERT_TRUE(fork);
    *engine = std::move(*api::Engine::load(*model, watched_options(second_alive)));
    EXPECT_TRUE(first_alive);
    *session = std::move(*api::Session::create(*engine));
    EXPECT_TRUE(first_alive);
    EXPECT_TRUE(fork->evaluate(std::vector<int32_t>{7, 8}));
    *fork = std::move(*api::Session::create(*engine));
    EXPECT_FALSE(first_alive);
    EXPECT_TRUE(second_alive);
  }
  EXPECT_FALSE(second_alive);
}

TEST(LifetimeInCpp, ASessionGoesBeforeItsCallback) {
  auto model = api::Model::open(golden_model(kModel));
  ASSERT_TRUE(model);
  bool unused = false, alive = false;
  auto engine = api::Engine::load(*model, watched_options(unused));
  ASSERT_TRUE(engine);
  auto session = api::Session::create(*engine, {.n_context = 128, .queue_events = 2});
  ASSERT_TRUE(session);
  const auto watch = std::make_shared<std::atomic<int>>(0);
  ASSERT_TRUE(session->set_callback(
      [witness = std::make_shared<Witness>(alive), &alive, watch](const api::Event& event) {
        EXPECT_TRUE(alive);
        if (event.kind == TANDEM_EVENT_TOKEN) ++*watch;
      }));
  api::AnswerOptions options;
  options.max_tokens = 100;
  options.ignore_end = true;
  ASSERT_TRUE(session->submit_tokens(some_tokens(9), options));
  while (*watch == 0) std::this_thread::yield();
  EXPECT_TRUE(alive);
  *session = std::move(*api::Session::create(*engine));  // in the middle of the answer
  EXPECT_FALSE(alive);
}

TEST(LifetimeInCpp, CallbacksReplaceEachOtherAndGiveWayToTheQueue) {
  auto model = api::Model::open(golden_model(kModel));
  ASSERT_TRUE(model);
  bool unused = false, first_alive = false, second_alive = false;
  auto engine = api::Engine::load(*model, watched_options(unused));
  ASSERT_TRUE(engine);
  auto session = api::Session::create(*engine, {.n_context = 128, .queue_events = 2});
  ASSERT_TRUE(session);
  const auto watched = [](bool& alive) {
    return [witness = std::make_shared<Witness>(alive)](const api::Event&) {};
  };
  ASSERT_TRUE(session->set_callback(watched(first_alive)));
  ASSERT_TRUE(session->set_callback(watched(second_alive)));
  EXPECT_FALSE(first_alive);
  EXPECT_TRUE(second_alive);
  EXPECT_EQ(TANDEM_ERROR_BUSY, session->next_event(0).error().code);
  ASSERT_TRUE(session->set_callback({}));
  EXPECT_FALSE(second_alive);

  api::AnswerOptions options;
  options.max_tokens = 20;  // more than the queue holds, so that it runs until somebody takes them
  options.ignore_end = true;
  ASSERT_TRUE(session->submit_tokens(some_tokens(9), options));
  const auto refused = session->set_callback(watched(first_alive));
  size_t n_tokens = 0;
  for (auto event = session->next_event(); event && event->kind != TANDEM_EVENT_DONE;
       event = session->next_event()) {
    n_tokens += event->kind == TANDEM_EVENT_TOKEN ? 1 : 0;
  }
  EXPECT_EQ(20u, n_tokens);
  ASSERT_FALSE(refused);
  EXPECT_EQ(TANDEM_ERROR_BUSY, refused.error().code);
}

}  // namespace
}  // namespace tandem::testing

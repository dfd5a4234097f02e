// Counts every allocation of the process while an engine decodes.  A program of its own, because it
// replaces malloc; under sanitizers, which do so themselves, it counts nothing and skips.
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "dispatch/executor.h"
#include "kernels_cpu/dispatch.h"
#include "runtime/api.h"
#include "runtime/model.h"
#include "runtime/split_engine.h"
#include "status_matchers.h"

namespace {
std::atomic<bool> counting{false};
std::atomic<uint64_t> n_allocations{0};
// While set, only the thread that set it gets memory.
std::atomic<bool> failing{false};
thread_local bool exempt = false;
// This thread's n-th allocation from now on fails; 0: none.
thread_local int n_until_failure = 0;
[[maybe_unused]] bool fails() {
  const bool now = n_until_failure > 0 && --n_until_failure == 0;
  if (!now && (!failing.load(std::memory_order_relaxed) || exempt)) return false;
  errno = ENOMEM;
  return true;
}
[[maybe_unused]] void count() {
  if (counting.load(std::memory_order_relaxed))
    n_allocations.fetch_add(1, std::memory_order_relaxed);
}
}  // namespace

#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
extern "C" {
void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t n, size_t bytes);
void* __libc_realloc(void* old, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);

// Everything else (operator new, strdup, ...) ends in one of these.
__attribute__((visibility("default"))) void* malloc(size_t bytes) {
  count();
  if (fails()) return nullptr;
  return __libc_malloc(bytes);
}
__attribute__((visibility("default"))) void* calloc(size_t n, size_t bytes) {
  count();
  if (fails()) return nullptr;
  return __libc_calloc(n, bytes);
}
__attribute__((visibility("default"))) void* realloc(void* old, size_t bytes) {
  count();
  if (fails()) return nullptr;
  return __libc_realloc(old, bytes);
}
__attribute__((visibility("default"))) void* memalign(size_t alignment, size_t bytes) {
  count();
  return __libc_memalign(alignment, bytes);
}
__attribute__((visibility("default"))) void* aligned_alloc(size_t alignment, size_t bytes) {
  count();
  return __libc_memalign(alignment, bytes);
}
__attribute__((visibility("default"))) int posix_memalign(void** out, size_t alignment,
                                                          size_t bytes) {
  count();
  *out = __libc_memalign(alignment, bytes);
  return *out != nullptr ? 0 : 12;  // ENOMEM
}
}
#endif

namespace tandem::testing {
namespace {

class CountAllocations {
 public:
  CountAllocations() {
    n_allocations = 0;
    counting = true;
  }
  ~CountAllocations() { counting = false; }
  CountAllocations(const CountAllocations&) = delete;
  CountAllocations& operator=(const CountAllocations&) = delete;
  uint64_t n() const { return n_allocations; }
};

TEST(Allocations, AreCounted) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer has replaced malloc";
  const CountAllocations counted;
  std::unique_ptr<std::string> text(new std::string(100, 'x'));
  ASSERT_EQ('x', (*text)[99]);
  EXPECT_EQ(2u, counted.n());
}

class NoAllocations : public ::testing::TestWithParam<const char*> {};

TEST_P(NoAllocations, ByTheExecutorPerToken) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer has replaced malloc";
  const auto model = Model::open(golden_model(GetParam()));
  ASSERT_THAT(model, is_ok());
  const Program& program = (*model)->program();
  auto store = BlockStore::create((*model)->file().paths(), program.blocks);
  ASSERT_THAT(store, is_ok());
  const CancelFlag never;
  ASSERT_THAT((*store)->load_all({}, never), is_ok());
  Team::Options team_options;
  team_options.n_threads = 2;
  auto team = Team::create(team_options);
  ASSERT_THAT(team, is_ok());
  const cpu::KernelTable* kernels = nullptr;
  ASSERT_THAT(cpu::choose(nullptr, &kernels), is_ok());
  auto executor = Executor::create(program, **store, **team, *kernels, {});
  ASSERT_THAT(executor, is_ok());
  const ModelShape& shape = program.shape;
  auto sequence = SequenceState::create(
      {shape.n_layers, shape.n_kv_heads, shape.head_width, KvType::kF16}, 256);
  ASSERT_THAT(sequence, is_ok());

  const std::vector<int32_t> tokens = some_tokens(200);
  const std::span<const int32_t> all(tokens);
  ASSERT_THAT((*executor)->forward(all.subspan(0, 100), **sequence, true, never), is_ok());
  ASSERT_THAT((*executor)->forward(all.subspan(100, 1), **sequence, true, never), is_ok());
  const CountAllocations counted;
  for (size_t i = 101; i < 190; ++i) {  // over a page's border
    ASSERT_TRUE((*executor)->forward(all.subspan(i, 1), **sequence, true, never).ok());
  }
  EXPECT_EQ(0u, counted.n());
}

// By a session and its consumer.
uint64_t allocations_in_100_tokens(const Loaded& loaded, size_t n_prompt = 10) {
  const SessionPtr session = loaded.session();
  TokenRequest request(some_tokens(n_prompt), 200, seeded(loaded.model.get(), 3));
  const char* stop = "\x01 never written";
  request.request.stop = &stop;
  request.request.n_stop = 1;
  submit(session.get(), request.request);
  uint64_t n = 0;
  const auto take_tokens = [&](int n_tokens) {
    for (int taken = 0; taken < n_tokens;) {
      tandem_event event = TANDEM_INIT(tandem_event);
      ASSERT_EQ(TANDEM_OK, tandem_session_next_event(session.get(), 60000, &event, nullptr));
      ASSERT_NE(TANDEM_EVENT_DONE, event.kind);
      if (event.kind == TANDEM_EVENT_TOKEN) ++taken;
    }
  };
  take_tokens(60);  // until every slot of the queue and every buffer has been used
  {
    const CountAllocations counted;
    take_tokens(100);
    n = counted.n();
  }
  drain(session.get());
  return n;
}

TEST_P(NoAllocations, ByASessionPerTokenItsConsumerIncluded) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer has replaced malloc";
  EXPECT_EQ(0u, allocations_in_100_tokens(Loaded(golden_model(GetParam()))));
}

TEST_P(NoAllocations, ByATracePerTokenOnBothProcessors) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer has replaced malloc";
  tandem_engine_options options = engine_options();
  options.trace_records = 1000;
  EXPECT_EQ(0u, allocations_in_100_tokens(Loaded(golden_model(GetParam()), options)));
  options.device = "mirror:vram=64MiB";
  options.cpu_experts = "1";
  const uint64_t traced = allocations_in_100_tokens(Loaded(golden_model(GetParam()), options));
  options.trace_records = 0;
  const uint64_t plain = allocations_in_100_tokens(Loaded(golden_model(GetParam()), options));
  EXPECT_EQ(plain, traced);
  EXPECT_LE(plain, 8u) << "more than for the device's pages";
}

TEST_P(NoAllocations, ByASessionPerTokenWhoseAttentionIsSplit) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer has replaced malloc";
  const SplitEngine split(golden_model(GetParam()));
  EXPECT_EQ(0u, allocations_in_100_tokens(split.loaded(), split.many_tokens()));
}

INSTANTIATE_TEST_SUITE_P(Models, NoAllocations,
                         ::testing::Values("llama-mha", "qwen3moe", "llama-q4_k"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

class NoMemoryForOtherThreads {
 public:
  NoMemoryForOtherThreads() { exempt = failing = true; }
  ~NoMemoryForOtherThreads() { exempt = failing = false; }
  NoMemoryForOtherThreads(const NoMemoryForOtherThreads&) = delete;
  NoMemoryForOtherThreads& operator=(const NoMemoryForOtherThreads&) = delete;
};

class WithoutMemory : public ::testing::Test {
 protected:
  void SetUp() override {
    if (kSanitized) GTEST_SKIP() << "a sanitizer has replaced malloc";
  }
  void expect_usable() {
    const TokenRequest request(some_tokens(5), 3, greedy(loaded_.model.get()));
    EXPECT_EQ(3u, ask(session_.get(), request.request).tokens.size());
  }

  const Loaded loaded_{golden_model("qwen3moe")};
  const SessionPtr session_ = loaded_.session();
};

// Calls `call` with its first, second, ... allocation failing until it succeeds; how often it failed.
template <typename Call>
int fail_every_allocation_of(Call call) {
  for (int n = 1; n < 1000; ++n) {
    n_until_failure = n;
    const tandem_code code = call();
    const bool failed_one = n_until_failure == 0;
    n_until_failure = 0;
    if (!failed_one) {
      EXPECT_EQ(TANDEM_OK, code);
      return n - 1;
    }
    if (code == TANDEM_OK) continue;  // it could do without
    // A thread without memory for its stack is one that the system refuses.
    EXPECT_THAT(code, ::testing::AnyOf(TANDEM_ERROR_OUT_OF_MEMORY, TANDEM_ERROR_IO));
  }
  ADD_FAILURE() << "never succeeds";
  return 0;
}

TEST_F(WithoutMemory, ASubmissionThatFailsAnywhereLeavesTheSessionUsable) {
  tandem_request request = TANDEM_INIT(tandem_request);
  request.text = "to be";
  request.text_bytes = std::strlen(request.text);
  request.max_tokens = 2;
  const int n_failed = fail_every_allocation_of([&] {
    const tandem_code code = tandem_session_submit(session_.get(), &request, nullptr);
    if (code == TANDEM_OK) {
      const int n_left = std::exchange(n_until_failure, 0);
      drain(session_.get());
      n_until_failure = n_left;
    }
    return code;
  });
  EXPECT_GT(n_failed, 3);
  expect_usable();
}

TEST_F(WithoutMemory, ACallbackThatCannotBeSetLeavesTheQueueInUse) {
  const auto ignore = [](void*, const tandem_event*) {};
  const int n_failed = fail_every_allocation_of([&] {
    const tandem_code code = tandem_session_set_callback(session_.get(), ignore, nullptr, nullptr);
    const int n_left = std::exchange(n_until_failure, 0);
    if (code != TANDEM_OK) expect_usable();
    n_until_failure = n_left;
    return code;
  });
  EXPECT_GT(n_failed, 0);
  ASSERT_EQ(TANDEM_OK, tandem_session_set_callback(session_.get(), nullptr, nullptr, nullptr));
  expect_usable();
}

TEST_F(WithoutMemory, ARequestWhosePromptCannotBeTokenizedEndsWithAnError) {
  tandem_request request = TANDEM_INIT(tandem_request);
  request.text = "to be or not to be";
  request.text_bytes = std::strlen(request.text);
  Answer answer;
  {
    const NoMemoryForOtherThreads scarce;
    answer = ask(session_.get(), request);
  }
  EXPECT_EQ(TANDEM_FINISH_ERROR, answer.done.event.finish);
  EXPECT_THAT(answer.done.error_text, ::testing::HasSubstr("memory"));
  expect_usable();
}

TEST_F(WithoutMemory, AnEvaluationWhoseLogitsFindNoRoomEndsWithAnError) {
  const std::vector<int32_t> tokens = some_tokens(20);
  const auto ignore = [](void*, size_t, const float*, size_t) { return 0; };
  tandem_code code = TANDEM_OK;
  {
    const NoMemoryForOtherThreads scarce;
    code = tandem_session_evaluate(session_.get(), tokens.data(), tokens.size(), ignore, nullptr,
                                   nullptr);
  }
  EXPECT_EQ(TANDEM_ERROR_OUT_OF_MEMORY, code);
  expect_usable();
}

}  // namespace
}  // namespace tandem::testing

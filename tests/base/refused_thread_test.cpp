// A system that refuses threads costs time and nothing else: not the process, which oneTBB ends
// when a thread of its own cannot start another.
#include <dlfcn.h>
#include <pthread.h>
#include <tbb/global_control.h>

#include <atomic>
#include <cerrno>

#include "base/parallel_for.h"
#include "status_matchers.h"

namespace {
std::atomic<int> g_n_allowed{1000000};
}

#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)  // which replace it themselves
extern "C" __attribute__((visibility("default"))) int pthread_create(
    pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*),
    void* argument) noexcept {
  using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const auto real = reinterpret_cast<Create>(::dlsym(RTLD_NEXT, "pthread_create"));
  return g_n_allowed-- > 0 ? real(thread, attributes, run, argument) : EAGAIN;
}
#endif

namespace tandem {
namespace {

using namespace testing;

class RefusedThread : public ::testing::TestWithParam<int> {};
// Each runs in a process of its own under ctest; oneTBB keeps the threads it once got.
INSTANTIATE_TEST_SUITE_P(Allowed, RefusedThread, ::testing::Values(0, 1, 2, 5));

TEST_P(RefusedThread, IsDoneWithout) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "the sanitizer replaces pthread_create itself";
#endif
  const tbb::global_control eight(tbb::global_control::max_allowed_parallelism, 8);
  const CancelFlag never;
  g_n_allowed = GetParam();
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> n{0};
    EXPECT_THAT(parallel_for(200, 8, never,
                             [&](size_t) {
                               ++n;
                               return ok_status();
                             }),
                is_ok());
    EXPECT_EQ(200, n);
  }
  EXPECT_LT(g_n_allowed, 0) << "no thread was refused";
}

}  // namespace
}  // namespace tandem

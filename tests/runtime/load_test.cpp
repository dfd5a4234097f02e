// Loading: progress, and cancel at any moment.
#include <thread>

#include "runtime/concurrency.h"

namespace tandem::testing {
namespace {

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
    tandem_stage stage = TANDEM_STAGE_LOAD;
    uint64_t done = 0, total = 0;
    int n = 0;
  } seen;
  const ModelPtr model = open_model(golden_model("qwen3moe"));
  tandem_engine_options options = engine_options();
  options.progress_user = &seen;
  options.progress = [](void* user, const tandem_progress* progress) {
    auto& s = *static_cast<Seen*>(user);
    EXPECT_EQ(s.thread, std::this_thread::get_id());
    if (progress->stage != s.stage) {  // loading is over: once, and complete
      EXPECT_EQ(TANDEM_STAGE_CHECK, progress->stage);
      EXPECT_EQ(TANDEM_STAGE_LOAD, s.stage);
      EXPECT_EQ(s.total, s.done);
      s.done = 0;
      s.stage = progress->stage;
    }
    EXPECT_GE(progress->done, s.done);
    s.done = progress->done;
    s.total = progress->total;
    ++s.n;
  };
  create_engine(model.get(), options);
  EXPECT_GT(seen.n, 0);
  EXPECT_EQ(TANDEM_STAGE_CHECK, seen.stage);
  EXPECT_GT(seen.total, 0u);
  EXPECT_EQ(seen.total, seen.done);
}

}  // namespace
}  // namespace tandem::testing

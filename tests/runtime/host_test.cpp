// What the library leaves alone: the host program's oneTBB settings, signals, locale, output and
// processor time.
#include <sys/resource.h>
#include <unistd.h>

#include <tbb/global_control.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>
#include <atomic>
#include <clocale>
#include <csignal>
#include <nlohmann/json.hpp>

#include "runtime/api.h"

namespace tandem::testing {
namespace {

// Opens, loads, answers, saves and closes.
void use_everything() {
  const Loaded loaded(golden_model("qwen3moe"));
  const SessionPtr session = loaded.session();
  const tandem_message said = message("user", "tell of the sea");
  tandem_request request = TANDEM_INIT(tandem_request);
  request.messages = &said;
  request.n_messages = 1;
  request.max_tokens = 10;
  request.ignore_end = 1;
  EXPECT_EQ(10u, ask(session.get(), request).tokens.size());
  tandem_model* absent = nullptr;
  EXPECT_EQ(TANDEM_ERROR_NOT_FOUND, tandem_model_open("/no/such/file", &absent, nullptr));
  char* json = nullptr;
  EXPECT_EQ(TANDEM_OK, tandem_machine_json(&json, nullptr));
  EXPECT_THAT(json, ::testing::StartsWith("{"));
  tandem_string_free(json);
}

TEST(Host, ItsOneTbbLimitsAndArenasAreUnaffected) {
  const auto parallelism = [] {
    return tbb::global_control::active_value(tbb::global_control::max_allowed_parallelism);
  };
  const auto stack = [] {
    return tbb::global_control::active_value(tbb::global_control::thread_stack_size);
  };
  const size_t parallelism_before = parallelism(), stack_before = stack();
  tbb::task_arena arena(2);
  const tbb::global_control limit(tbb::global_control::max_allowed_parallelism, 3);
  ASSERT_EQ(3u, parallelism());
  arena.execute([&] {
    const int slots = tbb::this_task_arena::max_concurrency();
    use_everything();
    EXPECT_EQ(slots, tbb::this_task_arena::max_concurrency());
    EXPECT_EQ(3u, parallelism());
#if !defined(__SANITIZE_THREAD__)  // which cannot follow a oneTBB that was built without it
    std::atomic<int> n{0};
    tbb::parallel_for(0, 1000, [&](int) { ++n; });
    EXPECT_EQ(1000, n);
#endif
  });
  EXPECT_EQ(2, arena.max_concurrency());
  EXPECT_EQ(stack_before, stack());
  EXPECT_GE(parallelism_before, 1u);
}

TEST(Host, ItsSignalHandlersAndMaskAreUnaffected) {
  std::vector<struct sigaction> before(32), after(32);
  sigset_t mask_before, mask_after;
  ::pthread_sigmask(SIG_BLOCK, nullptr, &mask_before);
  for (int s = 1; s < 32; ++s) ::sigaction(s, nullptr, &before[static_cast<size_t>(s)]);
  use_everything();
  for (int s = 1; s < 32; ++s) {
    ::sigaction(s, nullptr, &after[static_cast<size_t>(s)]);
    EXPECT_EQ(before[static_cast<size_t>(s)].sa_handler, after[static_cast<size_t>(s)].sa_handler)
        << "signal " << s;
  }
  ::pthread_sigmask(SIG_BLOCK, nullptr, &mask_after);
  for (int s = 1; s < 32; ++s)
    EXPECT_EQ(sigismember(&mask_before, s), sigismember(&mask_after, s)) << "signal " << s;
}

TEST(Host, ItsLocaleIsUnaffected) {
  const std::string before = std::setlocale(LC_ALL, nullptr);
  use_everything();
  EXPECT_EQ(before, std::setlocale(LC_ALL, nullptr));
}

TEST(Host, NothingIsPrinted) {
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  use_everything();
  EXPECT_EQ("", ::testing::internal::GetCapturedStdout());
  EXPECT_EQ("", ::testing::internal::GetCapturedStderr());
}

double processor_seconds() {
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

TEST(Host, AnIdleEngineTakesNoProcessorTimeTwoSecondsAfterTheLastToken) {
  const Loaded loaded(golden_model("qwen3moe"));
  const SessionPtr session = loaded.session();
  const TokenRequest request(some_tokens(10), 10, greedy(loaded.model.get()));
  ask(session.get(), request.request);
  std::this_thread::sleep_for(std::chrono::seconds(2));
  const double before = processor_seconds();
  const auto start = Clock::now();
  std::this_thread::sleep_for(std::chrono::seconds(1));
  EXPECT_LT((processor_seconds() - before) / (ms_since(start) / 1000), 0.01);
}

TEST(Host, NothingOfItStaysAfterTheLastObjectIsGone) {
  const auto n_open = [] {
    size_t n = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd"))
      ++n;
    return n;
  };
  use_everything();  // what is made once per process
  const size_t before = n_open();
  for (int i = 0; i < 3; ++i) use_everything();
  EXPECT_EQ(before, n_open());
}

TEST(Bandwidth, IsMeasuredAgainAndAgain) {
  tandem_bandwidth* bandwidth = nullptr;
  Error error;
  ASSERT_TANDEM_OK(tandem_bandwidth_create(2, uint64_t{16} << 20, nullptr, &bandwidth, error),
                   error);
  for (int i = 0; i < 2; ++i) {
    double gb_per_s = 0;
    EXPECT_TANDEM_OK(tandem_bandwidth_measure(bandwidth, nullptr, &gb_per_s, error), error);
    EXPECT_GT(gb_per_s, 0.01);
    EXPECT_LT(gb_per_s, 10000);
  }
  tandem_bandwidth_free(bandwidth);
  double gb_per_s = 0;
  EXPECT_EQ(TANDEM_ERROR_INVALID_ARGUMENT,
            tandem_bandwidth_create(0, 0, nullptr, nullptr, nullptr));
  EXPECT_EQ(TANDEM_ERROR_INVALID_ARGUMENT,
            tandem_bandwidth_measure(nullptr, nullptr, &gb_per_s, nullptr));
  tandem_bandwidth_free(nullptr);
}

uint64_t bytes_of_status(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(key, 0) == 0) return std::stoull(line.substr(key.size())) * 1024;
  }
  return 0;
}

// What is mapped, seen without filling it: a call that is cancelled before it starts.
TEST(Bandwidth, TakesBuffersForTheCachesOfThisMachine) {
  char* text = nullptr;
  Error error;
  ASSERT_TANDEM_OK(tandem_machine_json(&text, error), error);
  const auto machine = nlohmann::json::parse(text);
  tandem_string_free(text);
  uint64_t of_level[5] = {};
  for (const auto& cache : machine["caches"]) {
    of_level[cache["level"].get<size_t>()] +=
        cache["reported_bytes"].get<uint64_t>() * cache["count"].get<uint64_t>();
  }
  const uint64_t mib = uint64_t{1} << 20;
  const uint64_t expected =
      std::max(512 * mib, 2 * *std::max_element(std::begin(of_level), std::end(of_level)));
  if (machine["free_memory_bytes"].get<uint64_t>() < 2 * expected + 256 * mib) {
    GTEST_SKIP() << "two buffers of " << expected / mib << " MiB do not fit";
  }
  tandem_cancel* cancel = tandem_cancel_create();
  tandem_cancel_trigger(cancel);
  tandem_bandwidth* bandwidth = nullptr;
  const uint64_t before = bytes_of_status("VmSize:"), peak_before = bytes_of_status("VmPeak:");
  EXPECT_EQ(TANDEM_ERROR_CANCELLED, tandem_bandwidth_create(1, 0, cancel, &bandwidth, error));
  const uint64_t peak = bytes_of_status("VmPeak:");
  EXPECT_GE(peak, before + 2 * expected);
  EXPECT_LE(peak, std::max(peak_before, before + 2 * expected + 32 * mib));
  tandem_cancel_free(cancel);
}

TEST(Bandwidth, SaysWhatItNeedsAndWhatIsFreeWhenItDoesNotFit) {
  tandem_bandwidth* bandwidth = nullptr;
  Error error;
  ASSERT_EQ(TANDEM_ERROR_OUT_OF_MEMORY,
            tandem_bandwidth_create(1, uint64_t{1} << 45, nullptr, &bandwidth, error));
  EXPECT_EQ(bandwidth, nullptr);
  EXPECT_GE(error->bytes_needed, uint64_t{1} << 46);
  EXPECT_GT(error->bytes_available, 0u);
}

TEST(Synthesize, RefusesUnknownNamesTypesAndNullArguments) {
  tandem_synth_options options = TANDEM_INIT(tandem_synth_options);
  Error error;
  EXPECT_EQ(TANDEM_ERROR_INVALID_ARGUMENT, tandem_synthesize("/nowhere/x.gguf", &options, error));
  EXPECT_THAT(error.text(), ::testing::HasSubstr("llama-3.2-1b"));
  options.like = "llama-3.2-1b";
  options.type = "q9_z";
  EXPECT_EQ(TANDEM_ERROR_UNSUPPORTED, tandem_synthesize("/nowhere/x.gguf", &options, error));
  EXPECT_THAT(error.text(), ::testing::HasSubstr("q9_z"));
  EXPECT_EQ(TANDEM_ERROR_INVALID_ARGUMENT, tandem_synthesize(nullptr, &options, error));
  EXPECT_EQ(TANDEM_ERROR_INVALID_ARGUMENT, tandem_synthesize("/nowhere/x.gguf", nullptr, error));
}

TEST(Synthesize, CancelledLeavesNothingBehind) {
  const std::string path = (std::filesystem::temp_directory_path() /
                            ("tandem-synth-" + std::to_string(::getpid()) + ".gguf"))
                               .string();
  tandem_cancel* cancel = tandem_cancel_create();
  tandem_cancel_trigger(cancel);
  tandem_synth_options options = TANDEM_INIT(tandem_synth_options);
  options.like = "llama-3.2-1b";
  options.n_layers = 1;
  options.cancel = cancel;
  EXPECT_EQ(TANDEM_ERROR_CANCELLED, tandem_synthesize(path.c_str(), &options, nullptr));
  EXPECT_FALSE(std::filesystem::exists(path));
  tandem_cancel_free(cancel);
}

}  // namespace
}  // namespace tandem::testing

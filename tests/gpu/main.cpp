// Runs the tests; with --table prints one line per test and measurement, with --probe only says which device there is.
#include <gtest/gtest.h>

#include <cstdio>
#include <string_view>

#include "tests/gpu/device_under_test.h"

namespace {

using tandem::Code;
using tandem::gpu::testing::measured;
using tandem::gpu::testing::Measured;

constexpr int kNoCard = 3;

class Table : public ::testing::EmptyTestEventListener {
  void OnTestPartResult(const ::testing::TestPartResult& part) override {
    if (part.failed())
      std::printf("  %s:%d\n%s\n", part.file_name(), part.line_number(), part.summary());
  }
  void OnTestEnd(const ::testing::TestInfo& test) override {
    const ::testing::TestResult& result = *test.result();
    const char* word = result.Skipped() ? "skipped" : result.Passed() ? "ok" : "FAILED";
    const std::string name = std::string(test.test_suite_name()) + "." + test.name();
    std::printf("%-64s %-8s %8lld ms\n", name.c_str(), word,
                static_cast<long long>(result.elapsed_time()));
    for (const Measured& row : measured()) {
      std::printf("  %-62s          %8.1f us", row.what.c_str(), row.microseconds);
      if (row.gb_per_s > 0) std::printf(" %8.1f GB/s", row.gb_per_s);
      std::printf("\n");
    }
    measured().clear();
    std::fflush(stdout);
  }
};

int probe() {
  auto opened = tandem::gpu::testing::open_device_under_test();
  if (!opened.ok()) {
    std::printf("%s\n", opened.status().message().c_str());
    return opened.status().code() == Code::kNotFound ? kNoCard : 1;
  }
  std::printf("%s, %llu MiB\n", opened->device->info().name.c_str(),
              static_cast<unsigned long long>(opened->device->info().memory_bytes >> 20));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  const std::string_view option = argc > 1 ? argv[1] : "";
  if (option == "--probe") return probe();
  if (option == "--table") {
    auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new Table);
  }
  return RUN_ALL_TESTS();
}

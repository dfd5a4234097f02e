// What c.h promises of its structs, so that they can grow: each starts with its size.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <fstream>
#include <iterator>
#include <regex>
#include <string>
#include <type_traits>
#include <vector>

#include "tandem/c.h"

namespace tandem::testing {
namespace {

// The name of a struct that the compiler found to start with its size.
template <typename T>
consteval const char* starting_with_its_size(const char* name) {
  static_assert(offsetof(T, struct_bytes) == 0);
  static_assert(std::is_same_v<decltype(T::struct_bytes), size_t>);
  static_assert(std::is_standard_layout_v<T> && std::is_trivially_copyable_v<T>);
  return name;
}
#define STRUCT(name) starting_with_its_size<name>(#name)

constexpr const char* kStructs[] = {
    STRUCT(tandem_error),          STRUCT(tandem_progress),
    STRUCT(tandem_model_info),     STRUCT(tandem_tokenize_options),
    STRUCT(tandem_message),        STRUCT(tandem_sampling),
    STRUCT(tandem_engine_options), STRUCT(tandem_tier_report),
    STRUCT(tandem_engine_info),    STRUCT(tandem_session_options),
    STRUCT(tandem_request),        STRUCT(tandem_event),
    STRUCT(tandem_session_info),   STRUCT(tandem_synth_options),
};

std::string header() {
  std::ifstream in(TANDEM_SOURCE_DIR "/include/tandem/c.h");
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::string> all_matches(const std::string& text, const char* pattern) {
  const std::regex regex(pattern);
  std::vector<std::string> found;
  for (std::sregex_iterator it(text.begin(), text.end(), regex), end; it != end; ++it) {
    found.push_back((*it)[1]);
  }
  return found;
}

TEST(Header, EveryStructStartsWithItsSize) {
  EXPECT_THAT(all_matches(header(), R"(struct (\w+)\s*\{)"),
              ::testing::UnorderedElementsAreArray(kStructs));
}

// One that grows would move what follows it.
TEST(Header, NoStructHoldsAnotherByValue) {
  std::string names;
  for (const char* name : kStructs) names += (names.empty() ? "" : "|") + std::string(name);
  const std::string pattern = "\n  ((?:" + names + ") \\w+);";
  EXPECT_THAT(all_matches("\n  tandem_error by_value;", pattern.c_str()), ::testing::SizeIs(1));
  EXPECT_THAT(all_matches(header(), pattern.c_str()), ::testing::IsEmpty());
}

}  // namespace
}  // namespace tandem::testing

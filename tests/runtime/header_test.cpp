// What c.h promises of its structs, so that they can grow: each starts with its size.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cctype>
#include <cstddef>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
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
    STRUCT(tandem_error),           STRUCT(tandem_progress),
    STRUCT(tandem_model_info),      STRUCT(tandem_tokenize_options),
    STRUCT(tandem_message),         STRUCT(tandem_sampling),
    STRUCT(tandem_engine_options),  STRUCT(tandem_tier_report),
    STRUCT(tandem_lane_report),     STRUCT(tandem_engine_info),
    STRUCT(tandem_session_options), STRUCT(tandem_request),
    STRUCT(tandem_event),           STRUCT(tandem_session_info),
    STRUCT(tandem_synth_options),
};

std::string header() {
  std::ifstream in(TANDEM_SOURCE_DIR "/include/tandem/c.h");
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string word_at(const std::string& text, size_t at) {
  size_t end = at;
  while (end < text.size() &&
         (std::isalnum(static_cast<unsigned char>(text[end])) || text[end] == '_'))
    ++end;
  return text.substr(at, end - at);
}

// The names of the structs that `text` defines: "struct NAME {".
std::vector<std::string> defined_structs(const std::string& text) {
  constexpr std::string_view kStruct = "struct ";
  std::vector<std::string> found;
  for (size_t at = text.find(kStruct); at != std::string::npos; at = text.find(kStruct, at + 1)) {
    const std::string name = word_at(text, at + kStruct.size());
    const size_t behind = text.find_first_not_of(" \n", at + kStruct.size() + name.size());
    if (!name.empty() && behind != std::string::npos && text[behind] == '{') found.push_back(name);
  }
  return found;
}

// The members of struct type that are no pointers: "  STRUCT NAME;" at the start of a line.
std::vector<std::string> members_by_value(const std::string& text) {
  std::vector<std::string> found;
  for (const char* name : kStructs) {
    const std::string member = "\n  " + std::string(name) + " ";
    for (size_t at = text.find(member); at != std::string::npos; at = text.find(member, at + 1)) {
      const std::string field = word_at(text, at + member.size());
      if (!field.empty()) found.push_back(std::string(name) + " " + field);
    }
  }
  return found;
}

TEST(Header, EveryStructStartsWithItsSize) {
  EXPECT_THAT(defined_structs(header()), ::testing::UnorderedElementsAreArray(kStructs));
}

// One that grows would move what follows it.
TEST(Header, NoStructHoldsAnotherByValue) {
  EXPECT_THAT(members_by_value("\n  tandem_error by_value;"), ::testing::SizeIs(1));
  EXPECT_THAT(members_by_value(header()), ::testing::IsEmpty());
}

}  // namespace
}  // namespace tandem::testing

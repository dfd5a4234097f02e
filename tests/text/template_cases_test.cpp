// Templates against what Python's Jinja2 made of them (tests/fixtures/text/templates).
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "json_value.h"
#include "status_matchers.h"
#include "text/template/chat_template.h"

namespace tandem {
namespace {

using testing::OrderedJson;

const std::filesystem::path kFolder = std::filesystem::path(TANDEM_FIXTURES) / "text" / "templates";

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<OrderedJson> read_lines(const std::filesystem::path& path) {
  std::vector<OrderedJson> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.empty()) lines.push_back(OrderedJson::parse(line));
  }
  return lines;
}

// 2024-07-26 14:05:09, a Friday.
std::tm fixture_time() {
  std::tm time = {};
  time.tm_year = 124;
  time.tm_mon = 6;
  time.tm_mday = 26;
  time.tm_hour = 14;
  time.tm_min = 5;
  time.tm_sec = 9;
  time.tm_wday = 5;
  time.tm_yday = 207;
  return time;
}

Result<std::string> render(const std::string& source, const OrderedJson& context) {
  auto parsed = ChatTemplate::parse(source);
  if (!parsed.ok()) return parsed.status();
  ChatTemplate::Inputs inputs;
  inputs.now = fixture_time();
  inputs.variables = testing::variables_from_json(context);
  // The cases name every variable there is; what they leave out is undefined.
  for (const char* name : {"messages", "add_generation_prompt"}) {
    if (!context.contains(name)) inputs.variables.emplace_back(name, jinja::Value());
  }
  TANDEM_ASSIGN_OR_RETURN(const std::vector<RenderedPiece> pieces, (*parsed)->render(inputs));
  return joined_text(pieces);
}

std::string fnv1a64(const std::string& text) {
  uint64_t hash = 14695981039346656037u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(hash));
  return digits;
}

void check(const OrderedJson& expected, const Result<std::string>& got, const std::string& where) {
  if (expected.contains("error")) {
    ASSERT_FALSE(got.ok()) << where << "\nrendered: " << *got
                           << "\nexpected error: " << expected["error"];
    if (expected.value("raised_by_template", false)) {
      EXPECT_THAT(got.status().message(),
                  ::testing::HasSubstr(expected["error"].get<std::string>()))
          << where;
    }
    return;
  }
  ASSERT_TRUE(got.ok()) << where << "\n" << got.status().to_string();
  if (expected.contains("rendered")) {
    EXPECT_EQ(*got, expected["rendered"].get<std::string>()) << where;
    return;
  }
  const std::string tail = expected["rendered_tail"].get<std::string>();
  EXPECT_EQ(got->size(), expected["rendered_bytes"].get<size_t>()) << where;
  EXPECT_EQ(fnv1a64(*got), expected["rendered_fnv1a64"].get<std::string>()) << where;
  EXPECT_TRUE(got->ends_with(tail))
      << where << "\nends with: " << got->substr(got->size() - std::min<size_t>(got->size(), 200));
}

void check_conversations(const std::vector<OrderedJson>& cases,
                         const std::filesystem::path& templates) {
  ASSERT_FALSE(cases.empty());
  for (const OrderedJson& item : cases) {
    const std::string name = item["template"].get<std::string>();
    OrderedJson context = item["vars"];
    context["messages"] = item["messages"];
    check(item, render(read_file(templates / name), context),
          name + ", conversation " + item["conversation"].get<std::string>() + ", " +
              item["vars"].dump());
  }
}

std::filesystem::path shared_templates() {
  if (const char* folder = std::getenv("TANDEM_TEST_DATA")) {
    return std::filesystem::path(folder) / "chat-templates";
  }
  return std::filesystem::path(TANDEM_SOURCE_DIR).parent_path() / "shared" / "data" /
         "chat-templates";
}

TEST(TemplateCases, OwnTemplatesRenderAsJinja2Does) {
  check_conversations(read_lines(kFolder / "own.jsonl"), kFolder / "own");
}

TEST(TemplateCases, PublishedTemplatesRenderAsJinja2Does) {
  if (!std::filesystem::exists(shared_templates())) {
    GTEST_SKIP() << "no chat templates at " << shared_templates()
                 << "; set TANDEM_TEST_DATA to the folder that has them";
  }
  check_conversations(read_lines(kFolder / "published.jsonl"), shared_templates());
}

// Refused on purpose; everything else in syntax.jsonl must match.
const std::set<std::string> kRefused = {};

TEST(TemplateCases, SyntaxMeansWhatItMeansInJinja2) {
  const std::vector<OrderedJson> cases = read_lines(kFolder / "syntax.jsonl");
  ASSERT_FALSE(cases.empty());
  for (const OrderedJson& item : cases) {
    const std::string source = item["template"].get<std::string>();
    if (kRefused.contains(source)) continue;
    check(
        item, render(source, item["context"]),
        item["group"].get<std::string>() + ": " + source + "\ncontext: " + item["context"].dump());
  }
}

// Published templates that no stored case covers: every one must at least be understood.
TEST(TemplateCases, EveryPublishedTemplateIsParsed) {
  if (!std::filesystem::exists(shared_templates())) {
    GTEST_SKIP() << "no chat templates at " << shared_templates();
  }
  for (const auto& file : std::filesystem::directory_iterator(shared_templates())) {
    EXPECT_THAT(ChatTemplate::parse(read_file(file.path())), testing::is_ok()) << file.path();
  }
}

}  // namespace
}  // namespace tandem

// A fixed number of mutated templates, the same on every run.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "fuzz/fuzz_template.h"

namespace tandem {
namespace {

constexpr size_t kInputs = 4000;

// Pieces of the language, so that mutations get past the lexer.
const std::vector<std::string> kPieces = {"{{",
                                          "}}",
                                          "{%",
                                          "%}",
                                          "{#",
                                          "#}",
                                          "-%}",
                                          "{%-",
                                          "{% if x %}",
                                          "{% endif %}",
                                          "{% else %}",
                                          "{% for m in messages %}",
                                          "{% endfor %}",
                                          "{% set x = 'a' * 9999999 %}",
                                          "{% set x = [x] %}",
                                          "{% macro m(a, b=1) %}",
                                          "{% endmacro %}",
                                          "{{ m() }}",
                                          "{{ loop.index }}",
                                          "| tojson",
                                          "| join('x')",
                                          "| replace('a', 'bb')",
                                          "| map('upper')",
                                          "| selectattr('role', 'equalto', 'user')",
                                          "| sort",
                                          "| list",
                                          "| unique",
                                          "| dictsort",
                                          "| groupby('role')",
                                          "| round(3)",
                                          "| int",
                                          "| indent(2)",
                                          "| format(1)",
                                          "| slice(3)",
                                          "| batch(2)",
                                          "| truncate(4)",
                                          ".split('<')",
                                          "[::-1]",
                                          "[1:]",
                                          "[-1]",
                                          ".items()",
                                          ".get('x')",
                                          "messages[1].content",
                                          "tools",
                                          "namespace(a=1)",
                                          "ns.a",
                                          "range(9)",
                                          "range(-9, 9, 2)",
                                          "'",
                                          "\"",
                                          "(",
                                          ")",
                                          "[",
                                          "]",
                                          "{",
                                          "}",
                                          "not ",
                                          " in ",
                                          " is defined",
                                          " is string",
                                          "~",
                                          "**",
                                          "//",
                                          "%",
                                          "<",
                                          "==",
                                          "+",
                                          "-",
                                          "9223372036854775807",
                                          "1e308",
                                          "0.5",
                                          "\\u00e9",
                                          "\xC3\xA9",
                                          "\xFF",
                                          "\n",
                                          "\t",
                                          "loop",
                                          "caller()",
                                          "{% raw %}",
                                          "{% endraw %}",
                                          "{% break %}",
                                          "{% generation %}",
                                          "strftime_now('%Y')"};

std::vector<std::string> seeds() {
  std::vector<std::string> sources;
  const std::filesystem::path folder =
      std::filesystem::path(TANDEM_FIXTURES) / "text/templates/own";
  std::set<std::filesystem::path> files;  // in the same order everywhere
  for (const auto& entry : std::filesystem::directory_iterator(folder)) files.insert(entry.path());
  for (const auto& path : files) {
    std::ifstream file(path, std::ios::binary);
    sources.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  sources.push_back(
      "{% set ns = namespace(x=messages[1].content) %}{% for c in ns.x %}{{ c }}{% endfor %}");
  return sources;
}

void mutate(std::string& source, std::mt19937_64& random) {
  const size_t at = source.empty() ? 0 : random() % (source.size() + 1);
  const size_t length =
      source.empty() ? 0 : random() % std::min<size_t>(source.size() - at + 1, 40);
  switch (random() % 6) {
    case 0:
      source.erase(at, length);
      break;
    case 1:
      source.insert(at, source.substr(random() % (source.size() + 1), 60));
      break;
    case 2:
      source.resize(at);
      break;
    case 3:
      if (at < source.size()) source[at] = static_cast<char>(random());
      break;
    default:
      source.replace(at, random() % 2 == 0 ? length : 0, kPieces[random() % kPieces.size()]);
  }
}

TEST(TemplateFuzz, MutatedTemplatesNeitherCrashNorLoseMarks) {
  const std::vector<std::string> sources = seeds();
  ASSERT_GT(sources.size(), 1u);
  std::mt19937_64 random(20240726);
  for (size_t i = 0; i < kInputs; ++i) {
    std::string source = sources[random() % sources.size()];
    for (size_t n = 1 + random() % 4; n > 0; --n) mutate(source, random);
    source.shrink_to_fit();
    ASSERT_EQ(fuzz_template(reinterpret_cast<const uint8_t*>(source.data()), source.size()), 0);
  }
}

}  // namespace
}  // namespace tandem

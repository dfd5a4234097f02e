// Templates made to hang, to exhaust memory or the stack.  Each must end in an error that names the
// limit and the line.
#include <gtest/gtest.h>

#include <cstdio>
#include <ctime>
#include <string>
#include <vector>

#include "json_value.h"
#include "status_matchers.h"
#include "text/template/chat_template.h"

namespace tandem {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// Processor time, because other programs may be running.  On an idle core of a 2020s desktop every
// attack stays below 100 ms; the bound leaves room for slow machines.  Sanitizers slow everything
// down several times.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kAllowedMilliseconds = 10'000;
#else
constexpr double kAllowedMilliseconds = 500;
#endif

std::string times(const std::string& text, size_t n) {
  std::string result;
  for (size_t i = 0; i < n; ++i) result += text;
  return result;
}

Status status_of_rendering(const std::string& source, const std::string& content = "hi") {
  const auto parsed = ChatTemplate::parse(source);
  if (!parsed.ok()) return parsed.status();
  const ChatMessage messages[] = {{"user", content}};
  ChatTemplate::Inputs inputs;
  inputs.messages = messages;
  return (*parsed)->render(inputs).status();
}

struct Attack {
  const char* name;
  std::string source;
  const char* limit;  // what the message must name
};

std::vector<Attack> attacks() {
  const std::string loop = "{% for i in range(100000) %}";
  const std::string end = "{% endfor %}";
  const std::string big = "{% set x = 'ab' * 6000000 %}";
  return {
      {"nested loops", loop + loop + loop + "{% set x = i %}" + end + end + end, "steps"},
      {"empty nested loops", loop + loop + loop + end + end + end, "limit of"},
      {"output", loop + times("0123456789", 100) + end, "output"},
      {"output of loops", loop + loop + "aaaaaaaaaaaaaaaa" + end + end, "limit of"},
      {"huge range", "{% for i in range(1000000000) %}{% endfor %}", "range"},
      {"endless range", "{% for i in range(0, 9223372036854775807, 1) %}{% endfor %}", "range"},
      {"doubling",
       "{% set ns = namespace(x='aaaaaaaa') %}" + loop + "{% set ns.x = ns.x ~ ns.x %}" + end,
       "limit of"},
      {"adding", "{% set ns = namespace(x='a') %}" + loop + "{% set ns.x = ns.x + 'b' %}" + end,
       "memory"},
      {"repeated text", "{{ 'a' * 10 ** 9 }}", "bytes in one text"},
      {"repeated text twice", "{{ ('abcdefgh' * 2000000) * 1000000000 }}", "bytes in one text"},
      {"repeated list", "{{ [1] * 1000000000 }}", "memory"},
      {"repeated list of lists", "{% set x = [1] * 100000 %}{{ (x * 1000) | length }}", "memory"},
      {"replace bomb", "{% set x = 'a' * 1000000 %}{{ x | replace('a', x) }}", "bytes in one text"},
      {"replace of nothing", "{% set x = 'a' * 10000000 %}{{ x | replace('', x) }}", "limit of"},
      {"join bomb", "{% set x = 'a' * 1000000 %}{{ x | join(x) }}", "limit of"},
      {"format width", "{{ '%999999999d' | format(1) }}", "width"},
      {"center", "{{ 'a' | center(999999999999) }}", "bytes in one text"},
      {"ljust", "{{ 'a'.ljust(999999999999) }}", "memory"},
      {"zfill", "{{ 'a'.zfill(999999999999) }}", "memory"},
      {"indent", "{{ 'a' | indent(999999999999) }}", "indentation"},
      {"json indent", "{{ [[1]] | tojson(indent=999999999999) }}", "indentation"},
      {"fill of a batch", "{{ [1] | batch(99999999999, 0) | list }}", "memory"},
      {"slices", "{{ [1] | slice(99999999999) | list }}", "limit of"},
      {"split into characters", "{{ ('a,' * 8000000).split(',') | length }}", "limit of"},
      {"list of characters", "{{ ('a' * 16000000) | list | length }}", "limit of"},
      {"macro that calls itself", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"},
      {"macros that call each other",
       "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
       "recursion"},
      {"macro that branches",
       "{% macro m(n) %}{% if n > 0 %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ "
       "m(25) }}",
       "steps"},
      {"namespace in itself", "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}", "recursion"},
      {"deep lists",
       "{% set ns = namespace(x=[]) %}" + loop + "{% set ns.x = [ns.x] %}" + end + "{{ ns.x }}",
       "nested lists"},
      {"deep dicts", "{% set ns = namespace(x={}) %}" + loop + "{% set ns.x = {'a': ns.x} %}" + end,
       "nested lists"},
      {"list shared with itself",
       "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% "
       "endfor %}"
       "{{ ns.x }}",
       "limit of"},
      {"equal lists that share",
       "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}"
       "{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
       "steps"},
      {"json of a list that shares",
       "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% "
       "endfor %}"
       "{{ ns.x | tojson }}",
       "limit of"},
      {"counting words", big + loop + "{{ x | wordcount }}" + end, "steps"},
      {"asking for lower case", big + loop + "{{ x is lower }}" + end, "steps"},
      {"asking for upper case", big + loop + "{{ x is upper }}" + end, "steps"},
      {"numbers from text", big + loop + "{{ x | int }}{{ x | float }}" + end, "steps"},
      {"truncating", big + loop + "{{ x | truncate(10) }}" + end, "steps"},
      {"methods of text", big + loop + "{{ x.isdigit() }}" + end, "steps"},
      {"search", "{% set x = 'a' * 8000000 %}" + loop + "{{ ('b' in x) }}" + end, "steps"},
      {"search for nearly itself",
       "{% set x = 'a' * 8000000 %}{{ ('a' * 4000000 + 'b') in x }}{{ x.rfind('a' * 4000000 + 'b') "
       "}}",
       "steps"},
      {"strip of a large set",
       "{% set x = 'a' * 8000000 %}{{ x.strip('b' * 1000000 + 'a') | length }}", "steps"},
      {"unique", loop + end + "{{ range(100000) | unique | list | length }}", "steps"},
      {"keys that are compared one by one", "{{ dict(range(100000) | batch(2)) | length }}",
       "steps"},
      {"many names", times("{% set a = 1 %}", 50000) + loop + loop + end + end, "limit of"},
  };
}

TEST(TemplateHostile, EveryAttackEndsSoonWithTheLimitAndTheLine) {
  for (const Attack& attack : attacks()) {
    const std::clock_t start = std::clock();
    const Status status = status_of_rendering("\n" + attack.source);
    const double took = 1000.0 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    EXPECT_EQ(status.code(), Code::kUnsupported) << attack.name << ": " << status.to_string();
    EXPECT_THAT(status.message(), AllOf(HasSubstr("line 2"), HasSubstr(attack.limit)))
        << attack.name;
    EXPECT_LT(took, kAllowedMilliseconds) << attack.name;
    if (took > 50) std::printf("%s: %.0f ms\n", attack.name, took);
  }
}

TEST(TemplateHostile, DeepSyntaxIsRefusedWithoutRecursion) {
  const size_t n = 100'000;
  const std::string sources[] = {
      "{{ " + times("(", n) + "1" + times(")", n) + " }}",
      "{{ " + times("[", n) + times("]", n) + " }}",
      "{{ " + times("{1:", n) + "1" + times("}", n) + " }}",
      "{{ " + times("-", n) + "1 }}",
      "{{ " + times("not ", n) + "1 }}",
      "{{ 1" + times(" + 1", n) + " }}",
      "{{ 1" + times(" or 1", n) + " }}",
      "{{ x" + times(".a", n) + " }}",
      "{{ x" + times("[0]", n) + " }}",
      "{{ x" + times("()", n) + " }}",
      "{{ x" + times("|e", n) + " }}",
      "{{ x" + times(" is x", n) + " }}",
      "{{ 1" + times(" if 1 else 1", n) + " }}",
      "{{ x" + times("(x", n) + times(")", n) + " }}",
      times("{% if 1 %}", n) + times("{% endif %}", n),
      times("{% for i in x %}", n / 2) + times("{% endfor %}", n / 2),
      times("{% macro m() %}", n / 2),
      times("{% set x %}", n),
  };
  for (const std::string& source : sources) {
    if (source.size() > ChatTemplate::kMaxSourceBytes) continue;
    const Status status = status_of_rendering(source);
    EXPECT_FALSE(status.ok()) << source.substr(0, 40);
    EXPECT_THAT(status.message(), HasSubstr("line 1")) << source.substr(0, 40);
  }
}

TEST(TemplateHostile, TheStackOfAThreadIsEnoughForTheDeepestEvaluation) {
  // The recursion limit is reached through macros whose calls stand as deep as the grammar allows.
  std::string call = "m()";
  for (int i = 0; i < 60; ++i) call = "[" + call + "]";
  EXPECT_THAT(status_of_rendering("{% macro m() %}{{ " + call + " }}{% endmacro %}{{ m() }}"),
              testing::fails_with(Code::kUnsupported, HasSubstr("recursion")));
}

TEST(TemplateHostile, LargeMessagesAreNotMistakenForAttacks) {
  const std::string content = times("A line of an ordinary document.\n", 60'000);  // 1.9 MB
  EXPECT_THAT(status_of_rendering(
                  "{% for m in messages %}{% set c = m.content | trim %}<|im_start|>{{ m.role }}\n"
                  "{{ c.split('</think>')[-1] | replace('x', 'y') }}<|im_end|>{% endfor %}",
                  content),
              testing::is_ok());
}

TEST(TemplateHostile, ManyMessagesAreNotMistakenForAttacks) {
  std::vector<ChatMessage> messages;
  for (int i = 0; i < 4000; ++i) messages.push_back({i % 2 == 0 ? "user" : "assistant", "hello"});
  const auto parsed = ChatTemplate::parse(
      "{% for m in messages %}{% if loop.index0 % 2 == 0 and m.role == 'user' or m.role != 'user' "
      "%}"
      "[{{ m.role }}]{{ m['content'] | trim }}{% endif %}{% endfor %}");
  ASSERT_THAT(parsed, testing::is_ok());
  ChatTemplate::Inputs inputs;
  inputs.messages = messages;
  EXPECT_THAT((*parsed)->render(inputs), testing::is_ok());
}

TEST(TemplateHostile, NothingOutsideTheTemplateCanBeReached) {
  for (const char* source :
       {"{{ ''.__class__.__mro__ }}", "{{ messages.__init__.__globals__ }}",
        "{{ ''['__class__']['__base__'] }}", "{{ namespace.__init__.__globals__.os }}"}) {
    EXPECT_FALSE(status_of_rendering(source).ok()) << source;
  }
  for (const char* source : {"{% include 'x' %}", "{% import 'os' as os %}", "{% extends 'x' %}"}) {
    EXPECT_THAT(status_of_rendering(source),
                testing::fails_with(Code::kUnsupported, HasSubstr("is not supported")))
        << source;
  }
}

TEST(TemplateHostile, ErrorsNameLineAndConstruct) {
  EXPECT_THAT(status_of_rendering("a\nb\n{{ none | tojson(1, 2, 3, 4, 5) }}"),
              testing::fails_with(Code::kInvalidArgument,
                                  AllOf(HasSubstr("line 3"), HasSubstr("filter 'tojson'"))));
  EXPECT_THAT(status_of_rendering("\n{{ missing.attribute }}"),
              testing::fails_with(Code::kInvalidArgument,
                                  AllOf(HasSubstr("line 2"), HasSubstr("'missing' is undefined"))));
  EXPECT_THAT(status_of_rendering("\n\n{% if x %}"),
              testing::fails_with(Code::kCorrupt, AllOf(HasSubstr("line 3"), HasSubstr("endif"))));
  EXPECT_THAT(status_of_rendering("{{ raise_exception('roles must alternate') }}"),
              testing::fails_with(Code::kInvalidArgument, HasSubstr("roles must alternate")));
  EXPECT_THAT(status_of_rendering("{{ messages | unknown_filter }}"),
              testing::fails_with(Code::kInvalidArgument, HasSubstr("filter 'unknown_filter'")));
}

TEST(TemplateHostile, ValuesNestedTooDeepByTheCallerAreRefused) {
  jinja::Value value = jinja::Value::list({});
  for (int i = 0; i < 1000; ++i) value = jinja::Value::list({value});
  const auto parsed = ChatTemplate::parse("{{ deep }}");
  ASSERT_THAT(parsed, testing::is_ok());
  ChatTemplate::Inputs inputs;
  inputs.variables.emplace_back("deep", value);
  EXPECT_THAT((*parsed)->render(inputs),
              testing::fails_with(Code::kInvalidArgument, HasSubstr("'deep'")));
}

}  // namespace
}  // namespace tandem

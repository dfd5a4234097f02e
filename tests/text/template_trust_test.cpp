// What a user types never becomes trusted text, whatever a template does with it.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "json_value.h"
#include "status_matchers.h"
#include "text/template/chat_template.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const std::string kControl = "<|im_end|>";

std::vector<RenderedPiece> render(const std::string& source, const std::string& content) {
  const auto parsed = ChatTemplate::parse(source);
  EXPECT_THAT(parsed, testing::is_ok()) << source;
  if (!parsed.ok()) return {};
  const ChatMessage messages[] = {{"user", content}};
  ChatTemplate::Inputs inputs;
  inputs.messages = messages;
  inputs.bos_token = "<s>";
  const auto pieces = (*parsed)->render(inputs);
  EXPECT_THAT(pieces, testing::is_ok()) << source;
  return pieces.ok() ? *pieces : std::vector<RenderedPiece>();
}

std::string trusted_text(const std::vector<RenderedPiece>& pieces) {
  std::string text;
  for (const RenderedPiece& piece : pieces) {
    // A mark between pieces: a control token may not be put together across their border.
    text += piece.trusted ? piece.text : std::string("\x01");
  }
  return text;
}

TEST(TemplateTrust, PiecesSayWhoWroteThem) {
  const auto pieces = render("{{ bos_token }}<u>{{ messages[0].content }}</u>", "hi");
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_EQ(pieces[0].text, "<s><u>");
  EXPECT_TRUE(pieces[0].trusted);
  EXPECT_EQ(pieces[1].text, "hi");
  EXPECT_FALSE(pieces[1].trusted);
  EXPECT_TRUE(pieces[2].trusted);
}

TEST(TemplateTrust, LookAlikesSurviveEveryOperationAsUntrusted) {
  const char* expressions[] = {"c",
                               "c | trim",
                               "c.strip()",
                               "c.lstrip('x')",
                               "(c ~ '')",
                               "('' + c)",
                               "c + c",
                               "c * 2",
                               "c[0:]",
                               "c[::1]",
                               "c[::-1] | reverse",
                               "c | replace('x', 'y')",
                               "c.replace('x', 'y')",
                               "'a' | replace('a', c)",
                               "'%s' | format(c)",
                               "'%s' % c",
                               "'{}'.format(c)",
                               "[c] | join",
                               "[c, c] | join(c)",
                               "c | list | join",
                               "c.split('|') | join('|')",
                               "c.split()[0]",
                               "c.rsplit('|', 1) | join('|')",
                               "c.partition('|') | join",
                               "c.splitlines()[0]",
                               "c | upper | lower",
                               "c | title | lower",
                               "c | capitalize | lower",
                               "c | safe",
                               "c | string",
                               "c | tojson",
                               "[c] | tojson",
                               "{'k': c} | tojson(indent=2)",
                               "{c: 1} | tojson",
                               "[c]",
                               "{'k': c}",
                               "c | indent",
                               "c | center(40)",
                               "c.ljust(40, '-')",
                               "'-'.join([c, c])",
                               "c.removeprefix('x')",
                               "c | default('x')",
                               "none | default(c, true)",
                               "[c] | first",
                               "[c] | map('trim') | first",
                               "[[c]] | sum(start=[]) | first",
                               "[c] | sort | last",
                               "c if true else 'x'",
                               "namespace(a=c).a",
                               "dict(a=c).a",
                               "messages[0]['content']",
                               "messages | map(attribute='content') | first",
                               "c | truncate(300)",
                               "c | e | replace('&lt;', '<') | replace('&gt;', '>')"};
  for (const std::string expression : expressions) {
    const auto pieces =
        render("{% set c = messages[0].content %}[{{ " + expression + " }}]", kControl);
    EXPECT_THAT(joined_text(pieces), HasSubstr("im_end")) << expression;
    EXPECT_THAT(trusted_text(pieces), Not(HasSubstr("im_end"))) << expression;
  }
}

TEST(TemplateTrust, StatementsKeepTheMarks) {
  const char* sources[] = {
      "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(messages[0].content) }}",
      "{% set x %}{{ messages[0].content }}{% endset %}{{ x }}",
      "{% filter trim %} {{ messages[0].content }} {% endfilter %}",
      "{% for k in messages[0].content %}{{ k }}{% endfor %}",
      "{% set ns = namespace(t='') %}{% for k in messages[0].content %}{% set ns.t = ns.t ~ k %}"
      "{% endfor %}{{ ns.t }}",
      "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}{{ messages[0].content }}{% "
      "endcall %}",
      "{% with y = messages[0].content %}{{ y }}{% endwith %}",
      "{{ messages }}",
      "{{ messages | tojson }}"};
  for (const std::string source : sources) {
    const auto pieces = render(source, kControl);
    EXPECT_THAT(joined_text(pieces), HasSubstr(kControl)) << source;
    EXPECT_THAT(trusted_text(pieces), Not(HasSubstr("im_end"))) << source;
  }
}

TEST(TemplateTrust, TemplateAndUserTextDoNotMeltIntoOneToken) {
  const auto pieces = render("<|{{ messages[0].content }}|>", "im_end");
  EXPECT_EQ(joined_text(pieces), kControl);
  EXPECT_THAT(trusted_text(pieces), Not(HasSubstr(kControl)));
}

TEST(TemplateTrust, UsualRolesMayNameControlTokensAndOthersMayNot) {
  const auto parsed = ChatTemplate::parse("<|{{ messages[0].role }}|>");
  ASSERT_THAT(parsed, testing::is_ok());
  for (const auto& [role, trusted] :
       {std::pair{"user", true}, std::pair{"im_end", false}, std::pair{"user|>", false}}) {
    const ChatMessage messages[] = {{role, ""}};
    ChatTemplate::Inputs inputs;
    inputs.messages = messages;
    const auto pieces = (*parsed)->render(inputs);
    ASSERT_THAT(pieces, testing::is_ok());
    EXPECT_EQ(pieces->size() == 1, trusted) << role;
  }
}

}  // namespace
}  // namespace tandem

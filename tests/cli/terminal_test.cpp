// chat on a terminal of its own.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "cli/program.h"

namespace tandem::testing {
namespace {

const std::string kModel = golden("qwen3.gguf");
const std::string kCtrlC = "\x03";
const std::string kCtrlD = "\x04";

TEST(Terminal, AnswersAtThePromptAndEndsWithCtrlD) {
  TerminalProgram chat({"chat", kModel, "-n", "4", "-s", "1"});
  ASSERT_TRUE(chat.prompts()) << chat.seen();
  chat.type("hello\r");
  ASSERT_TRUE(chat.shows(" tok, ")) << chat.seen();
  ASSERT_TRUE(chat.prompts()) << chat.seen();
  chat.type(kCtrlD);
  EXPECT_EQ(chat.exit_code(), 0) << chat.seen();
}

TEST(Terminal, CtrlCAtThePromptClearsTheLineAndTwiceEnds) {
  TerminalProgram chat({"chat", kModel, "-n", "4"});
  ASSERT_TRUE(chat.prompts()) << chat.seen();
  chat.type("half a line");
  ASSERT_TRUE(chat.shows("line")) << chat.seen();
  chat.type(kCtrlC);
  ASSERT_TRUE(chat.shows("Ctrl-C again")) << chat.seen();
  ASSERT_TRUE(chat.prompts()) << chat.seen();
  chat.type(kCtrlC);
  EXPECT_EQ(chat.exit_code(), 130) << chat.seen();
}

// The likeliest tokens of this random model go round in a circle that fills any context.
const std::vector<std::string> kEndless = {golden("qwen2-tied.gguf"), "--temp", "0", "-c", "20000"};

std::vector<std::string> endless(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin() + 1, kEndless.begin(), kEndless.end());
  return arguments;
}

TEST(Terminal, CtrlCStopsTheAnswerAndNotTheProgram) {
  TerminalProgram chat(endless({"chat"}));
  ASSERT_TRUE(chat.prompts()) << chat.seen();
  chat.type("hello\r");
  ASSERT_TRUE(chat.shows_more(200)) << chat.seen();
  chat.type(kCtrlC);
  ASSERT_TRUE(chat.shows("stopped, ")) << chat.seen();
  ASSERT_TRUE(chat.prompts()) << chat.seen();
  chat.type("/stats\r");
  ASSERT_TRUE(chat.shows("turns       1")) << chat.seen();
  chat.type("/quit\r");
  EXPECT_EQ(chat.exit_code(), 0) << chat.seen();
}

TEST(Terminal, CtrlCEndsRunAndKeepsWhatWasWritten) {
  TerminalProgram run(endless({"run", "-p", "hello"}));
  ASSERT_TRUE(run.shows_more(200)) << run.seen();
  run.type(kCtrlC);
  ASSERT_TRUE(run.shows("interrupted: ")) << run.seen();
  ASSERT_TRUE(run.shows(" tokens were written.")) << run.seen();
  EXPECT_EQ(run.exit_code(), 130) << run.seen();
}

TEST(Terminal, APasteOfSeveralLinesIsOneMessage) {
  TerminalProgram chat({"chat", kModel, "-n", "4"});
  ASSERT_TRUE(chat.shows("\x1b[?2004h")) << chat.seen();
  chat.type("\x1b[200~one\rtwo\rthree\r\x1b[201~");
  ASSERT_TRUE(chat.shows("three")) << chat.seen();
  EXPECT_EQ(chat.seen().find(" tok, "), std::string::npos);
  chat.type("\r");
  ASSERT_TRUE(chat.shows(" tok, ")) << chat.seen();
  ASSERT_TRUE(chat.prompts()) << chat.seen();
  chat.type("/stats\r");
  EXPECT_TRUE(chat.shows("turns       1")) << chat.seen();
}

TEST(Terminal, TakesTextBeyondAscii) {
  TerminalProgram chat({"chat", kModel, "-n", "4"});
  ASSERT_TRUE(chat.prompts()) << chat.seen();
  chat.type("/system na\xc3\xafve \xe6\xbc\xa2\r");
  EXPECT_TRUE(chat.shows("system: na\xc3\xafve \xe6\xbc\xa2")) << chat.seen();
}

TEST(Terminal, UsesNoColoursWhenAskedNotTo) {
  TerminalProgram chat({"chat", kModel, "-n", "4"}, {"NO_COLOR=1"});
  ASSERT_TRUE(chat.prompts()) << chat.seen();
  EXPECT_EQ(chat.seen().find("\x1b[2m"), std::string::npos) << chat.seen();
}

TEST(Terminal, MovesNoCursorOnADumbTerminal) {
  TerminalProgram chat({"chat", kModel, "-n", "4"}, {"TERM=dumb"});
  ASSERT_TRUE(chat.shows("> ")) << chat.seen();
  chat.type("hello\n");
  ASSERT_TRUE(chat.shows(" tok, ")) << chat.seen();
  EXPECT_EQ(chat.seen().find('\x1b'), std::string::npos) << chat.seen();
  chat.type(kCtrlD);
  EXPECT_EQ(chat.exit_code(), 0) << chat.seen();
}

TEST(Terminal, RunWithoutAPromptIsChat) {
  TerminalProgram chat({"run", kModel});
  ASSERT_TRUE(chat.prompts()) << chat.seen();
  chat.type("/quit\r");
  EXPECT_EQ(chat.exit_code(), 0) << chat.seen();
}

}  // namespace
}  // namespace tandem::testing

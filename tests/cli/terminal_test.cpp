// chat on a terminal of its own.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "cli/program.h"
#include "status_matchers.h"

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

TEST(Terminal, CtrlCAtThePromptClearsTheLineAndTwiceOnNoneEnds) {
  TerminalProgram chat({"chat", kModel, "-n", "4"});
  ASSERT_TRUE(chat.prompts()) << chat.seen();
  for (const char* text : {"half a line", "another line", "\"\"\"\r", "goes on, line \\\r"}) {
    chat.type(text);
    ASSERT_TRUE(chat.shows(text[0] == '"' ? ". " : "line")) << chat.seen();
    chat.type(kCtrlC);
    ASSERT_TRUE(chat.prompts()) << chat.seen();
  }
  EXPECT_EQ(chat.seen().find("Ctrl-C again"), std::string::npos) << chat.seen();
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

size_t n_files(const TemporaryFolder& folder) {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder.path()), {}));
}

TEST(Terminal, CtrlCEndsSynthAndRemovesTheFile) {
  const TemporaryFolder folder;
  TerminalProgram synth(
      {"synth", folder / "model.gguf", "--like", "llama-3.1-8b", "--layers", "2"});
  ASSERT_TRUE(synth.shows("writing ")) << synth.seen();
  synth.type(kCtrlC);
  EXPECT_TRUE(synth.shows("interrupted: ")) << synth.seen();
  EXPECT_TRUE(synth.shows("written; nothing was kept.")) << synth.seen();
  EXPECT_EQ(synth.exit_code(), 130) << synth.seen();
  EXPECT_EQ(n_files(folder), 0u);
}

TEST(Terminal, CtrlCEndsLogitsAndRemovesTheFile) {
  const TemporaryFolder folder;
  std::string ids = "1";
  for (int i = 0; i < 50000; ++i) ids += ",1";
  TerminalProgram logits({"logits", golden("qwen2-tied.gguf"), "-c", "60000", "--tokens", ids,
                          "--output", folder / "logits.bin"});
  ASSERT_TRUE(logits.shows("writing ")) << logits.seen();
  logits.type(kCtrlC);
  EXPECT_TRUE(logits.shows("computed; nothing was kept.")) << logits.seen();
  EXPECT_EQ(logits.exit_code(), 130) << logits.seen();
  EXPECT_EQ(n_files(folder), 0u);
}

TEST(Terminal, CtrlCEndsPerplexity) {
  const TemporaryFolder folder;
  std::ofstream text(folder / "text.txt");
  for (int i = 0; i < 100000; ++i) text << "the cat sat on the mat\n";
  text.close();
  TerminalProgram perplexity(
      {"perplexity", golden("qwen2-tied.gguf"), "-f", folder / "text.txt", "-c", "4000"});
  ASSERT_TRUE(perplexity.shows("reading")) << perplexity.seen();
  perplexity.type(kCtrlC);
  EXPECT_TRUE(perplexity.shows("windows were read; no result.")) << perplexity.seen();
  EXPECT_EQ(perplexity.exit_code(), 130) << perplexity.seen();
}

TEST(Terminal, CtrlCEndsBench) {
  TerminalProgram bench({"bench", golden("qwen2-tied.gguf"), "-r", "1000"});
  ASSERT_FALSE(bench.shows_within("interrupted", 1.0)) << bench.seen();
  bench.type(kCtrlC);
  EXPECT_TRUE(bench.shows("interrupted: 0 of 1 depths were measured.")) << bench.seen();
  EXPECT_EQ(bench.exit_code(), 130) << bench.seen();
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

// Made narrower, the terminal breaks the line into more rows; all of them are drawn anew.
TEST(Terminal, DrawsALongLineAnewWhenTheTerminalIsResized) {
  TerminalProgram chat({"chat", kModel, "-n", "4"});
  ASSERT_TRUE(chat.prompts()) << chat.seen();
  chat.type(std::string(110, 'a') + "END");
  ASSERT_TRUE(chat.shows("END")) << chat.seen();
  chat.resize(50);  // 2 + 113 columns: the cursor is in the third row
  EXPECT_TRUE(chat.shows("\r\x1b[2A\x1b[J")) << chat.seen();
  EXPECT_TRUE(chat.shows("> aaa")) << chat.seen();
  EXPECT_TRUE(chat.shows("END")) << chat.seen();
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

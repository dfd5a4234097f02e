// run and chat through pipes, on small random models: what they say is nonsense, how they say it is
// not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/program.h"
#include "status_matchers.h"

namespace tandem::testing {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using Json = nlohmann::json;

const std::string kModel = golden("qwen3.gguf");

Outcome run(std::vector<std::string> more, std::string_view input = "") {
  std::vector<std::string> arguments = {"run", kModel, "-n", "8"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return tandem(arguments, input);
}

Json json_of(const Outcome& outcome) {
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  return Json::parse(outcome.out, nullptr, false);
}

TEST(Run, AnswersOnStandardOutputAndReportsOnStandardError) {
  const Outcome outcome = run({"-p", "hello", "-s", "1"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, Not(IsEmpty()));
  EXPECT_THAT(outcome.out, Not(HasSubstr("tok/s")));
  EXPECT_THAT(outcome.err, HasSubstr("tok/s"));
  EXPECT_THAT(outcome.err, HasSubstr("seed 1"));
}

TEST(Run, TellsTheFlagsThatHelpAModelThatDoesNotFit) {
  const Outcome outcome = run({"-p", "hello", "-c", "100000000"});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, ContainsRegex("error: needs .*, .* are free\n"
                                         "       use a context of at most ([0-9]+) tokens "
                                         "\\(--ctx ([0-9]+)\\), or --force\n"));
}

TEST(Run, UsesNoEscapeSequencesInAPipe) {
  const Outcome outcome = run({"-p", "hello"});
  EXPECT_THAT(outcome.err, Not(HasSubstr("\x1b")));
}

TEST(Run, GivesTheSameForTheSameSeed) {
  const Outcome first = run({"-p", "hello", "-s", "7"});
  EXPECT_EQ(run({"-p", "hello", "-s", "7"}).out, first.out);
  EXPECT_EQ(run({"-p", "hello", "-s", "7", "-t", "1", "--read", "direct"}).out, first.out);
  EXPECT_NE(run({"-p", "hello", "-s", "8"}).out, first.out);
}

TEST(Run, ShowsARandomSeedThatGivesTheSameAgain) {
  const Json first = json_of(run({"-p", "hello", "--json"}));
  const std::string seed = std::to_string(first["seed"].get<uint64_t>());
  EXPECT_EQ(json_of(run({"-p", "hello", "--json", "-s", seed}))["tokens"], first["tokens"]);
}

TEST(Run, ReportsAsOneJsonObject) {
  const Json json = json_of(run({"-p", "hello", "--json", "--temp", "0"}));
  EXPECT_EQ(json["generated_tokens"].get<size_t>(), json["tokens"].size());
  EXPECT_TRUE(json["finish"] == "length" || json["finish"] == "end");
  EXPECT_GT(json["prompt_tokens"].get<int>(), 5);
}

TEST(Run, JoinsPromptAndPipe) {
  const Json joined = json_of(run({"-p", "review this", "--json"}, "some words"));
  const Json alone = json_of(run({"-p", "review this", "--json"}));
  const Json as_one = json_of(run({"-p", "review this\n\nsome words", "--json"}));
  EXPECT_GT(joined["prompt_tokens"], alone["prompt_tokens"]);
  EXPECT_EQ(joined["prompt_tokens"], as_one["prompt_tokens"]);
}

TEST(Run, TakesThePromptFromAFileOrThePipe) {
  const TemporaryFolder folder;
  std::ofstream(folder / "prompt.txt") << "hello";
  const std::string expected = run({"-p", "hello", "-s", "1"}).out;
  EXPECT_EQ(run({"-f", folder / "prompt.txt", "-s", "1"}).out, expected);
  EXPECT_EQ(run({"-s", "1"}, "hello").out, expected);
  EXPECT_EQ(run({"-f", "-", "-s", "1"}, "hello").out, expected);
}

TEST(Run, WithoutAPromptIsWrongUsage) {
  const Outcome outcome = run({});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("no prompt given"));
}

TEST(Run, LeavesTheTemplateOutWithRaw) {
  const Json raw = json_of(run({"-p", "hello", "--raw", "--json"}));
  const Json chat = json_of(run({"-p", "hello", "--json"}));
  EXPECT_LT(raw["prompt_tokens"], chat["prompt_tokens"]);
}

TEST(Run, SaysThatTheContextIsFull) {
  const Outcome outcome =
      tandem({"run", kModel, "-p", "hello", "--raw", "-c", "16", "-s", "3", "--stop", "never"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  // A random model may end before; the seed was chosen so that it does not.
  EXPECT_THAT(outcome.err, HasSubstr("context of 16 tokens is full"));
}

TEST(Run, RefusesAPromptThatDoesNotFit) {
  const Outcome outcome = tandem({"run", kModel, "-c", "16", "-p", std::string(200, 'x')});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.out, IsEmpty());
  EXPECT_THAT(outcome.err, HasSubstr("error: "));
}

TEST(Run, EndsLikeOtherToolsWhenItsReaderLeaves) {
  const Outcome outcome =
      tandem_with_reader_that_leaves({"run", kModel, "-p", "hello", "--raw", "-s", "3"}, 1);
  EXPECT_THAT(outcome.exit_code, ::testing::AnyOf(128 + 13, 0));
  EXPECT_THAT(outcome.err, Not(HasSubstr("error")));
}

TEST(Run, ContinuesFromASavedState) {
  const TemporaryFolder folder;
  const std::string state = folder / "state";
  const Json whole =
      json_of(tandem({"run", kModel, "--raw", "-p", "hello", "--temp", "0", "-n", "8", "--json"}));
  json_of(tandem({"run", kModel, "--raw", "-p", "hello", "--temp", "0", "-n", "8", "--json",
                  "--save-state", state}));
  EXPECT_GT(std::filesystem::file_size(state), 100u);
  const Json next = json_of(
      tandem({"run", kModel, "--raw", "-p", "x", "-n", "1", "--json", "--load-state", state}));
  EXPECT_GT(next["prompt_tokens"].get<size_t>(), whole["prompt_tokens"].get<size_t>());
  EXPECT_LE(next["prompt_tokens_evaluated"].get<size_t>(), 2u);
}

TEST(Run, WritesATraceAndSaysWhatItShows) {
  const TemporaryFolder folder;
  const std::string file = folder / "trace.json";
  const Outcome outcome = run({"-p", "hello", "-n", "4", "--trace", file});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("critical lane cpu"));
  std::ifstream stream(file);
  EXPECT_TRUE(Json::parse(stream, nullptr, false).contains("traceEvents"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(Run, RefusesATraceThatCannotBeWrittenBeforeItLoads) {
  const Outcome outcome =
      tandem({"run", "/nonexistent/model.gguf", "-p", "x", "--trace", "/nonexistent/trace.json"});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("--trace: /nonexistent/trace.json"));
  EXPECT_THAT(outcome.err, Not(HasSubstr("model.gguf")));
}

TEST(Run, RefusesAStateThatCannotBeWrittenBeforeItLoads) {
  const Outcome outcome =
      tandem({"run", "/nonexistent/model.gguf", "-p", "x", "--save-state", "/nonexistent/state"});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("--save-state: /nonexistent/state"));
  EXPECT_THAT(outcome.err, Not(HasSubstr("model.gguf")));
}

TEST(Chat, SaysWhyATemplateCannotBeUsed) {
  const TemporaryFolder folder;
  const std::string model = folder / "model.gguf";
  std::ifstream file(kModel, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const size_t at = bytes.find("{% for");
  ASSERT_NE(at, std::string::npos);
  bytes.replace(at, 6, "{% fro");
  std::ofstream(model, std::ios::binary) << bytes;
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"chat", model}, {"run", model, "-p", "hi"}}) {
    const Outcome outcome = tandem(arguments);
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_THAT(outcome.err, HasSubstr("cannot be used: "));
    EXPECT_THAT(outcome.err, HasSubstr("fro"));
    EXPECT_THAT(outcome.err, HasSubstr("--raw"));
  }
  EXPECT_THAT(tandem({"inspect", model}).out, HasSubstr("chat template   cannot be used: "));
}

TEST(Chat, SendsNoMessageWithAZeroByte) {
  const Outcome outcome =
      tandem({"chat", kModel, "-n", "2"}, std::string_view("one\0two\n/stats\n", 15));
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("zero byte"));
  EXPECT_THAT(outcome.err, HasSubstr("turns       0"));
}

TEST(Chat, StatsShowTheLanesOfATrace) {
  const TemporaryFolder folder;
  const std::string file = folder / "trace.json";
  const Outcome outcome =
      tandem({"chat", kModel, "-n", "4", "--trace", file, "--device", "mirror:vram=64MiB"},
             "hello\n/stats\n");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("critical lane"));
  EXPECT_THAT(outcome.err, HasSubstr("link down"));
  EXPECT_TRUE(std::filesystem::exists(file));
}

TEST(Chat, TakesEachLineOfAPipeAsATurn) {
  const Outcome outcome = tandem({"chat", kModel, "-n", "4", "--temp", "0"}, "hello\nand you\n");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, Not(HasSubstr("> ")));
  EXPECT_THAT(outcome.err, Not(HasSubstr("\x1b")));
  size_t n_answers = 0;
  for (size_t at = 0; (at = outcome.err.find(" tok, ", at)) != std::string::npos; ++at) ++n_answers;
  EXPECT_EQ(n_answers, 2u) << outcome.err;
}

TEST(Chat, IntroducesModelPlanAndContext) {
  const Outcome outcome = tandem({"chat", kModel, "-c", "64"}, "");
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.err, HasSubstr("parameters"));
  EXPECT_THAT(outcome.err, HasSubstr("plan        all in RAM"));
  EXPECT_THAT(outcome.err, HasSubstr("context     64 tokens"));
  EXPECT_THAT(outcome.out, IsEmpty());
}

TEST(Chat, SuggestsTheNearestCommandAndFails) {
  const Outcome outcome = tandem({"chat", kModel}, "/rest\n");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("/rest: unknown command. Did you mean /reset?"));
}

TEST(Chat, JoinsLinesThatEndInABackslashAndBlocks) {
  const std::string settings = "/set predict 2\n/set temp 0\n";
  const Outcome joined =
      tandem({"chat", kModel}, settings + "one\\\ntwo\n\"\"\"three\nfour\"\"\"\n");
  const Outcome alone = tandem({"chat", kModel}, settings + "one\n");
  size_t n_answers = 0;
  for (size_t at = 0; (at = joined.err.find(" tok, ", at)) != std::string::npos; ++at) ++n_answers;
  EXPECT_EQ(n_answers, 2u) << joined.err;
  EXPECT_NE(joined.err, alone.err);
}

TEST(Chat, UndoesAndAnswersAgain) {
  const Outcome outcome =
      tandem({"chat", kModel, "-n", "4"},
             "hello\n/undo\n/undo\n/regen\nhello\n/regen\n/stats\n/help\n/quit\nnever read\n");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("taken back; 0 turns left"));
  EXPECT_THAT(outcome.err, HasSubstr("nothing to take back"));
  EXPECT_THAT(outcome.err, HasSubstr("nothing to answer again"));
  EXPECT_THAT(outcome.err, HasSubstr("turns       1"));
}

TEST(Chat, SavesAndLoadsAConversation) {
  const TemporaryFolder folder;
  const std::string file = folder / "talk.json";
  const Outcome saved =
      tandem({"chat", kModel, "-n", "4", "--system", "be brief"}, "hello\n/save " + file + "\n");
  EXPECT_EQ(saved.exit_code, 0) << saved.err;
  std::ifstream stream(file);
  const Json json = Json::parse(stream, nullptr, false);
  ASSERT_EQ(json["messages"].size(), 3u);
  EXPECT_EQ(json["messages"][0]["content"], "be brief");
  const Outcome loaded =
      tandem({"chat", kModel, "-n", "4"}, "/load " + file + "\n/system\n/stats\n");
  EXPECT_EQ(loaded.exit_code, 0) << loaded.err;
  EXPECT_THAT(loaded.err, HasSubstr("1 turn loaded\n"));
  EXPECT_THAT(loaded.err, HasSubstr("system: be brief"));
  EXPECT_THAT(loaded.err, Not(HasSubstr("context     0/")));
  for (const std::string& name : {file, file + ".state"}) {
    EXPECT_EQ(std::filesystem::status(name).permissions(),
              std::filesystem::perms::owner_read | std::filesystem::perms::owner_write)
        << name;
  }
}

TEST(Chat, SavesNoStateBesideADevice) {
  const Outcome outcome = tandem({"chat", kModel, "-n", "4"}, "hello\n/save /dev/null\n");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("saved /dev/null without the model's state"));
  EXPECT_FALSE(std::filesystem::exists("/dev/null.state"));
}

TEST(Chat, SavesNothingOverAFolder) {
  const TemporaryFolder folder;
  const std::string target = folder / "talks";
  std::filesystem::create_directory(target);
  const Outcome outcome = tandem({"chat", kModel, "-n", "4"}, "hello\n/save " + target + "\n");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("talks: cannot open: Is a directory"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(Chat, SaysOnAFullDriveWhatWasNotSaved) {
  const TemporaryFolder folder;
  const std::string file = folder / "talk.json";
  const Outcome outcome =
      tandem_on_a_full_drive({"chat", kModel, "-n", "4"}, 2000, "hello\n/save " + file + "\n");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("talk.json.state: write after 2.0 kB: File too large"));
  EXPECT_THAT(outcome.err, HasSubstr("talk.json without the model's state"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1)
      << "more than the conversation";
}

TEST(Chat, SaysWhenTheContextIsSmallByTraining) {
  EXPECT_THAT(tandem({"chat", kModel}, "").err, HasSubstr("few, but all that it was trained on"));
}

TEST(Run, LeavesTheRateOutForOneToken) {
  const Outcome one = tandem({"run", kModel, "-p", "hello", "-n", "1", "-s", "1"});
  EXPECT_THAT(one.err, HasSubstr("1 tok, "));
  EXPECT_THAT(one.err, Not(HasSubstr("decode")));
  EXPECT_TRUE(
      json_of(tandem({"run", kModel, "-p", "hello", "-n", "1", "--json"}))["decode_tokens_per_s"]
          .is_null());
  EXPECT_GT(
      json_of(run({"-p", "hello", "--json", "--temp", "0"}))["decode_tokens_per_s"].get<double>(),
      0);
}

TEST(Chat, RefusesAConversationThatIsNone) {
  const TemporaryFolder folder;
  for (const char* text :
       {"", "{", "[]", "{\"tandem_conversation\":1}", "{\"tandem_conversation\":2,\"messages\":[]}",
        "{\"tandem_conversation\":1,\"messages\":[{\"role\":\"user\"}]}"}) {
    std::ofstream(folder / "bad.json") << text;
    const Outcome outcome =
        tandem({"chat", kModel}, "/load " + (folder / "bad.json").string() + "\n");
    EXPECT_EQ(outcome.exit_code, 1) << text;
    EXPECT_THAT(outcome.err, HasSubstr("bad.json")) << text;
  }
}

TEST(Chat, SettingsAreCheckedAndShown) {
  const Outcome outcome =
      tandem({"chat", kModel}, "/set temp 0.5\n/set temp hot\n/set tmep 1\n/set\n");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("temp 0.500"));
  EXPECT_THAT(outcome.err, HasSubstr("expected a number from"));
  EXPECT_THAT(outcome.err, HasSubstr("Did you mean temp?"));
  EXPECT_THAT(outcome.err, HasSubstr("top-k"));
}

TEST(Chat, OpensTheBundledModelAndSaysThatItIsAToy) {
  if (!std::filesystem::exists(bundled())) GTEST_SKIP() << "no model in examples/models";
  const Outcome outcome = tandem({"chat", "-s", "1"}, "What light through yonder window breaks?\n");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.err,
              HasSubstr("a toy trained on Shakespeare. Open a real model:  tandem chat FILE.gguf"));
  EXPECT_GT(outcome.out.size(), 20u);
}

// What each processor did, and how often an expert was there.
TEST(Chat, StatsShowTiersLanesAndTheHitRateOfASecondProcessor) {
  const Outcome outcome =
      tandem({"chat", bundled(), "-n", "8", "--device", "mirror:vram=4MiB"}, "hello\n/stats\n");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  for (const char* part : {"RAM ", "mirror ", "critical lane", "cpu", "device", "uses found in"})
    EXPECT_THAT(outcome.out + outcome.err, ::testing::HasSubstr(part)) << part;
}

}  // namespace
}  // namespace tandem::testing

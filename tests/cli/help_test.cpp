// What a person reads when something is asked wrongly, or asked for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/program.h"

namespace tandem::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

class CommandHelp : public ::testing::TestWithParam<const char*> {};

TEST_P(CommandHelp, StartsWithAnExampleOnStandardOutput) {
  const Outcome outcome = tandem({GetParam(), "--help"});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.out, StartsWith(std::string("  tandem ") + GetParam()));
  EXPECT_THAT(outcome.out, HasSubstr("Usage: tandem " + std::string(GetParam())));
  EXPECT_THAT(outcome.err, IsEmpty());
}

TEST_P(CommandHelp, IsWhatHelpCommandShows) {
  EXPECT_EQ(tandem({"help", GetParam()}).out, tandem({GetParam(), "-h"}).out);
}

TEST_P(CommandHelp, RefusesAnUnknownOptionAsWrongUsage) {
  const Outcome outcome = tandem({GetParam(), "--no-such-thing-anywhere"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, StartsWith("error: --no-such-thing-anywhere: unknown option."));
  EXPECT_THAT(outcome.out, IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(Commands, CommandHelp,
                         ::testing::Values("chat", "run", "inspect", "machine", "bench",
                                           "perplexity", "logits", "synth", "tokenize"));

TEST(Help, GroupsTheCommands) {
  const Outcome outcome = tandem({"--help"});
  EXPECT_EQ(outcome.exit_code, 0);
  for (const char* group : {"Use:", "Inspect:", "Measure:", "Develop:"})
    EXPECT_THAT(outcome.out, HasSubstr(group));
}

TEST(Help, IsAnErrorWhenNothingWasAsked) {
  const Outcome outcome = tandem({});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.out, IsEmpty());
  EXPECT_THAT(outcome.err, HasSubstr("Usage: tandem COMMAND"));
}

TEST(Help, TellsTheVersion) { EXPECT_THAT(tandem({"--version"}).out, StartsWith("tandem 0.")); }

TEST(WrongUsage, SuggestsTheNearestCommand) {
  const Outcome outcome = tandem({"tokenise"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_EQ(outcome.err, "error: tokenise: unknown command. Did you mean tokenize?\n");
}

TEST(WrongUsage, SuggestsTheNearestOption) {
  const Outcome outcome = tandem({"run", "model.gguf", "--thread", "2", "-p", "hi"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_EQ(outcome.err, "error: --thread: unknown option. Did you mean --threads?\n");
}

TEST(WrongUsage, SuggestsAnOptionThatWasWrittenWithItsValue) {
  EXPECT_THAT(tandem({"run", "m.gguf", "--tmep=0.5"}).err,
              HasSubstr("--tmep: unknown option. Did you mean --temp?"));
}

TEST(WrongUsage, SuggestsNothingThatIsFarAway) {
  EXPECT_THAT(tandem({"xylophone"}).err, Not(HasSubstr("Did you mean")));
}

TEST(WrongUsage, SaysWhatAValueShouldBe) {
  const Outcome outcome = tandem({"run", "m.gguf", "-p", "hi", "--temp", "warm"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("--temp: expected a number from"));
  EXPECT_THAT(outcome.err, HasSubstr("found 'warm'"));
}

TEST(WrongUsage, IsToldByTheNameThatWasTyped) {
  const auto error = [](std::vector<std::string> flags) {
    flags.insert(flags.begin(), {"run", "m.gguf", "-p", "hi"});
    const Outcome outcome = tandem(flags);
    EXPECT_EQ(outcome.exit_code, 2);
    return outcome.err;
  };
  EXPECT_THAT(error({"-n", "3.9"}), StartsWith("error: -n: expected a whole number"));
  EXPECT_THAT(error({"--predict", "x"}), StartsWith("error: --predict: "));
  EXPECT_THAT(error({"--n-predict=x"}), StartsWith("error: --n-predict: "));
  EXPECT_THAT(error({"-t4096"}), StartsWith("error: -t: expected a whole number from 0 to 1024"));
  EXPECT_THAT(error({"--ctx", "134217729"}), HasSubstr("from 0 to 134217728"));
  EXPECT_THAT(error({"--repeat-last-n", "1048577"}), HasSubstr("from 0 to 1048576"));
  EXPECT_THAT(error({"--stop", ""}), HasSubstr("--stop: expected a text that is not empty"));
}

TEST(WrongUsage, IsAnEmptyName) {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"inspect", ""}, {"synth", "", "--like", "llama-3.2-1b"}}) {
    const Outcome outcome = tandem(arguments);
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_THAT(outcome.err, HasSubstr("is empty."));
  }
}

TEST(WrongUsage, IsABenchOfNothing) {
  const Outcome outcome = tandem({"bench", "m.gguf", "-p", "0", "-n", "0"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("nothing to measure"));
}

TEST(WrongUsage, NamesTheArgumentThatIsOneTooMany) {
  const Outcome outcome = tandem({"inspect", "a.gguf", "b.gguf"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("b.gguf: one argument too many"));
}

TEST(WrongUsage, AsksForAModel) {
  for (const char* command : {"run", "inspect", "tokenize", "bench", "logits", "perplexity"}) {
    const Outcome outcome = tandem({command});
    EXPECT_EQ(outcome.exit_code, 2) << command;
    EXPECT_THAT(outcome.err, HasSubstr("no model given")) << command;
  }
}

TEST(WrongUsage, ListsTheShapesOfSynthWithoutLike) {
  const Outcome outcome = tandem({"synth", "never-written.gguf"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("llama-3.2-1b"));
}

}  // namespace
}  // namespace tandem::testing

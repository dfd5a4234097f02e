// inspect, tokenize, logits, perplexity, bench, synth and machine, on small models.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/program.h"
#include "status_matchers.h"

namespace tandem::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::json;

std::string content_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write(const std::filesystem::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

Json parsed(const Outcome& outcome) {
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  Json json = Json::parse(outcome.out, nullptr, false);
  EXPECT_TRUE(json.is_object()) << outcome.out;
  return json;
}

TEST(ModelCommands, NameAMissingFile) {
  for (const char* command : {"inspect", "tokenize", "bench", "chat"}) {
    const Outcome outcome = tandem({command, "/no/such/model.gguf"});
    EXPECT_EQ(outcome.exit_code, 1) << command;
    EXPECT_THAT(outcome.err, ::testing::StartsWith("error: ")) << command;
    EXPECT_THAT(outcome.err, HasSubstr("/no/such/model.gguf")) << command;
    EXPECT_THAT(outcome.out, IsEmpty()) << command;
  }
}

TEST(ModelCommands, TakeTheModelByFlagOrPosition) {
  EXPECT_EQ(tandem({"inspect", golden("qwen3.gguf")}).out,
            tandem({"inspect", "-m", golden("qwen3.gguf")}).out);
  const std::string ids = tandem({"tokenize", golden("qwen3.gguf"), "hello"}).out;
  EXPECT_EQ(tandem({"tokenize", "hello", "--model", golden("qwen3.gguf")}).out, ids);
}

TEST(Inspect, SummarisesInWordsAndAsJson) {
  const Outcome summary = tandem({"inspect", golden("qwen3moe.gguf")});
  EXPECT_THAT(summary.out, HasSubstr("qwen3moe"));
  EXPECT_THAT(summary.out, HasSubstr("8 per layer, 3 used per token"));
  const Json json = parsed(tandem({"inspect", golden("qwen3moe.gguf"), "--json"}));
  EXPECT_TRUE(json.contains("metadata"));
  EXPECT_GT(json["tensors"].size(), 5u);
}

TEST(Inspect, ListsTensorsAndMetadata) {
  EXPECT_THAT(tandem({"inspect", golden("qwen3.gguf"), "--tensors"}).out,
              HasSubstr("blk.0.attn_q.weight"));
  EXPECT_THAT(tandem({"inspect", golden("qwen3.gguf"), "--metadata"}).out,
              HasSubstr("general.architecture"));
}

TEST(Tokenize, GivesBackTheTextThatItTook) {
  const std::string text = "What light\n through yonder window?\n";
  const Outcome ids = tandem({"tokenize", golden("qwen3.gguf")}, text);
  EXPECT_EQ(ids.exit_code, 0);
  EXPECT_THAT(ids.out, ::testing::MatchesRegex("[0-9 ]+\n"));
  EXPECT_EQ(tandem({"tokenize", golden("qwen3.gguf"), "--decode", ids.out}).out, text);
}

TEST(Tokenize, DecodesIdsHoweverTheyAreWritten) {
  const std::string model = golden("qwen3.gguf");
  const std::string expected = tandem({"tokenize", model, "--decode", "10,11,12"}).out;
  EXPECT_FALSE(expected.empty());
  EXPECT_EQ(tandem({"tokenize", model, "--decode", "10 11 12"}).out, expected);
  EXPECT_EQ(tandem({"tokenize", model, "--decode", "10", "11", "12"}).out, expected);
  EXPECT_EQ(tandem({"tokenize", "-m", model, "--decode", "10", "11", "12"}).out, expected);
  EXPECT_EQ(tandem({"tokenize", model, "--decode", "10", "eleven"}).exit_code, 2);
}

TEST(Tokenize, KeepsControlTokensTextUnlessAsked) {
  const std::string model = golden("qwen3.gguf");
  EXPECT_EQ(tandem({"tokenize", model, "<|im_end|>", "--special"}).out, "3\n");
  EXPECT_GT(parsed(tandem({"tokenize", model, "<|im_end|>", "--json"}))["n_tokens"].get<int>(), 1);
}

TEST(Tokenize, PrintsAnEmptyLineForNoText) {
  EXPECT_EQ(tandem({"tokenize", golden("qwen3.gguf"), ""}).out, "\n");
}

// The layout of *.golden.bin is in tests/fixtures/README.md.
TEST(Logits, AreThoseOfTheReference) {
  const TemporaryFolder folder;
  const std::string bytes = content_of(golden("qwen3moe.golden.bin"));
  uint32_t n_tokens = 0, n_vocabulary = 0;
  std::memcpy(&n_tokens, bytes.data() + 8, 4);
  std::memcpy(&n_vocabulary, bytes.data() + 12, 4);
  std::string ids;
  for (uint32_t i = 0; i < n_tokens; ++i) {
    int32_t id = 0;
    std::memcpy(&id, bytes.data() + 16 + 4 * i, 4);
    ids += (i > 0 ? "," : "") + std::to_string(id);
  }
  const std::string output = folder / "logits.bin";
  const Outcome outcome =
      tandem({"logits", golden("qwen3moe.gguf"), "--tokens", ids, "--output", output});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, IsEmpty());
  const std::string found = content_of(output);
  ASSERT_EQ(found.size(), size_t{4} * n_tokens * n_vocabulary);
  for (size_t row = 0; row < n_tokens; ++row) {
    double difference = 0, size = 0;
    for (size_t i = row * n_vocabulary; i < (row + 1) * n_vocabulary; ++i) {
      float a = 0, b = 0;
      std::memcpy(&a, found.data() + 4 * i, 4);
      std::memcpy(&b, bytes.data() + 16 + 4 * (n_tokens + i), 4);
      difference += std::pow(static_cast<double>(a) - b, 2);
      size += std::pow(static_cast<double>(b), 2);
    }
    EXPECT_LE(std::sqrt(difference / size), 1e-4) << "position " << row;
  }
}

TEST(Logits, LeaveNothingBehindWhenTheyFail) {
  const TemporaryFolder folder;
  const std::string output = folder / "logits.bin";
  const Outcome outcome =
      tandem({"logits", golden("qwen3.gguf"), "--tokens", "1,999999", "--output", output});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Logits, OnAFullDriveNameTheFileAndLeaveTheOldOne) {
  const TemporaryFolder folder;
  const std::string output = folder / "logits.bin";
  write(output, "old");
  std::string ids = "1";
  for (int i = 0; i < 100; ++i) ids += ",1";
  const Outcome outcome = tandem_on_a_full_drive(
      {"logits", golden("qwen3.gguf"), "--tokens", ids, "--output", output}, 20000);
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("logits.bin: cannot write after 20 kB: File too large"));
  EXPECT_EQ(content_of(output), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(Logits, GoToStandardOutputWhenAsked) {
  const TemporaryFolder folder;
  const std::string output = folder / "logits.bin";
  const auto logits_to = [](const std::string& path) {
    return tandem({"logits", golden("qwen3.gguf"), "--tokens", "1,2", "-o", path});
  };
  ASSERT_EQ(logits_to(output).exit_code, 0);
  EXPECT_EQ(logits_to("-").out, content_of(output));
}

TEST(Logits, FollowALinkAndKeepPermissions) {
  const TemporaryFolder folder;
  const std::string output = folder / "logits.bin", link = folder / "link";
  write(output, "old");
  std::filesystem::permissions(
      output, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  std::filesystem::create_symlink("logits.bin", link);
  ASSERT_EQ(tandem({"logits", golden("qwen3.gguf"), "--tokens", "1", "-o", link}).exit_code, 0);
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_NE(content_of(output), "old");
  EXPECT_EQ(std::filesystem::status(output).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

TEST(Logits, WaitForWhoReadsAPipe) {
  const TemporaryFolder folder;
  const std::string pipe = folder / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  std::string read;
  std::thread reader([&] { read = content_of(pipe); });
  const Outcome outcome = tandem({"logits", golden("qwen3.gguf"), "--tokens", "1,2", "-o", pipe});
  reader.join();
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("writing 2 rows of"));
  EXPECT_FALSE(read.empty());
}

TEST(Logits, SayWhichFileCannotBeWritten) {
  const Outcome outcome = tandem(
      {"logits", golden("qwen3.gguf"), "--tokens", "1", "--output", "/no/such/folder/logits.bin"});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("/no/such/folder/logits.bin"));
}

class Perplexity : public ::testing::Test {
 protected:
  Perplexity() {
    std::string text;
    for (int i = 0; i < 40; ++i)
      text += "the cat sat on the mat, number " + std::to_string(i) + "\n";
    write(path_, text);
    n_characters_ = text.size();
  }
  Json measure(std::vector<std::string> more) {
    std::vector<std::string> arguments = {"perplexity", golden("qwen3.gguf"), "-f", path_,
                                          "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return parsed(tandem(arguments));
  }

  TemporaryFolder folder_;
  std::string path_ = folder_ / "text.txt";
  size_t n_characters_ = 0;
};

TEST_F(Perplexity, ScoresEveryTokenOnce) {
  for (const auto& more :
       {std::vector<std::string>{"-c", "32"}, {"-c", "33", "--stride", "7"}, {"-c", "64"}}) {
    const Json json = measure(more);
    const auto n_tokens = json["tokens"].get<size_t>();
    EXPECT_GE(json["scored_tokens"].get<size_t>(), n_tokens - 1);
    EXPECT_LE(json["scored_tokens"].get<size_t>(), n_tokens);
    EXPECT_GE(json["scored_characters"].get<size_t>(), n_characters_ - 8);
    EXPECT_GT(json["windows"].get<size_t>(), 1u);
    EXPECT_NEAR(json["perplexity"].get<double>(), std::exp(json["nats_per_token"].get<double>()),
                1e-6);
    EXPECT_NEAR(json["nats"].get<double>(),
                json["nats_per_character"].get<double>() * json["scored_characters"].get<double>(),
                1e-3);
  }
}

// A random model knows nothing: it is near the uniform guess over its vocabulary, and context does
// not help much.
TEST_F(Perplexity, IsNearTheVocabularyForARandomModel) {
  const double nats = measure({"-c", "64"})["nats_per_token"].get<double>();
  const Json model = parsed(tandem({"inspect", golden("qwen3.gguf"), "--json"}));
  const double uniform = std::log(model["info"]["n_vocabulary"].get<double>());
  EXPECT_GT(nats, 0.5 * uniform);
  EXPECT_LT(nats, 2 * uniform);
}

TEST_F(Perplexity, SaysItsMethod) {
  const Outcome outcome = tandem({"perplexity", golden("qwen3.gguf"), "-f", path_, "-c", "32"});
  EXPECT_THAT(outcome.out, HasSubstr("nats per character"));
  EXPECT_THAT(outcome.out, HasSubstr("non-overlapping windows of 32 tokens"));
}

TEST(Bench, ReportsMedianAndSpread) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "reading 2 GB several times takes minutes under this sanitizer";
#endif
  const Json json = parsed(tandem(
      {"bench", golden("qwen3.gguf"), "-p", "8", "-n", "4", "-r", "2", "-d", "0,8", "--json"}));
  for (const char* field : {"prompt_tokens_per_s", "decode_tokens_per_s", "decode_gb_per_s",
                            "read_bandwidth_gb_per_s"}) {
    const Json& spread = json[field];
    ASSERT_TRUE(spread.is_object()) << field;
    EXPECT_GT(spread["min"].get<double>(), 0) << field;
    EXPECT_LE(spread["min"], spread["median"]) << field;
    EXPECT_LE(spread["median"], spread["max"]) << field;
  }
  ASSERT_EQ(json["depths"].size(), 2u);
  EXPECT_EQ(json["depths"][1]["depth"], 8);
}

TEST(Bench, RefusesAContextThatIsTooSmall) {
  const Outcome outcome = tandem({"bench", golden("qwen3.gguf"), "-c", "16", "-p", "64"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("66 tokens"));
}

TEST(Synth, RefusesANameItDoesNotKnow) {
  const TemporaryFolder folder;
  const Outcome outcome = tandem({"synth", folder / "x.gguf", "--like", "llama-9"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("llama-3.2-1b"));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Synth, OnAFullDriveNamesTheFileAndLeavesTheOldOne) {
  const TemporaryFolder folder;
  const std::string output = folder / "model.gguf";
  write(output, "old");
  const Outcome outcome = tandem_on_a_full_drive(
      {"synth", output, "--like", "llama-3.2-1b", "--layers", "1", "--overwrite"}, 10'000'000);
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("model.gguf: write after "));
  EXPECT_THAT(outcome.err, HasSubstr("File too large"));
  EXPECT_EQ(content_of(output), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(Synth, ReplacesAFileOnlyWhenAsked) {
  const TemporaryFolder folder;
  const std::string output = folder / "model.gguf";
  write(output, "old");
  const Outcome outcome = tandem({"synth", output, "--like", "llama-3.2-1b", "--layers", "1"});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("exists already"));
  EXPECT_EQ(content_of(output), "old");
}

TEST(Machine, IsAMachineFileAndATable) {
  EXPECT_FALSE(parsed(tandem({"machine", "--json"})).empty());
  const Outcome table = tandem({"machine"});
  EXPECT_EQ(table.exit_code, 0);
  EXPECT_THAT(table.out, HasSubstr("cores"));
}

}  // namespace
}  // namespace tandem::testing

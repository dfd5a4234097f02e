#include "model/shape.h"

#include <cstring>
#include <fstream>
#include <iterator>

#include "formats/gguf/gguf.h"
#include "golden.h"
#include "model/decoder.h"
#include "status_matchers.h"

namespace tandem {
namespace {

using testing::fails_with;
using ::testing::HasSubstr;
using testing::is_ok;

std::vector<std::byte> file_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> chars((std::istreambuf_iterator<char>(file)), {});
  std::vector<std::byte> bytes(chars.size());
  std::memcpy(bytes.data(), chars.data(), chars.size());
  return bytes;
}

// A fixture model with one metadata value overwritten in place.
class ShapeTest : public ::testing::Test {
 protected:
  void open(const std::string& name) { bytes_ = file_bytes(testing::golden_model(name)); }

  template <typename T>
  void overwrite(const std::string& key, T value) {
    const auto file = GgufFile::parse(bytes_);
    ASSERT_THAT(file, is_ok());
    const MetadataEntry* entry = file->find(key);
    ASSERT_NE(entry, nullptr) << key;
    ASSERT_GE(entry->bytes.size(), sizeof(T)) << key;
    std::memcpy(bytes_.data() + offset_of(*entry), &value, sizeof(T));
  }

  void overwrite_text(const std::string& key, const std::string& text) {
    const auto file = GgufFile::parse(bytes_);
    ASSERT_THAT(file, is_ok());
    const auto old = file->get_string(key);
    ASSERT_THAT(old, is_ok());
    ASSERT_EQ(old->size(), text.size());
    const auto at =
        std::search(bytes_.begin(), bytes_.end(), reinterpret_cast<const std::byte*>(old->data()),
                    reinterpret_cast<const std::byte*>(old->data() + old->size()));
    std::memcpy(&*at, text.data(), text.size());
  }

  // Everywhere in the header; both names are equally long.
  void rename(std::string_view from, std::string_view to) {
    ASSERT_EQ(from.size(), to.size());
    const auto* first = reinterpret_cast<const std::byte*>(from.data());
    const auto at = std::search(bytes_.begin(), bytes_.end(), first, first + from.size());
    ASSERT_NE(at, bytes_.end()) << from;
    std::memcpy(&*at, to.data(), to.size());
  }

  Result<Program> build() {
    auto file = GgufFile::parse(bytes_);
    if (!file.ok()) return file.status();
    return build_decoder(*file);
  }

  std::vector<std::byte> bytes_;

 private:
  static size_t offset_of(const MetadataEntry& entry) {
    return static_cast<size_t>(entry.byte_offset);
  }
};

TEST_F(ShapeTest, ReadsTheNumbersOfAMixtureOfExperts) {
  open("qwen3moe");
  const auto program = build();
  ASSERT_THAT(program, is_ok());
  EXPECT_EQ(program->shape.n_experts, 8);
  EXPECT_EQ(program->shape.n_experts_used, 3);
  EXPECT_EQ(program->shape.ffn_width, 16);
  EXPECT_EQ(program->shape.architecture->rope, RopeStyle::kNeox);
}

TEST_F(ShapeTest, EveryHyperparameterAtItsExtremesIsRefusedByName) {
  for (const char* key :
       {"block_count", "embedding_length", "feed_forward_length", "attention.head_count",
        "attention.head_count_kv", "context_length", "rope.dimension_count"}) {
    for (const uint32_t value : {0u, 0x80000000u, 0xFFFFFFFFu}) {
      open("llama-mha");
      overwrite<uint32_t>(std::string("llama.") + key, value);
      EXPECT_THAT(build(), fails_with(Code::kCorrupt, HasSubstr(key))) << key << " = " << value;
    }
  }
}

TEST_F(ShapeTest, ExpertCountsThatContradictEachOtherAreRefused) {
  open("qwen3moe");
  overwrite<uint32_t>("qwen3moe.expert_used_count", 9);
  EXPECT_THAT(build(), fails_with(Code::kCorrupt, HasSubstr("expert_used_count is 9")));
  open("qwen3moe");
  overwrite<uint32_t>("qwen3moe.expert_count", 0);
  EXPECT_THAT(build(), fails_with(Code::kCorrupt, HasSubstr("expert_count")));
}

TEST_F(ShapeTest, HeadsThatDoNotShareEvenlyAreRefused) {
  open("qwen3moe");
  overwrite<uint32_t>("qwen3moe.attention.head_count_kv", 3);
  EXPECT_THAT(build(), fails_with(Code::kCorrupt, HasSubstr("divisor")));
}

TEST_F(ShapeTest, AWidthThatDoesNotMatchTheTensorsNamesBothShapes) {
  open("llama-mha");
  overwrite<uint32_t>("llama.feed_forward_length", 32);
  EXPECT_THAT(build(), fails_with(Code::kCorrupt, HasSubstr("expected [")));
}

TEST_F(ShapeTest, MoreLayersThanTensorsNamesTheMissingOne) {
  open("llama-mha");
  overwrite<uint32_t>("llama.block_count", 500);
  EXPECT_THAT(build(), fails_with(Code::kCorrupt, HasSubstr("is missing")));
}

TEST_F(ShapeTest, UnknownArchitectureNamesTheNearestRelative) {
  open("llama-mha");
  overwrite_text("general.architecture", "llamo");
  EXPECT_THAT(build(),
              fails_with(Code::kUnsupported, HasSubstr("nearest supported relative is 'llama'")));
}

TEST_F(ShapeTest, ASlidingWindowLeavesTheTrainedContextAsItIs) {
  open("mistral-window");
  const auto program = build();
  ASSERT_THAT(program, is_ok());
  EXPECT_EQ(program->shape.sliding_window, 20);
  EXPECT_EQ(program->shape.n_context_trained, 512);
}

TEST_F(ShapeTest, ATensorThatNothingReadsIsRefusedByName) {
  open("llama3-factors");
  rename("rope_freqs.weight", "rope_freqz.weight");
  EXPECT_THAT(build(), fails_with(Code::kUnsupported, HasSubstr("tensor rope_freqz.weight")));
  open("llama-mha");
  rename("blk.1.ffn_norm.weight", "blk.2.ffn_norm.weight");
  EXPECT_THAT(build(), fails_with(Code::kCorrupt, HasSubstr("blk.1.ffn_norm.weight is missing")));
}

TEST_F(ShapeTest, AKeyThatChangesTheComputationIsRefusedUnlessNeutral) {
  // A key of the fixture that is as long, holds a float and may be absent: the frequency base.
  const std::string spare = "llama.rope.freq_base", key = "llama.residual_scale";
  const auto build_with = [&](float value) {
    open("llama-mha");
    overwrite<float>(spare, value);
    rename(spare, key);
    return build();
  };
  EXPECT_THAT(build_with(0.5f),
              fails_with(Code::kUnsupported, HasSubstr("llama.residual_scale is 0.5")));
  EXPECT_THAT(build_with(1), is_ok());
  EXPECT_THAT(build_with(0), is_ok()) << "not set";
}

TEST_F(ShapeTest, WithoutAnEpsilonIsRefusedByTheKeysName) {
  open("llama-mha");
  rename("llama.attention.layer_norm_rms_epsilon", "llama.attention.layer_norm_rms_epsilox");
  EXPECT_THAT(build(),
              fails_with(Code::kNotFound, HasSubstr("llama.attention.layer_norm_rms_epsilon")));
}

TEST_F(ShapeTest, ABaseOfOneIsRefused) {
  open("llama-yarn");
  overwrite<float>("llama.rope.freq_base", 1);
  EXPECT_THAT(build(), fails_with(Code::kCorrupt, HasSubstr("rope.freq_base is 1")));
}

TEST_F(ShapeTest, NotANumberAsEpsilonIsRefused) {
  open("llama-mha");
  overwrite<float>("llama.attention.layer_norm_rms_epsilon", NAN);
  EXPECT_THAT(build(), fails_with(Code::kCorrupt, HasSubstr("layer_norm_rms_epsilon")));
}

}  // namespace
}  // namespace tandem

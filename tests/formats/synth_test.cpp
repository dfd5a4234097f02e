#include "formats/synth.h"

#include <fstream>
#include <iterator>
#include <set>

#include "formats/gguf/gguf.h"
#include "status_matchers.h"

namespace tandem {
namespace {

using namespace testing;
using ::testing::HasSubstr;

constexpr PublicShape kTinyMoe = {.name = "tiny",
                                  .architecture = "qwen3moe",
                                  .pre_tokenizer = "qwen2",
                                  .layers = 2,
                                  .width = 256,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .head_width = 64,
                                  .ff_width = 512,
                                  .experts = 8,
                                  .experts_used = 2,
                                  .expert_ff_width = 256,
                                  .vocabulary = 20000,
                                  .context = 4096,
                                  .rope_base = 1000000,
                                  .llama3_rope_factor = 0,
                                  .rms_epsilon = 1e-6f,
                                  .qk_norm = true,
                                  .tied_embeddings = false};
constexpr PublicShape kTinyLlama = {.name = "tiny",
                                    .architecture = "llama",
                                    .pre_tokenizer = "llama-bpe",
                                    .layers = 1,
                                    .width = 256,
                                    .heads = 4,
                                    .kv_heads = 2,
                                    .head_width = 64,
                                    .ff_width = 512,
                                    .experts = 0,
                                    .experts_used = 0,
                                    .expert_ff_width = 0,
                                    .vocabulary = 300,
                                    .context = 4096,
                                    .rope_base = 500000,
                                    .llama3_rope_factor = 8,
                                    .rms_epsilon = 1e-5f,
                                    .qk_norm = false,
                                    .tied_embeddings = true};

class Synth : public ::testing::Test {
 protected:
  SynthOptions options(DType type = DType::kQ4_K, uint64_t seed = 1) {
    return {.output = path_, .like = "", .n_layers = 0, .type = type, .seed = seed, .n_threads = 0};
  }
  std::string bytes_of(const PublicShape& shape, const SynthOptions& o) {
    const Status status = synthesize(shape, o, {}, cancel_);
    EXPECT_THAT(status, is_ok());
    std::ifstream stream(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  size_t files_in_folder() {
    return static_cast<size_t>(
        std::distance(std::filesystem::directory_iterator(folder_.path()), {}));
  }

  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "m.gguf";
  CancelFlag cancel_;
};

TEST_F(Synth, WritesAMixtureOfExpertsThatTheReaderOpens) {
  ASSERT_THAT(synthesize(kTinyMoe, options(), {}, cancel_), is_ok());
  auto file = GgufFile::open(path_);
  ASSERT_THAT(file, is_ok());
  EXPECT_EQ(*file->get_uint("qwen3moe.expert_count"), 8u);
  EXPECT_EQ(file->get_string_array("tokenizer.ggml.tokens")->size(), 20000u);
  const TensorInfo* down = file->find_tensor("blk.1.ffn_down_exps.weight");
  ASSERT_NE(down, nullptr);
  EXPECT_EQ(down->type.name, "q4_k");
  EXPECT_EQ(down->dims, (std::array<uint64_t, 4>{256, 256, 8, 1}));
  EXPECT_EQ(file->find_tensor("blk.0.ffn_gate_inp.weight")->type.name, "f32");
  EXPECT_NE(file->find_tensor("blk.0.attn_q_norm.weight"), nullptr);
  EXPECT_EQ(file->find_tensor("blk.2.attn_q.weight"), nullptr);
}

TEST_F(Synth, WritesADenseModelInEveryType) {
  for (DType type : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0,
                     DType::kQ4_K, DType::kQ6_K}) {
    ASSERT_THAT(synthesize(kTinyLlama, options(type), {}, cancel_), is_ok());
    auto file = GgufFile::open(path_);
    ASSERT_THAT(file, is_ok());
    EXPECT_EQ(file->find_tensor("token_embd.weight")->type.id, static_cast<uint32_t>(type));
    EXPECT_EQ(file->find_tensor("output.weight"), nullptr) << "tied";
    EXPECT_EQ(file->find_tensor("rope_freqs.weight")->dims[0], 32u);
  }
}

TEST_F(Synth, TokensAreDistinctAndCoverEveryByte) {
  ASSERT_THAT(synthesize(kTinyLlama, options(), {}, cancel_), is_ok());
  auto file = GgufFile::open(path_);
  ASSERT_THAT(file, is_ok());
  const auto tokens = *file->get_string_array("tokenizer.ggml.tokens");
  EXPECT_EQ(std::set<std::string_view>(tokens.begin(), tokens.end()).size(), tokens.size());
  EXPECT_EQ(tokens['A'], "A");
  EXPECT_EQ(tokens[' '], "\u0120");
  EXPECT_EQ(tokens['\n'], "\u010a");
  EXPECT_EQ(tokens[0xff], "\u00ff");
  EXPECT_EQ(tokens[0xad], "\u0143");
  EXPECT_EQ(tokens[*file->get_uint("tokenizer.ggml.eos_token_id")], "<|eos|>");
  const auto types = *file->get_int_array("tokenizer.ggml.token_type");
  EXPECT_EQ(types[65], 1);
  EXPECT_EQ(types[256], 3);
  EXPECT_EQ(types[299], 5);
}

TEST_F(Synth, TheSameSeedGivesTheSameFileOnAnyNumberOfThreads) {
  const std::string first = bytes_of(kTinyMoe, options());
  for (unsigned n_threads : {1u, 5u}) {
    SynthOptions o = options();
    o.n_threads = n_threads;
    EXPECT_TRUE(bytes_of(kTinyMoe, o) == first) << n_threads;
  }
  EXPECT_FALSE(bytes_of(kTinyMoe, options(DType::kQ4_K, 2)) == first);
}

TEST_F(Synth, ReportsProgressToTheEnd) {
  std::vector<Progress> reports;
  ASSERT_THAT(synthesize(
                  kTinyMoe, options(), [&](const Progress& p) { reports.push_back(p); }, cancel_),
              is_ok());
  ASSERT_FALSE(reports.empty());
  EXPECT_EQ(reports.back().stage, Stage::kWrite);
  EXPECT_EQ(reports.back().done, reports.back().total);
  EXPECT_LE(reports.back().total, std::filesystem::file_size(path_));
}

TEST_F(Synth, ACancelLeavesNothing) {
  cancel_.cancel();
  EXPECT_THAT(synthesize(kTinyMoe, options(), {}, cancel_),
              fails_with(Code::kCancelled, HasSubstr("cancelled")));
  EXPECT_EQ(files_in_folder(), 0u);
}

TEST_F(Synth, NamesTheKnownShapes) {
  SynthOptions o = options();
  o.like = "gpt-5";
  EXPECT_THAT(synthesize(o, {}, cancel_),
              fails_with(Code::kInvalidArgument, HasSubstr("llama-3.1-8b")));
}

TEST_F(Synth, SaysHowLargeAPublicModelWouldBe) {
  SynthOptions o = options();
  o.like = "qwen3-30b-a3b";
  const auto bytes = synthesized_bytes(o);
  ASSERT_THAT(bytes, is_ok());
  // 30.5 thousand million weights of 4.5 bits.
  EXPECT_NEAR(static_cast<double>(*bytes), 30.53e9 * 4.5 / 8, 0.05e9);
  o.like = "llama-3.2-1b";
  EXPECT_NEAR(static_cast<double>(*synthesized_bytes(o)), 1.236e9 * 4.5 / 8, 0.01e9);
  o.n_layers = 100000;
  EXPECT_THAT(synthesized_bytes(o), fails_with(Code::kInvalidArgument, HasSubstr("layers")));
}

TEST_F(Synth, RefusesADriveWithoutRoom) {
  SynthOptions o = options(DType::kF32);
  o.like = "qwen3-235b-a22b";
  o.n_layers = 1000;
  const auto bytes = synthesized_bytes(o);
  ASSERT_THAT(bytes, is_ok());
  if (std::filesystem::space(folder_.path()).available > *bytes)
    GTEST_SKIP() << "ten terabytes are free";
  EXPECT_THAT(synthesize(o, {}, cancel_),
              fails_with(Code::kIo, HasSubstr("are free on this drive")));
  EXPECT_EQ(files_in_folder(), 0u);
}

TEST(PublicShapes, AreWholeBlocksInEveryFormat) {
  for (const PublicShape& shape : public_shapes()) {
    EXPECT_EQ(shape.width % 256, 0u) << shape.name;
    EXPECT_EQ(shape.heads * shape.head_width % 256, 0u) << shape.name;
    EXPECT_EQ((shape.experts > 0 ? shape.expert_ff_width : shape.ff_width) % 256, 0u) << shape.name;
    EXPECT_EQ(shape.heads % shape.kv_heads, 0u) << shape.name;
    EXPECT_EQ(find_public_shape(shape.name), &shape);
  }
}

}  // namespace
}  // namespace tandem

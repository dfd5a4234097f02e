#include "model/program.h"

#include "formats/gguf/gguf.h"
#include "golden.h"
#include "model/decoder.h"
#include "status_matchers.h"

namespace tandem {
namespace {

using testing::is_ok;

Program program_of(const std::string& name) {
  auto file = GgufFile::open(testing::golden_model(name));
  if (!file.ok()) {
    ADD_FAILURE() << file.status().to_string();
    return {};
  }
  auto program = build_decoder(*file);
  if (!program.ok()) {
    ADD_FAILURE() << program.status().to_string();
    return {};
  }
  return std::move(program).value();
}

TEST(Program, ReadsOnlyTheUsedExpertsPerToken) {
  const Program program = program_of("qwen3moe");
  const ModelShape& s = program.shape;
  const int64_t attention =
      s.width * (s.query_width() + 2 * s.kv_width()) + s.query_width() * s.width;
  const int64_t norms = 2 * s.width + 2 * s.head_width;
  const int64_t experts = s.n_experts_used * 3 * s.width * s.ffn_width;
  const int64_t layer = attention + norms + s.width * s.n_experts + experts;
  const int64_t head = s.width + s.width * s.n_vocabulary;
  EXPECT_EQ(program.bytes_per_token(),
            static_cast<uint64_t>(s.n_layers * layer + head) * sizeof(float));
}

TEST(Program, CountsActiveParametersWithTheEmbeddingOnce) {
  const Program tied = program_of("qwen2-tied");
  EXPECT_EQ(tied.n_active_parameters(), tied.n_parameters());
  const Program untied = program_of("llama-mha");
  EXPECT_EQ(untied.n_active_parameters(), untied.n_parameters());
  const Program routed = program_of("qwen3moe");
  EXPECT_LT(routed.n_active_parameters(), routed.n_parameters());
}

TEST(Program, EachExpertIsOneBlockOfThreeExtents) {
  const Program program = program_of("mixtral");
  int64_t n_expert_blocks = 0;
  for (const BlockSpec& block : program.blocks) {
    if (block.name.find("expert") == std::string::npos) continue;
    ++n_expert_blocks;
    EXPECT_EQ(block.extents.size(), 3u) << block.name;
  }
  EXPECT_EQ(n_expert_blocks, program.shape.n_layers * program.shape.n_experts);
}

TEST(Program, EveryOperationReadsValuesThatWereWrittenBefore) {
  for (const char* name :
       {"llama-mha", "qwen2-tied", "qwen3", "mixtral", "qwen3moe", "qwen3moe-q4_k"}) {
    const Program program = program_of(name);
    std::vector<bool> written(program.values.size(), false);
    for (const Op& op : program.ops) {
      for (const ValueId in : op.in) {
        EXPECT_TRUE(in == kNoId || written[in]) << name << ": value " << in;
      }
      if (op.out != kNoId) written[op.out] = true;
      if (op.out2 != kNoId) written[op.out2] = true;
    }
    EXPECT_TRUE(written[program.logits]) << name;
  }
}

}  // namespace
}  // namespace tandem

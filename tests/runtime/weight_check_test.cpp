#include "runtime/weight_check.h"

#include <cstdint>
#include <filesystem>
#include <fstream>

#include "runtime/engine.h"
#include "status_matchers.h"

namespace tandem {
namespace {

using namespace testing;
using ::testing::HasSubstr;

class WeightCheck : public ::testing::Test {
 protected:
  WeightCheck() { std::filesystem::copy_file(TANDEM_FIXTURES "/golden/llama-q8_0.gguf", path_); }

  // Gives the scale of a tensor's first block a bit pattern.
  void damage(const char* tensor, uint16_t bits) {
    const auto file = GgufFile::open(path_);
    ASSERT_THAT(file, is_ok());
    const TensorInfo* info = file->find_tensor(tensor);
    ASSERT_NE(nullptr, info);
    ASSERT_EQ("q8_0", info->type.name);
    std::fstream stream(path_, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(static_cast<std::streamoff>(info->extent.offset));
    stream.write(reinterpret_cast<const char*>(&bits), sizeof(bits));
    ASSERT_TRUE(stream.good());
  }

  Status load(unsigned n_threads) {
    const auto model = Model::open(path_);
    EXPECT_THAT(model, is_ok());
    EngineOptions options;
    options.n_threads = n_threads;
    options.n_context = 64;
    return Engine::create(**model, options).status();
  }

  static constexpr uint16_t kNan = 0x7e00, kInfinity = 0x7c00;  // half precision

  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "m.gguf";
};

TEST_F(WeightCheck, SoundWeightsPass) { EXPECT_THAT(load(2), is_ok()); }

TEST_F(WeightCheck, NamesTheTensorThatHoldsAnInfinity) {
  damage("blk.1.ffn_up.weight", kInfinity);
  const Status status = load(2);
  EXPECT_THAT(status, fails_with(Code::kCorrupt, HasSubstr("blk.1.ffn_up.weight")));
  EXPECT_EQ("blk.1.ffn_up.weight", status.tensor());
  EXPECT_EQ(path_.string(), status.file());
  const auto file = GgufFile::open(path_);
  ASSERT_THAT(file, is_ok());
  EXPECT_EQ(file->find_tensor("blk.1.ffn_up.weight")->extent.offset, status.offset());
}

TEST_F(WeightCheck, NamesTheSameOfSeveralForAnyNumberOfThreads) {
  damage("blk.0.attn_k.weight", kNan);
  damage("blk.0.ffn_down.weight", kNan);
  damage("blk.1.attn_q.weight", kInfinity);
  for (const unsigned n_threads : {1u, 2u, 8u}) {
    for (int round = 0; round < 10; ++round) {
      EXPECT_THAT(load(n_threads), fails_with(Code::kCorrupt, HasSubstr("blk.0.attn_k.weight")));
    }
  }
}

}  // namespace
}  // namespace tandem

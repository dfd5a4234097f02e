#include "dispatch/weight_tiles.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "hybrid.h"

namespace tandem {
namespace {

using testing::fails_with;
using testing::is_ok;

const cpu::KernelTable& kernels() { return *cpu::table_for(cpu::best_isa()); }

Status pack(hybrid::Model& model, const Placement* placement) {
  return put_into_tiles(model.program, placement, kernels(), *model.store, 2, {}, model.never);
}

size_t n_in_tiles(const hybrid::Model& model) {
  const auto& weights = model.program.weights;
  return static_cast<size_t>(std::count_if(weights.begin(), weights.end(), [&](const Weight& w) {
    return model.store->in_tiles(w.block, w.extent);
  }));
}

class WeightTiles : public ::testing::TestWithParam<const char*> {
 protected:
  // Logits of a model whose weights lie as the file has them, and in tiles where the placement lets them.
  void expect_same_bits(const Placement& placement, const std::string& name) {
    hybrid::Model rows{GetParam()}, tiles{GetParam()};
    const Placement* const given = placement.blocks.empty() ? nullptr : &placement;
    EXPECT_THAT(pack(tiles, given), is_ok());
    const auto expected = hybrid::Evaluation(rows, hybrid::all_on_cpu(), {}).run();
    EXPECT_EQ(hybrid::Evaluation(tiles, placement, {}).run(), expected) << name;
  }
};

TEST_P(WeightTiles, GiveTheLogitsOfRowsWithAndWithoutADevice) {
  const hybrid::Model model{GetParam()};
  expect_same_bits(hybrid::all_on_cpu(), "CPU");
  expect_same_bits(hybrid::placed(model, kOnDevice), "device");
  expect_same_bits(hybrid::placed(model, kInDram), "device without weights");
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    expect_same_bits(hybrid::random_placement(model, seed), "random " + std::to_string(seed));
  }
  if (model.program.shape.has_experts()) {
    expect_same_bits(hybrid::cached(model, 3), "three slots");
    expect_same_bits(hybrid::cached(model, 0), "no slot");
  }
}

TEST_P(WeightTiles, HoldEveryQuantisedMatrixOfTheCpu) {
  hybrid::Model model{GetParam()};
  EXPECT_EQ(n_in_tiles(model), 0u);
  ASSERT_THAT(pack(model, nullptr), is_ok());
  for (const Weight& weight : model.program.weights) {
    const bool quantised = cpu::quantised_of(kernels(), weight.type) != nullptr;
    EXPECT_EQ(model.store->in_tiles(weight.block, weight.extent),
              quantised && weight.rows % 16 == 0)
        << model.program.blocks[weight.block].name;
  }
  EXPECT_GT(n_in_tiles(model), 0u);
}

TEST_P(WeightTiles, LeaveAloneWhatADeviceReads) {
  hybrid::Model model{GetParam()};
  for (const Placement& placement :
       {hybrid::placed(model, kOnDevice), hybrid::placed(model, kStreamed)}) {
    ASSERT_THAT(pack(model, &placement), is_ok());
    EXPECT_EQ(n_in_tiles(model), 0u);
  }
  if (!model.program.shape.has_experts()) return;
  const Placement cached = hybrid::cached(model, 3);
  ASSERT_THAT(pack(model, &cached), is_ok());
  EXPECT_EQ(n_in_tiles(model), 0u) << "experts may be copied to the device";
}

TEST_P(WeightTiles, AreMadeOnce) {
  hybrid::Model once{GetParam()}, twice{GetParam()};
  ASSERT_THAT(pack(once, nullptr), is_ok());
  ASSERT_THAT(pack(twice, nullptr), is_ok());
  ASSERT_THAT(pack(twice, nullptr), is_ok());
  for (const Weight& weight : once.program.weights) {
    const size_t bytes = weight.row_bytes() * static_cast<size_t>(weight.rows);
    EXPECT_EQ(0, std::memcmp(once.store->data(weight.block, weight.extent),
                             twice.store->data(weight.block, weight.extent), bytes));
  }
}

TEST_P(WeightTiles, AreRowsAgainAfterLoadingAgain) {
  hybrid::Model model{GetParam()};
  ASSERT_THAT(pack(model, nullptr), is_ok());
  ASSERT_THAT(model.store->load_all({}, model.never), is_ok());
  EXPECT_EQ(n_in_tiles(model), 0u);
  hybrid::Model fresh{GetParam()};
  EXPECT_EQ(hybrid::Evaluation(model, hybrid::all_on_cpu(), {}).run(),
            hybrid::Evaluation(fresh, hybrid::all_on_cpu(), {}).run());
}

TEST_P(WeightTiles, TellHowFarTheyAreAndCanBeCancelled) {
  hybrid::Model model{GetParam()};
  uint64_t done = 0, total = 0;
  const auto progress = [&](const Progress& p) {
    EXPECT_EQ(p.stage, Stage::kPack);
    EXPECT_GE(p.done, done);
    done = p.done;
    total = p.total;
  };
  ASSERT_THAT(
      put_into_tiles(model.program, nullptr, kernels(), *model.store, 2, progress, model.never),
      is_ok());
  EXPECT_GT(total, 0u);
  EXPECT_EQ(done, total);
  hybrid::Model other{GetParam()};
  CancelFlag cancel;
  cancel.cancel();
  EXPECT_THAT(put_into_tiles(other.program, nullptr, kernels(), *other.store, 2, {}, cancel),
              fails_with(Code::kCancelled, ::testing::HasSubstr("cancelled")));
}

INSTANTIATE_TEST_SUITE_P(Models, WeightTiles, ::testing::Values("llama-q4_0", "llama-q4_k", "llama-q6_k", "qwen3moe-q4_k"),
                         [](const auto& model) {
                           std::string name = model.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace tandem

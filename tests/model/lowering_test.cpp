#include "model/lowering.h"

#include <algorithm>

#include "formats/gguf/gguf.h"
#include "golden.h"
#include "model/decoder.h"
#include "status_matchers.h"

namespace tandem {
namespace {

using testing::is_ok;

class LoweringTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto file = GgufFile::open(testing::golden_model(GetParam()));
    ASSERT_THAT(file, is_ok());
    auto program = build_decoder(*file);
    ASSERT_THAT(program, is_ok());
    program_ = std::move(program).value();
  }

  static std::vector<ValueId> touched(const Op& op) {
    std::vector<ValueId> values;
    for (const ValueId v : {op.in[0], op.in[1], op.in[2], op.out, op.out2}) {
      if (v != kNoId) values.push_back(v);
    }
    return values;
  }

  Program program_;
};

TEST_P(LoweringTest, StepsCoverEveryOperationOnceInOrder) {
  const LoweredProgram lowered = lower(program_, {16, 4, 2});
  uint32_t next = 0;
  for (const Step& step : lowered.steps) {
    EXPECT_EQ(step.first_op, next);
    EXPECT_GT(step.n_ops, 0u);
    next += step.n_ops;
  }
  EXPECT_EQ(next, program_.ops.size());
  EXPECT_EQ(lowered.steps[lowered.first_output_step].first_op, program_.first_output_op);
}

TEST_P(LoweringTest, ValuesThatAreAliveTogetherNeverOverlap) {
  const LoweredProgram lowered = lower(program_, {16, 4, 2});
  const size_t n = program_.values.size();
  std::vector<size_t> first(n, SIZE_MAX), last(n, 0);
  for (size_t s = 0; s < lowered.steps.size(); ++s) {
    const Step& step = lowered.steps[s];
    for (uint32_t i = step.first_op; i < step.first_op + step.n_ops; ++i) {
      for (const ValueId v : touched(program_.ops[i])) {
        first[v] = std::min(first[v], s);
        last[v] = std::max(last[v], s);
      }
    }
  }
  const auto rows = [&](ValueId v) -> size_t {
    switch (program_.values[v].rows) {
      case RowSpace::kTokens:
        return 16;
      case RowSpace::kPairs:
        return 16 * static_cast<size_t>(program_.shape.n_experts_used);
      case RowSpace::kOutputs:
        return 4;
      case RowSpace::kStep:
        return 1;
    }
    return 0;
  };
  for (ValueId a = 0; a < n; ++a) {
    EXPECT_EQ(lowered.offset[a] % 64, 0u);
    EXPECT_LE(lowered.offset[a] + rows(a) * lowered.row_bytes[a], lowered.arena_bytes);
    for (ValueId b = a + 1; b < n; ++b) {
      if (last[a] < first[b] || last[b] < first[a]) continue;
      const bool apart = lowered.offset[a] + rows(a) * lowered.row_bytes[a] <= lowered.offset[b] ||
                         lowered.offset[b] + rows(b) * lowered.row_bytes[b] <= lowered.offset[a];
      EXPECT_TRUE(apart) << "values " << a << " and " << b;
    }
  }
}

TEST_P(LoweringTest, ProductsOfOneStepDoNotReadEachOther) {
  const LoweredProgram lowered = lower(program_, {16, 4, 2});
  for (const Step& step : lowered.steps) {
    if (step.kind != StepKind::kMatmuls && step.kind != StepKind::kExpertMatmuls) continue;
    for (uint32_t i = step.first_op; i < step.first_op + step.n_ops; ++i) {
      for (uint32_t j = step.first_op; j < step.first_op + step.n_ops; ++j) {
        EXPECT_NE(program_.ops[i].in[0], program_.ops[j].out);
      }
    }
  }
}

TEST_P(LoweringTest, RangesCoverTheRowsOfEveryProduct) {
  for (const unsigned n_threads : {1u, 3u, 64u}) {
    const LoweredProgram lowered = lower(program_, {1, 1, n_threads});
    for (const Step& step : lowered.steps) {
      if (step.kind != StepKind::kMatmuls && step.kind != StepKind::kExpertMatmuls) continue;
      int64_t ranges = 0;
      for (uint32_t i = step.first_op; i < step.first_op + step.n_ops; ++i) {
        const int64_t rows = program_.weights[program_.ops[i].weight].rows;
        ranges += (rows + step.rows_per_item - 1) / step.rows_per_item;
      }
      EXPECT_EQ(step.n_ranges, ranges);
      EXPECT_GE(step.rows_per_item, 1);
    }
  }
}

TEST_P(LoweringTest, QueryKeyAndValueProductsShareAStep) {
  const LoweredProgram lowered = lower(program_, {1, 1, 2});
  const auto first = std::find_if(lowered.steps.begin(), lowered.steps.end(),
                                  [](const Step& step) { return step.kind == StepKind::kMatmuls; });
  ASSERT_NE(first, lowered.steps.end());
  EXPECT_EQ(first->n_ops, 3u);
}

TEST_P(LoweringTest, WhatARouterChoseLiesBesideTheRowsOfItsExperts) {
  const LoweredProgram lowered = lower(program_, {1, 1, 2});
  for (size_t i = 0; i < program_.ops.size(); ++i) {
    const Op& list = program_.ops[i];
    if (list.kind != OpKind::kListPairs) continue;
    const Op& gather = program_.ops[i + 1];
    ASSERT_EQ(gather.kind, OpKind::kGatherPairs);
    EXPECT_TRUE(lowered.are_neighbours(program_, list.in[0], gather.in[0]))
        << "layer " << list.layer;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, LoweringTest,
                         ::testing::Values("llama-mha", "qwen2-tied", "qwen3", "mixtral",
                                           "qwen3moe", "qwen3moe-q4_k", "llama-q4_0"),
                         [](const auto& model) {
                           std::string name = model.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace tandem

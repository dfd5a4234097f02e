// The operation graph of a model: typed values, operations on them, and the weights they read.
//
// A Program says what is computed, not where or in which memory.  It is built once per model (decoder.h) and lowered
// per batch capacity to flat arrays (lowering.h), which the executor walks.  Nothing in it depends on a step: tokens,
// positions and the experts' lists are the only things that vary.
//
// Threading and ownership: plain data, immutable once built.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "device/operation.h"
#include "memory/block_store.h"
#include "model/shape.h"

namespace tandem {

using ValueId = uint32_t;
using WeightId = uint32_t;
inline constexpr uint32_t kNoId = UINT32_MAX;

// Who computes an operation.
enum class Processor : uint8_t {
  kCpu,
  kDevice,
  kBoth,  // each its own share: of the experts, of the pages
};

enum class ValueType : uint8_t {
  kF32,          // width floats per row
  kQ8A,          // width/32 BlockQ8A per row
  kI32,          // width int32 per row
  kExpertLists,  // one per step: which pairs each expert computes (see ExpertLists)
  kPartials,     // width floats per row and slot; the CPU's alone (see Partials)
};

struct Value {
  ValueType type = ValueType::kF32;
  RowSpace rows = RowSpace::kTokens;
  int64_t width = 0;
};

struct Op {
  OpKind kind = OpKind::kEmbed;
  int32_t layer = -1;
  ValueId in[3] = {kNoId, kNoId, kNoId};
  ValueId out = kNoId;
  ValueId out2 = kNoId;
  WeightId weight = kNoId;
};

// A matrix [rows, cols] or a vector [cols] inside a block.
struct Weight {
  BlockId block = 0;
  uint32_t extent = 0;
  DType type = DType::kF32;
  int64_t rows = 1;
  int64_t cols = 0;

  size_t row_bytes() const {
    const DTypeInfo& info = dtype_info(type);
    return static_cast<size_t>(cols) / info.block_weights * info.block_bytes;
  }
};

struct Program {
  ModelShape shape;
  std::vector<Value> values;
  std::vector<Op> ops;
  std::vector<Weight> weights;
  std::vector<BlockSpec> blocks;
  uint32_t first_output_op = 0;   // from here on: the logits of chosen rows
  ValueId logits = kNoId;         // [R,V]
  WeightId rope_factors = kNoId;  // [n_rot/2], Llama 3

  // Bytes of weights that one decoded token reads: all but the embedding table, used experts only.
  uint64_t bytes_per_token() const;
  uint64_t n_parameters() const;
  uint64_t n_active_parameters() const;
};

}  // namespace tandem

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
#include "memory/block_store.h"
#include "model/shape.h"

namespace tandem {

using ValueId = uint32_t;
using WeightId = uint32_t;
inline constexpr uint32_t kNoId = UINT32_MAX;

// How many rows a value has in a step of T tokens with U experts each and R rows of logits.
enum class RowSpace : uint8_t {
  kTokens,   // T
  kPairs,    // T*U, one row per (token, expert), grouped by expert
  kOutputs,  // R
  kStep,     // 1
};

enum class ValueType : uint8_t {
  kF32,          // width floats per row
  kQ8A,          // width/32 BlockQ8A per row
  kI32,          // width int32 per row
  kExpertLists,  // one per step: which pairs each expert computes (see ExpertLists)
};

struct Value {
  ValueType type = ValueType::kF32;
  RowSpace rows = RowSpace::kTokens;
  int64_t width = 0;
};

// "updates" means that out is also in[0] and is overwritten.
enum class OpKind : uint8_t {
  kEmbed,         // out [T,D] = row ids[t] of the weight [V,D]
  kRopeAngles,    // out [T,n_rot] = cos, then sin, of the position's angles
  kNorm,          // out = RMS norm of in[0], times the weight
  kQuantize,      // out (Q8A) = in[0] in int8 blocks of 32
  kMatmul,        // out [T,N] = in[0] [T,K] x weight [N,K]
  kBias,          // updates: += weight
  kHeadNorm,      // updates: RMS norm of each head of head_width, times the weight [E]
  kRope,          // updates: rotates each head by the angles in in[1]
  kStoreKv,       // appends keys in[0] and values in[1] to the layer's pages
  kAttend,        // out [T,H*E] = attention of queries in[0] over the layer's pages
  kAdd,           // updates: += in[1]
  kSiluMul,       // out = silu(in[0]) * in[1]
  kRoute,         // in[0] [T,X]: out [T,U] expert ids, out2 [T,U] weights
  kListPairs,     // in[0] ids: out lists of pairs by expert
  kGatherPairs,   // out [T*U,..] = rows of in[0] in the order of the lists in[1]
  kExpertMatmul,  // out [T*U,N] = in[0] x weight of each row's expert (weight + e), lists in[1]
  kCombine,  // out [T,D] = sum over u, in order, of in[2][t,u] * row of pair (t,u) of in[0]; lists in[1]
  kGatherOutputs,  // out [R,D] = rows of in[0] whose logits are wanted
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

// Arrays of int32 behind a kExpertLists value.  X experts, P = T*U pairs; pair t*U+u is token t's u-th expert.
struct ExpertLists {
  int32_t* n_active;  // [1] experts with at least one pair
  int32_t* active;    // [X] their ids, ascending
  int32_t* begin;     // [X+1] expert e owns rows begin[e] .. begin[e+1] of the pair-ordered values
  int32_t* pair_at;   // [P] which pair stands in a row
  int32_t* row_of;    // [P] in which row a pair stands

  static size_t count(int64_t n_experts, int64_t n_pairs) {
    return static_cast<size_t>(1 + n_experts + n_experts + 1 + 2 * n_pairs);
  }
  // Views `memory` of count(n_experts, capacity) elements.
  static ExpertLists over(int32_t* memory, int64_t n_experts, int64_t n_pairs) {
    ExpertLists lists{};
    lists.n_active = memory;
    lists.active = lists.n_active + 1;
    lists.begin = lists.active + n_experts;
    lists.pair_at = lists.begin + n_experts + 1;
    lists.row_of = lists.pair_at + n_pairs;
    return lists;
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

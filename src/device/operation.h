// An operation of a Program made ready for one processor: what is computed, and where its operands
// lie in that processor's memory.
//
// The same struct is computed by the thread team on the CPU, by the mirror device (both through
// host_compute.h) and by CUDA kernels.  Everything in it is constant from step to step, so that a
// captured graph stays valid; what varies stands in the StepInput, in the processor's memory too.
//
// Threading and ownership: plain data; refers to memory that its maker keeps alive.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/blocks.h"
#include "base/dtype.h"

namespace tandem {

// How many rows a value has in a step of T tokens with U experts each and R rows of logits.
enum class RowSpace : uint8_t {
  kTokens,  // T
  kPairs,  // one row per (token, expert) that this processor computes, grouped by expert; T*U if it computes all
  kOutputs,  // R
  kStep,     // 1
};

// "updates" means that out is also in[0] and is overwritten.
enum class OpKind : uint8_t {
  kEmbed,       // out [T,D] = row ids[t] of the weight [V,D]
  kRopeAngles,  // out [T,n_rot] = cos, then sin, of the position's angles
  kNorm,        // out = RMS norm of in[0], times the weight
  kQuantize,    // out (Q8A) = in[0] in int8 blocks of 32
  kMatmul,      // out [T,N] = in[0] [T,K] x weight [N,K]
  kBias,        // updates: += weight
  kHeadNorm,    // updates: RMS norm of each head of head_width, times the weight [E]
  kRope,        // updates: rotates each head by the angles in in[1]
  // Appends keys in[0] and values in[1] to the layer's pages; not those whose page the processor does not have.
  kStoreKv,
  kAttend,  // out [T,H*E] = attention of queries in[0] over the layer's pages
  // out [T, slots] = partial attention of queries in[0] over those of the layer's pages that the processor has (see
  // Partials).
  kAttendPages,
  // out [T,H*E] = attention of queries in[2] over all pages, merged in their order: partials in[0] of its own pages,
  // in[1] of the other processor's.  Own pages for which in[0] has no slot are attended to here.
  kMergePages,
  kAdd,      // updates: += in[1]
  kSiluMul,  // out = silu(in[0]) * in[1]
  kRoute,    // in[0] [T,X]: out [T,U] expert ids, out2 [T,U] weights
  kListPairs,  // in[0] ids: out lists of the pairs by expert, of those experts that this processor has
  kGatherPairs,   // out [pairs,..] = rows of in[0] in the order of the lists in[1]
  kExpertMatmul,  // out [pairs,N] = in[0] x weight of each row's expert, lists in[1]
  // out [T,D] = sum over u, in order, of in[2][t,u] * row of pair (t,u) of in[0]; lists in[1].  Pairs that are not in
  // these lists are taken from other_rows by other_lists.
  kCombine,
  kGatherOutputs,  // out [R,D] = rows of in[0] whose logits are wanted
};

inline constexpr int kNumOpKinds = static_cast<int>(OpKind::kGatherOutputs) + 1;

// "matmul": of traces, profiles and messages.
std::string_view operation_name(OpKind kind);

enum class RopeStyle : uint8_t {
  kNormal,  // pairs (2i, 2i+1)
  kNeox,    // pairs (i, i + n_rot/2)
};

// kQ8_0: each head's E values as E/32 BlockQ8_0.  Requires: E % 32 == 0.
enum class KvType : int { kF16 = 0, kF32 = 1, kQ8_0 = 2 };

// Of one position, one key-value head.
constexpr size_t kv_row_bytes(KvType type, int64_t head_width) {
  const auto width = static_cast<size_t>(head_width);
  if (type == KvType::kQ8_0) return width / 32 * sizeof(BlockQ8_0);
  return width * (type == KvType::kF16 ? 2 : 4);
}

inline constexpr int64_t kPageTokens = 64;

// The numbers of a model that operations need.
struct OperationConstants {
  int64_t n_heads = 0, n_kv_heads = 0, head_width = 0;  // H, G, E
  int64_t n_rot = 0;                          // leading elements of a head that are rotated
  int64_t n_experts = 0, n_experts_used = 0;  // X, U
  int64_t sliding_window = 0;                 // 0: none
  float norm_epsilon = 0;
  RopeStyle rope = RopeStyle::kNormal;
  double rope_magnitude = 1;
  KvType kv_type = KvType::kF16;

  size_t kv_row_bytes() const { return tandem::kv_row_bytes(kv_type, head_width); }
  // One key-value head of a page: [64,E].
  size_t kv_head_bytes() const { return static_cast<size_t>(kPageTokens) * kv_row_bytes(); }
  size_t kv_page_bytes() const { return static_cast<size_t>(n_kv_heads) * kv_head_bytes(); }
};

// What varies from step to step.  Lies in the memory of the processor that reads it, and so do the arrays.
struct StepInput {
  int64_t n_tokens = 0;          // T
  int64_t first_position = 0;    // of token 0
  int64_t first_output = 0;      // row of the step that output row 0 shows
  int64_t n_outputs = 0;         // R
  const int32_t* ids = nullptr;  // [T]
  // [pages] where the keys and values of 64 positions lie that this processor has, null where it has them not: for
  // its kv_slot-th layer K at kv_slot * 2 * kv_page_bytes(), V behind it.
  std::byte* const* pages = nullptr;
};

// Rows in a processor's memory.  On a device `data` is its address: host code must not follow it.
struct Operand {
  std::byte* data = nullptr;
  size_t row_bytes = 0;  // from one row to the next
  size_t bytes = 0;      // of all rows, at the capacity of what it was made for
};

struct Operation {
  OpKind kind = OpKind::kEmbed;
  RowSpace rows = RowSpace::kTokens;  // of out; of in[0] where there is no out
  int32_t layer = -1;
  int32_t index = -1;    // which of its Program's operations it is: for whoever measures
  int32_t kv_slot = -1;  // keys and values: which of the layers whose pages lie here
  int64_t width = 0;     // elements of a row of out; of in[0] where there is no out
  Operand in[3], out, out2;
  Operand other_rows,
      other_lists;  // kCombine: what the other processor computed; null where it computes nothing

  // Operations on pairs: how many there are, in the lists.
  const int32_t* n_pairs = nullptr;

  // A matrix [rows, cols] or vector [cols] in the file's layout, or in tiles; for kRopeAngles the frequencies, double [n_rot/2].
  const std::byte* weight = nullptr;
  DType weight_type = DType::kF32;
  int64_t weight_rows = 1, weight_cols = 0;
  size_t weight_row_bytes = 0;
  bool weight_in_tiles = false;  // of sixteen rows, see kernels_cpu/tiles.h; those of all experts
  // kListPairs, kExpertMatmul: [X] each expert's matrix; null: the other processor computes it.
  const std::byte* const* experts = nullptr;

  const OperationConstants* constants =
      nullptr;  // host memory, read when the operation is submitted
  const StepInput* step = nullptr;

  // What to add to an address found in memory (step->ids, step->pages[i], experts[e]) to follow it: 0, but in the
  // mirror, whose threads see device memory elsewhere than its addresses say.
  ptrdiff_t shift = 0;
};

// Slots of partial attention, in a row of kAttendPages and for one of its key-value heads g with its R = H/G query heads:
//   slot i at i*H*(2+E) + g*R*(2+E):  maxima [R], sums [R], values [R,E]
// as AttendPage (kernels_cpu/kernels.h) gives them.  Pages are counted from the first that the token sees.  A processor
// that has this one folds it and its own that follow without a gap into slot 0: any other fold would change bits.  Each
// further page of its own has the next slot, as long as there are slots.
struct Partials {
  static int64_t slot_floats(int64_t n_heads, int64_t head_width) {
    return n_heads * (2 + head_width);
  }
};

// Arrays of int32 behind the lists of kListPairs.  X experts, P = T*U pairs; pair t*U+u is token t's u-th expert.  Only
// experts that the processor has are listed, and their pairs.
struct ExpertLists {
  int32_t* n_active;  // [1] experts with at least one pair
  int32_t* active;    // [X] their ids, ascending
  int32_t*
      begin;  // [X+1] expert e owns rows begin[e] .. begin[e+1] of the pair-ordered values; begin[X]: all rows
  int32_t* pair_at;  // [P] which pair stands in a row
  int32_t* row_of;   // [P] in which row a pair stands; -1: not here

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

}  // namespace tandem

// The numbers of a model: widths, counts, RoPE and norm parameters, read from a file's header and
// checked against each other, so that everything after this may trust them.
//
// Threading and ownership: plain data.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/shapes.h"
#include "model/architectures.h"

namespace tandem {

class GgufFile;

struct RopeScaling {
  enum class Kind { kNone, kLinear, kYarn };
  Kind kind = Kind::kNone;
  float factor = 1;               // context is stretched by this
  uint32_t original_context = 0;  // kYarn: context before stretching
  float attention_multiplier =
      1;  // kYarn: of the scale of cos and sin, which is 0.1 ln(factor) + 1
  float beta_fast = 32, beta_slow = 1;  // kYarn: rotations that bound the ramp
};

struct ModelShape {
  const Architecture* architecture = nullptr;
  int64_t n_layers = 0;        // L
  int64_t width = 0;           // D
  int64_t n_heads = 0;         // H
  int64_t n_kv_heads = 0;      // G, divides H
  int64_t head_width = 0;      // E, of queries, keys and values
  int64_t ffn_width = 0;       // F of the dense feed-forward; of one expert where there are experts
  int64_t n_vocabulary = 0;    // V
  int64_t n_experts = 0;       // X, 0: dense
  int64_t n_experts_used = 0;  // U <= X
  int64_t n_context_trained = 0;
  int64_t sliding_window =
      0;  // a position attends to itself and the window-1 before it; 0: to all before it
  float norm_epsilon = 0;
  int64_t n_rot = 0;  // leading elements of each head that are rotated, even, <= E
  float rope_base = 10000;
  RopeScaling rope_scaling;

  int64_t query_width() const { return n_heads * head_width; }
  int64_t kv_width() const { return n_kv_heads * head_width; }
  bool has_experts() const { return n_experts > 0; }
};

// Errors: kUnsupported for an unknown architecture or feature; kCorrupt naming the key, what it says and what would
// be valid.
Result<ModelShape> read_model_shape(const GgufFile& file);

}  // namespace tandem

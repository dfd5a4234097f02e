// What a Program's blocks are for, as far as placing them depends on it.
//
// Threading and ownership: plain data, made from a Program.
#pragma once

#include <vector>

#include "model/program.h"

namespace tandem {

struct BlockRole {
  enum class Kind : uint8_t {
    kHost,    // read by the CPU alone: the embedding table, RoPE factors
    kDense,   // of a layer
    kExpert,  // of a layer
    kHead,    // final norm, output matrix (which may be the embedding table)
  };
  Kind kind = Kind::kHost;
  int64_t layer = -1;
  bool attention = false;   // one of a layer's projections around attention: they agree
  bool router = false;      // scores a layer's experts
  bool vector = false;      // a single row
  BlockId follows = kNoId;  // biases and head norms: the product's block, whose values they update
};

// [blocks of the Program]
std::vector<BlockRole> block_roles(const Program& program);

// For each Op the Op that last wrote its in[0] before it; kNoId where none did.
std::vector<uint32_t> producers(const Program& program);

}  // namespace tandem

// Quantised weights for vectors of sixteen rows: what a row-wise file holds, put in another order.
//
// Sixteen rows of a matrix, which lie one after the other, become a tile of the same size: one piece
// for each block of K, in which what belongs to the same place of sixteen rows lies side by side.
// Weights keep their bytes; four bytes (a "dword") of a row stay together, so that a vector of 64
// bytes holds four bytes of each row, as instructions that multiply bytes and add four products want
// them.  All offsets in bytes.
//
//   format  piece  contents
//   Q4_0      288  d [16] Half; qs [4 dwords][16 rows]
//   Q8_0      544  d [16] Half; qs [8 dwords][16 rows]
//   Q4_K     2304  d [16] Half; dmin [16] Half; scales [12][16 rows]; qs [32 dwords][16 rows]
//   Q6_K     3360  ql [32 dwords][16 rows]; qh [16 dwords][16 rows]; scales [16][16 rows]; d [16] Half
//
// What the bytes of a row mean is said in base/blocks.h.  Only <cstdint>: files of every instruction
// set include this one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/blocks.h"

namespace tandem::cpu {

constexpr int kTileRows = 16;

struct TileQ4_0 {
  using Block = BlockQ4_0;
  static constexpr int kBlockWeights = 32, kGroupWeights = 32;
  static constexpr size_t kScaleOffset = 0, kQuantOffset = 32;
};

struct TileQ8_0 {
  using Block = BlockQ8_0;
  static constexpr int kBlockWeights = 32, kGroupWeights = 32;
  static constexpr size_t kScaleOffset = 0, kQuantOffset = 32;
};

struct TileQ4_K {
  using Block = BlockQ4_K;
  static constexpr int kBlockWeights = 256, kGroupWeights = 32;
  static constexpr size_t kScaleOffset = 0, kMinOffset = 32, kPackedScalesOffset = 64,
                          kQuantOffset = 256;
};

struct TileQ6_K {
  using Block = BlockQ6_K;
  static constexpr int kBlockWeights = 256, kGroupWeights = 16;
  static constexpr size_t kLowOffset = 0, kHighOffset = 2048, kPackedScalesOffset = 3072,
                          kScaleOffset = 3328;
};

// Of a tile, for one block of K.
template <typename Tile>
constexpr size_t piece_bytes() {
  return kTileRows * sizeof(typename Tile::Block);
}

}  // namespace tandem::cpu

// One row's block out of a piece of a tile.  Layouts in tiles.h.  Unnamed on purpose: each file has
// its own copy.
#pragma once

#include <cstring>

#include "kernels_cpu/tiles.h"

namespace tandem::cpu {
namespace {

template <typename Tile>
const unsigned char* piece_of(const unsigned char* tile, int64_t b) {
  return tile + static_cast<size_t>(b) * piece_bytes<Tile>();
}

inline Half half_of(const unsigned char* halves, int64_t row) {
  Half half;
  std::memcpy(&half, halves + row * 2, sizeof half);
  return half;
}

// n dwords of a row.
inline void take_dwords(const unsigned char* from, int64_t row, int n, void* out) {
  for (int i = 0; i < n; ++i)
    std::memcpy(static_cast<unsigned char*>(out) + i * 4, from + (i * kTileRows + row) * 4, 4);
}

template <typename Byte>
void take_bytes(const unsigned char* from, int64_t row, int n, Byte* out) {
  for (int i = 0; i < n; ++i) out[i] = static_cast<Byte>(from[i * kTileRows + row]);
}

inline BlockQ4_0 unpack_block(TileQ4_0, const unsigned char* piece, int64_t row) {
  BlockQ4_0 block;
  block.d = half_of(piece + TileQ4_0::kScaleOffset, row);
  take_dwords(piece + TileQ4_0::kQuantOffset, row, 4, block.qs);
  return block;
}

inline BlockQ8_0 unpack_block(TileQ8_0, const unsigned char* piece, int64_t row) {
  BlockQ8_0 block;
  block.d = half_of(piece + TileQ8_0::kScaleOffset, row);
  take_dwords(piece + TileQ8_0::kQuantOffset, row, 8, block.qs);
  return block;
}

inline BlockQ4_K unpack_block(TileQ4_K, const unsigned char* piece, int64_t row) {
  BlockQ4_K block;
  block.d = half_of(piece + TileQ4_K::kScaleOffset, row);
  block.dmin = half_of(piece + TileQ4_K::kMinOffset, row);
  take_bytes(piece + TileQ4_K::kPackedScalesOffset, row, 12, block.scales);
  take_dwords(piece + TileQ4_K::kQuantOffset, row, 32, block.qs);
  return block;
}

inline BlockQ6_K unpack_block(TileQ6_K, const unsigned char* piece, int64_t row) {
  BlockQ6_K block;
  take_dwords(piece + TileQ6_K::kLowOffset, row, 32, block.ql);
  take_dwords(piece + TileQ6_K::kHighOffset, row, 16, block.qh);
  take_bytes(piece + TileQ6_K::kPackedScalesOffset, row, 16, block.scales);
  block.d = half_of(piece + TileQ6_K::kScaleOffset, row);
  return block;
}

}  // namespace
}  // namespace tandem::cpu

// Sixteen rows of blocks into a tile.  Layouts in tiles.h.  Unnamed on purpose: each file has its own
// copy, compiled for its own instruction set.
//
// A Transpose has, for what each row has from offset on,
//   static void dwords<N>(rows, offset, out)  N times four bytes to [N][16 rows]
//   static void bytes<N>(rows, offset, out)   N bytes, a multiple of four, to [N][16 rows]
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels_cpu/tiles.h"

namespace tandem::cpu {
namespace {

// Sixteen rows; a matrix that ends before gives its last row for those that are missing.
struct TileRowPointers {
  const unsigned char* row[kTileRows];

  TileRowPointers(const void* w, size_t row_bytes, int64_t n_rows) {
    for (int r = 0; r < kTileRows; ++r) {
      const int64_t there = r < n_rows ? r : n_rows - 1;
      row[r] = static_cast<const unsigned char*>(w) + static_cast<size_t>(there) * row_bytes;
    }
  }
};

struct PlainTranspose {
  template <int N>
  static void dwords(const unsigned char* const* rows, size_t offset, unsigned char* out) {
    for (size_t r = 0; r < kTileRows; ++r)
      for (size_t i = 0; i < N; ++i)
        __builtin_memcpy(out + (i * kTileRows + r) * 4, rows[r] + offset + i * 4, 4);
  }
  template <int N>
  static void bytes(const unsigned char* const* rows, size_t offset, unsigned char* out) {
    for (size_t r = 0; r < kTileRows; ++r)
      for (size_t i = 0; i < N; ++i) out[i * kTileRows + r] = rows[r][offset + i];
  }
};

inline void transpose_halves(const unsigned char* const* rows, size_t offset, unsigned char* out) {
  for (size_t r = 0; r < kTileRows; ++r) __builtin_memcpy(out + r * 2, rows[r] + offset, 2);
}

// One block of each row, `offset` bytes into it, to one piece of a tile.
template <typename Transpose>
inline void pack_piece(TileQ4_0, const unsigned char* const* rows, size_t offset,
                       unsigned char* out) {
  transpose_halves(rows, offset, out + TileQ4_0::kScaleOffset);
  Transpose::template dwords<4>(rows, offset + 2, out + TileQ4_0::kQuantOffset);
}

template <typename Transpose>
inline void pack_piece(TileQ8_0, const unsigned char* const* rows, size_t offset,
                       unsigned char* out) {
  transpose_halves(rows, offset, out + TileQ8_0::kScaleOffset);
  Transpose::template dwords<8>(rows, offset + 2, out + TileQ8_0::kQuantOffset);
}

template <typename Transpose>
inline void pack_piece(TileQ4_K, const unsigned char* const* rows, size_t offset,
                       unsigned char* out) {
  transpose_halves(rows, offset, out + TileQ4_K::kScaleOffset);
  transpose_halves(rows, offset + 2, out + TileQ4_K::kMinOffset);
  Transpose::template bytes<12>(rows, offset + 4, out + TileQ4_K::kPackedScalesOffset);
  Transpose::template dwords<32>(rows, offset + 16, out + TileQ4_K::kQuantOffset);
}

template <typename Transpose>
inline void pack_piece(TileQ6_K, const unsigned char* const* rows, size_t offset,
                       unsigned char* out) {
  Transpose::template dwords<32>(rows, offset, out + TileQ6_K::kLowOffset);
  Transpose::template dwords<16>(rows, offset + 128, out + TileQ6_K::kHighOffset);
  Transpose::template bytes<16>(rows, offset + 192, out + TileQ6_K::kPackedScalesOffset);
  transpose_halves(rows, offset + 208, out + TileQ6_K::kScaleOffset);
}

// Pieces for the blocks [first_block, first_block + n_blocks) of up to sixteen rows.  As many bytes from `ahead` on are asked
// for meanwhile; they may lie outside the matrix.
template <typename Transpose, typename Tile>
inline void pack_pieces(const TileRowPointers& rows, int64_t first_block, int64_t n_blocks,
                        uintptr_t ahead, unsigned char* out) {
  for (int64_t b = first_block; b < first_block + n_blocks; ++b) {
    for (size_t line = 0; line < piece_bytes<Tile>(); line += 64)
      __builtin_prefetch(reinterpret_cast<const void*>(ahead + line));
    pack_piece<Transpose>(Tile{}, rows.row, static_cast<size_t>(b) * sizeof(typename Tile::Block),
                          out);
    ahead += piece_bytes<Tile>();
    out += piece_bytes<Tile>();
  }
}

template <typename Transpose, typename Tile>
inline void pack_tile(const void* rows, size_t row_bytes, int64_t K, void* tile) {
  pack_pieces<Transpose, Tile>(TileRowPointers(rows, row_bytes, kTileRows), 0,
                               K / Tile::kBlockWeights, reinterpret_cast<uintptr_t>(rows),
                               static_cast<unsigned char*>(tile));
}

}  // namespace
}  // namespace tandem::cpu

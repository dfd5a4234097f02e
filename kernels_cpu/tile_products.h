// Products of quantised weights, sixteen rows at a time: one loop for every format and instruction
// set.  Contract: MatmulQ8A in kernels.h.  Unnamed on purpose: each file has its own copy, compiled
// for its own instruction set.
//
// The arithmetic, for each row and token, over the groups of a row in order, starting from y = 0:
//   y = fma(float(dot), scale * d, y)      dot: of the group's integers, exact
//   y = fma(-minimum, d_sum, y)            for formats that have one
// with scale and minimum of the weights' group in float32, d and d_sum of the activations' block.
// So the bits are the same whatever the instruction set, the number of tokens, and the layout.
//
// Beside what tile_formats.h asks of Lanes:
//   kTokens      tokens that share each decoded vector, a power of two
//   kSignedOffset  what dot_signed() adds to signed weights: 128, or 0
//   Ints integers(i); Ints dot(Ints sum, Bytes w, int32_t x), dot_signed(...)   x: four activations
//   Floats floats(Ints), floats(float), fma(a, b, c), subtract_product(a, b, c): c - a * b
//   Floats load_floats(p); store(p, Floats)
//   Transpose    see tile_packing.h
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernels_cpu/kernels.h"
#include "kernels_cpu/tile_formats.h"
#include "kernels_cpu/tile_packing.h"

namespace tandem::cpu {
namespace {

// Pieces of a tile that many tokens pass at once: they and the tokens' activations stay in the first
// level cache.
constexpr int64_t kChunkWeights = 2048;
// For one token rows are packed in smaller steps, so that packing and multiplying overlap: 17 to 21 GB/s, 28 to 33 from tiles.
constexpr int64_t kPackedAtOnce = 512;

// The results of up to sixteen rows for one token.
template <typename Lanes>
struct Results {
  float* y;
  int64_t n_rows;

  typename Lanes::Floats load() const {
    if (n_rows == kTileRows) return Lanes::load_floats(y);
    float all[kTileRows] = {};
    __builtin_memcpy(all, y, static_cast<size_t>(n_rows) * sizeof(float));
    return Lanes::load_floats(all);
  }
  void store(typename Lanes::Floats values) const {
    if (n_rows == kTileRows) return Lanes::store(y, values);
    float all[kTileRows];
    Lanes::store(all, values);
    __builtin_memcpy(y, all, static_cast<size_t>(n_rows) * sizeof(float));
  }
};

// Weights are asked for this far ahead.  Share of the best read bandwidth that one token's products reach with two cores,
// AVX-512 and rows of 2048 weights, 400 MB in huge pages (Sapphire Rapids, medians of two runs):
//                one tile at a time: none  1024  2048    two: 512  1024  2048
//   q4_k                              79    79    78           81    78    75
//   q6_k                              57    73    76           81    80    74
//   q4_0                              83    87    87           89    88    93
//   q8_0                              79    87    87           92    90    85
// With 8192 weights per row q4_k reaches 86 to 90.  Into the second level cache only, or further ahead, it is less; so it is
// when what follows the two tiles is asked for near their ends.
constexpr size_t kAhead = 512;

// Asks for a group's share of a piece that will be read soon; it may lie outside the matrix.
template <typename Format, int G>
__attribute__((always_inline)) inline void prefetch_share(uintptr_t piece) {
  constexpr size_t n_lines = (piece_bytes<Format>() + 63) / 64;
  constexpr size_t n_groups = Format::kBlockWeights / Format::kGroupWeights;
#pragma GCC unroll 16
  for (size_t line = G * n_lines / n_groups; line < (G + 1) * n_lines / n_groups; ++line)
    __builtin_prefetch(reinterpret_cast<const void*>(piece + line * 64));
}

// Adds one group's products of T tokens to their sums.  `x`: the block of activations beside the
// piece.
template <typename Lanes, typename Format, int T, int G>
__attribute__((always_inline)) inline void add_group(
    const unsigned char* piece, const typename Format::template Scales<Lanes>& scales,
    const BlockQ8A* x, size_t x_stride, typename Lanes::Floats (&sums)[T]) {
  constexpr int per_activations = 32 / Format::kGroupWeights, side = G % per_activations;
  constexpr int n_vectors = Format::kGroupWeights / 4;
  constexpr int offset = Format::kSigned ? Lanes::kSignedOffset : Format::kOffset;
  const BlockQ8A* at[T];
  typename Lanes::Ints dots[T];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    at[t] = x + static_cast<size_t>(t) * x_stride + G / per_activations;
    const int sum = per_activations == 2 ? at[t]->sums[side] : at[t]->sums[0] + at[t]->sums[1];
    dots[t] = Lanes::integers(offset == 0 ? 0 : -offset * sum);
  }
#pragma GCC unroll 8
  for (int i = 0; i < n_vectors; ++i) {
    const auto weights = Format::template vector<Lanes, G>(piece, i);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      int32_t four;
      __builtin_memcpy(&four, at[t]->qs + (side * n_vectors + i) * 4, 4);
      dots[t] = Format::kSigned ? Lanes::dot_signed(dots[t], weights, four)
                                : Lanes::dot(dots[t], weights, four);
    }
  }
  const auto scale = scales.scale(G);
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t)
    sums[t] = Lanes::fma(Lanes::floats(dots[t]), Lanes::multiply(scale, Lanes::floats(at[t]->d)),
                         sums[t]);
  if constexpr (Format::kHasMinimum) {
    const auto minimum = scales.minimum(G);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t)
      sums[t] = Lanes::subtract_product(minimum, Lanes::floats(at[t]->d_sum), sums[t]);
  }
}

template <typename Lanes, typename Format, int T, int... G>
__attribute__((always_inline)) inline void add_piece(const unsigned char* piece, const BlockQ8A* x,
                                                     size_t x_stride,
                                                     typename Lanes::Floats (&sums)[T],
                                                     std::integer_sequence<int, G...>) {
  const typename Format::template Scales<Lanes> scales(piece);
  (add_group<Lanes, Format, T, G>(piece, scales, x, x_stride, sums), ...);
}

// For one token, while what comes after is asked for.
template <typename Lanes, typename Format, int... G>
__attribute__((always_inline)) inline void add_piece_early(const unsigned char* piece,
                                                           const BlockQ8A* x,
                                                           typename Lanes::Floats (&sums)[1],
                                                           std::integer_sequence<int, G...>) {
  const typename Format::template Scales<Lanes> scales(piece);
  const uintptr_t ahead = reinterpret_cast<uintptr_t>(piece) + kAhead;
  ((prefetch_share<Format, G>(ahead), add_group<Lanes, Format, 1, G>(piece, scales, x, 0, sums)),
   ...);
}

// Pieces of one tile for T tokens.  `first`: y is overwritten, else added to.
template <typename Lanes, typename Format, int T>
inline void multiply_pieces(const unsigned char* pieces, int64_t n_pieces, const BlockQ8A* x,
                            size_t x_stride, float* y, size_t y_stride, int64_t n_rows,
                            bool first) {
  typename Lanes::Floats sums[T];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    const Results<Lanes> results{y + static_cast<size_t>(t) * y_stride, n_rows};
    sums[t] = first ? Lanes::floats(0.0f) : results.load();
  }
  using Groups = std::make_integer_sequence<int, Format::kBlockWeights / Format::kGroupWeights>;
  for (int64_t b = 0; b < n_pieces; ++b)
    add_piece<Lanes, Format, T>(pieces + static_cast<size_t>(b) * piece_bytes<Format>(),
                                x + b * (Format::kBlockWeights / 32), x_stride, sums, Groups{});
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t)
    Results<Lanes>{y + static_cast<size_t>(t) * y_stride, n_rows}.store(sums[t]);
}

// As many tokens at a time as Lanes take, then half of that, until none is left.
template <typename Lanes, typename Format, int T>
inline void multiply_tokens(const unsigned char* pieces, int64_t n_pieces, const BlockQ8A* x,
                            size_t x_stride, float* y, size_t y_stride, int64_t n_rows, bool first,
                            int64_t n_tokens) {
  for (; n_tokens >= T; n_tokens -= T) {
    multiply_pieces<Lanes, Format, T>(pieces, n_pieces, x, x_stride, y, y_stride, n_rows, first);
    x += T * x_stride;
    y += T * y_stride;
  }
  if constexpr (T > 1)
    multiply_tokens<Lanes, Format, T / 2>(pieces, n_pieces, x, x_stride, y, y_stride, n_rows, first,
                                          n_tokens);
}

// Two tiles that lie one after the other, for one token: more of the memory is on its way at a time.
template <typename Lanes, typename Format>
inline void multiply_two_tiles(const unsigned char* tiles, int64_t n_pieces, const BlockQ8A* x,
                               float* y) {
  const size_t tile_bytes = static_cast<size_t>(n_pieces) * piece_bytes<Format>();
  typename Lanes::Floats first[1] = {Lanes::floats(0.0f)}, second[1] = {Lanes::floats(0.0f)};
  using Groups = std::make_integer_sequence<int, Format::kBlockWeights / Format::kGroupWeights>;
  for (size_t at = 0; at < tile_bytes; at += piece_bytes<Format>()) {
    add_piece_early<Lanes, Format>(tiles + at, x, first, Groups{});
    add_piece_early<Lanes, Format>(tiles + tile_bytes + at, x, second, Groups{});
    x += Format::kBlockWeights / 32;
  }
  Lanes::store(y, first[0]);
  Lanes::store(y + kTileRows, second[0]);
}

// How T tokens pass some pieces of a tile; AMX has another.
template <typename L, typename Format>
struct VectorTokens {
  using Lanes = L;
  void operator()(const unsigned char* pieces, int64_t n_pieces, const BlockQ8A* x, size_t x_stride,
                  float* y, size_t y_stride, int64_t n_rows, bool first, int64_t T) const {
    multiply_tokens<Lanes, Format, Lanes::kTokens>(pieces, n_pieces, x, x_stride, y, y_stride,
                                                   n_rows, first, T);
  }
};

// Tokens that pass the rows one after the other: their activations stay in the second level cache.  At least as many as
// make it worth while to take weights apart for them.
inline int64_t tokens_in_cache(int64_t K) {
  constexpr int64_t kCacheBytes = int64_t{1} << 20, kAtLeast = 96;
  const int64_t tokens = kCacheBytes / (K / 32 * static_cast<int64_t>(sizeof(BlockQ8A))) / 16 * 16;
  return tokens > kAtLeast ? tokens : kAtLeast;
}

template <typename Multiply>
inline void for_tokens_in_cache(int64_t K, int64_t T, const Multiply& multiply) {
  const int64_t at_once = tokens_in_cache(K);
  for (int64_t t = 0; t < T; t += at_once) multiply(t, T - t < at_once ? T - t : at_once);
}

// Weights in tiles.  Requires: row_begin and row_end are multiples of 16.
template <typename Format, typename Tokens>
inline void multiply_tiles(const void* w, size_t row_bytes, const BlockQ8A* x, size_t x_stride,
                           float* y, size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K,
                           int64_t T, const Tokens& tokens) {
  constexpr int64_t chunk = kChunkWeights / Format::kBlockWeights;
  const int64_t n_pieces = K / Format::kBlockWeights;
  const int64_t at_once = T == 1 ? n_pieces : chunk;
  int64_t n = row_begin;
  if (T == 1)
    for (; n + 2 * kTileRows <= row_end; n += 2 * kTileRows)
      multiply_two_tiles<typename Tokens::Lanes, Format>(
          static_cast<const unsigned char*>(w) + static_cast<size_t>(n) * row_bytes, n_pieces, x,
          y + n);
  for (; n < row_end; n += kTileRows) {
    const unsigned char* tile =
        static_cast<const unsigned char*>(w) + static_cast<size_t>(n) * row_bytes;
    for (int64_t b = 0; b < n_pieces; b += at_once)
      tokens(tile + static_cast<size_t>(b) * piece_bytes<Format>(),
             n_pieces - b < at_once ? n_pieces - b : at_once, x + b * (Format::kBlockWeights / 32),
             x_stride, y + n, y_stride, int64_t{kTileRows}, b == 0, T);
  }
}

// Weights as files have them: packed piece by piece into the first level cache.
template <typename Lanes, typename Format, typename Tokens>
inline void multiply_rows(const void* w, size_t row_bytes, const BlockQ8A* x, size_t x_stride,
                          float* y, size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K,
                          int64_t T, const Tokens& tokens) {
  constexpr int64_t chunk = kChunkWeights / Format::kBlockWeights;
  alignas(64) unsigned char pieces[chunk * static_cast<int64_t>(piece_bytes<Format>())];
  const int64_t n_blocks = K / Format::kBlockWeights;
  const int64_t at_once = T == 1 ? kPackedAtOnce / Format::kBlockWeights : chunk;
  for (int64_t n = row_begin; n < row_end; n += kTileRows) {
    const int64_t n_rows = row_end - n < kTileRows ? row_end - n : kTileRows;
    const unsigned char* first_row =
        static_cast<const unsigned char*>(w) + static_cast<size_t>(n) * row_bytes;
    const TileRowPointers rows(first_row, row_bytes, n_rows);
    for (int64_t b = 0; b < n_blocks; b += at_once) {
      const int64_t n_pieces = n_blocks - b < at_once ? n_blocks - b : at_once;
      // The next sixteen rows, in the order in which they lie.
      const uintptr_t ahead = reinterpret_cast<uintptr_t>(first_row) + kTileRows * row_bytes +
                              static_cast<size_t>(b) * piece_bytes<Format>();
      pack_pieces<typename Lanes::Transpose, Format>(rows, b, n_pieces, ahead, pieces);
      tokens(pieces, n_pieces, x + b * (Format::kBlockWeights / 32), x_stride, y + n, y_stride,
             n_rows, b == 0, T);
    }
  }
}

// The operators of one format, as the table has them.
template <typename Lanes, typename Format, typename Tokens = VectorTokens<Lanes, Format>>
struct Operators {
  static void rows(const void* w, size_t row_bytes, const BlockQ8A* x, size_t x_stride, float* y,
                   size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K, int64_t T) {
    for_tokens_in_cache(K, T, [=](int64_t t, int64_t n) {
      multiply_rows<Lanes, Format>(w, row_bytes, x + static_cast<size_t>(t) * x_stride, x_stride,
                                   y + static_cast<size_t>(t) * y_stride, y_stride, row_begin,
                                   row_end, K, n, Tokens());
    });
  }
  static void tiles(const void* w, size_t row_bytes, const BlockQ8A* x, size_t x_stride, float* y,
                    size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K, int64_t T) {
    for_tokens_in_cache(K, T, [=](int64_t t, int64_t n) {
      multiply_tiles<Format>(w, row_bytes, x + static_cast<size_t>(t) * x_stride, x_stride,
                             y + static_cast<size_t>(t) * y_stride, y_stride, row_begin, row_end, K,
                             n, Tokens());
    });
  }
  static void pack(const void* rows, size_t row_bytes, int64_t K, void* tile) {
    pack_tile<typename Lanes::Transpose, Format>(rows, row_bytes, K, tile);
  }
  // Tiles are taken apart by the scalar operator.
  static void put_into(KernelTable::Quantised& kernels) {
    kernels.matmul = rows;
    kernels.matmul_tiles = tiles;
    kernels.pack_tile = pack;
  }
};

}  // namespace
}  // namespace tandem::cpu

// Matrix products of quantised weights with AMX, for many tokens; few take the AVX-512 way.  The
// arithmetic is that of tile_products.h: AMX gives the groups' integers, exact.
#include "kernels_cpu/amx.h"
#include "kernels_cpu/avx512_lanes.h"
#include "kernels_cpu/tile_products.h"

namespace tandem::cpu::amx {
namespace {

using avx512::Lanes;

constexpr int64_t kTileTokens = 16;
// Fewer are faster without decoding a whole chunk first: billions of operations per second of two cores (Sapphire
// Rapids, 512 rows of 2048 weights for each) with AVX-512 and with AMX,
//   tokens        32          128         512
//   q4_k       695 / 514   778 / 775   803 / 928
//   q6_k       568 / 460   618 / 666   614 / 733
//   q4_0       702 / 574   767 / 861   790 / 1155
//   q8_0       683 / 584   738 / 927   769 / 1153
constexpr int64_t kFewestTokens = 96;

// The first 64 bytes of palette 1: tile 0 takes sums [tokens][16 rows], tile 1 activations
// [tokens][group], tile 2 weights [group / 4][16 rows][4].
struct TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes_per_row[16] = {};
  uint8_t rows[16] = {};

  TileShapes(int64_t n_tokens, int group) {
    for (int i = 0; i < 6; i += 3) {
      bytes_per_row[i] = bytes_per_row[i + 2] = 64;
      bytes_per_row[i + 1] = static_cast<uint16_t>(group);
      rows[i] = rows[i + 1] = static_cast<uint8_t>(n_tokens);
      rows[i + 2] = static_cast<uint8_t>(group / 4);
    }
  }
};
static_assert(sizeof(TileShapes) == 64);

// Some pieces of a tile as bytes and floats.
template <typename Format>
struct Panel {
  static constexpr int kGroups = Format::kBlockWeights / Format::kGroupWeights;
  static constexpr int64_t kMostGroups = kChunkWeights / Format::kGroupWeights;
  static constexpr size_t kGroupBytes = Format::kGroupWeights * kTileRows;

  alignas(64) unsigned char weights[kChunkWeights * kTileRows];
  alignas(64) float scales[kMostGroups][kTileRows];
  alignas(64) float minima[Format::kHasMinimum ? kMostGroups : 1][kTileRows];

  Panel(const unsigned char* pieces, int64_t n_pieces) {
    for (int64_t b = 0; b < n_pieces; ++b)
      decode(pieces + static_cast<size_t>(b) * piece_bytes<Format>(), b * kGroups,
             std::make_integer_sequence<int, kGroups>());
  }

 private:
  template <int... G>
  void decode(const unsigned char* piece, int64_t first_group, std::integer_sequence<int, G...>) {
    const typename Format::template Scales<Lanes> all(piece);
    (decode_group<G>(piece, all, first_group + G), ...);
  }
  template <int G>
  void decode_group(const unsigned char* piece, const typename Format::template Scales<Lanes>& all,
                    int64_t group) {
    unsigned char* out = weights + static_cast<size_t>(group) * kGroupBytes;
#pragma GCC unroll 8
    for (int i = 0; i < Format::kGroupWeights / 4; ++i) {
      const __m512i vector = Format::template vector<Lanes, G>(piece, i);
      const __m512i offset = _mm512_set1_epi8(static_cast<char>(Format::kOffset));
      _mm512_store_si512(out + i * 64, _mm512_sub_epi8(vector, offset));
    }
    Lanes::store(scales[group], all.scale(G));
    if constexpr (Format::kHasMinimum) Lanes::store(minima[group], all.minimum(G));
  }
};

// Up to sixteen tokens against a panel.
template <typename Format>
class TokenTile {
 public:
  TokenTile(const Panel<Format>& panel, int64_t n_groups, const BlockQ8A* x, size_t x_stride,
            int64_t n_tokens)
      : panel_(panel), n_groups_(n_groups), x_stride_(x_stride) {
    for (int64_t t = 0; t < kTileTokens; ++t)
      x_[t] = x + static_cast<size_t>(t < n_tokens ? t : n_tokens - 1) * x_stride;
  }

  // Two groups at a time, so that one is multiplied while the other is scaled.
  void add_to(__m512 (&sums)[kTileTokens]) const {
    alignas(64) int32_t dots[2][kTileTokens][kTileRows];
    int64_t g = 0;
    for (; g + 2 <= n_groups_; g += 2) {
      multiply<false>(g, dots[0]);
      multiply<true>(g + 1, dots[1]);
      scale(g, dots[0], sums);
      scale(g + 1, dots[1], sums);
    }
    if (g < n_groups_) {
      multiply<false>(g, dots[0]);
      scale(g, dots[0], sums);
    }
  }

 private:
  static constexpr int kPerActivations = 32 / Format::kGroupWeights;
  // Weights without an offset; the others have it taken away and are signed.
  static constexpr bool kUnsigned = Format::kOffset == 0 && !Format::kSigned;

  // With tiles 0 to 2, or 3 to 5: they are named in the instructions themselves.
  template <bool second>
  void multiply(int64_t g, int32_t (&dots)[kTileTokens][kTileRows]) const {
    const int8_t* activations =
        x_[0][g / kPerActivations].qs + g % kPerActivations * Format::kGroupWeights;
    const auto stride = static_cast<int64_t>(x_stride_ * sizeof(BlockQ8A));
    const unsigned char* weights =
        panel_.weights + static_cast<size_t>(g) * Panel<Format>::kGroupBytes;
    if constexpr (second) {
      _tile_zero(3);
      _tile_loadd(4, activations, stride);
      _tile_loadd(5, weights, 64);
      if constexpr (kUnsigned) _tile_dpbsud(3, 4, 5);
      if constexpr (!kUnsigned) _tile_dpbssd(3, 4, 5);
      _tile_stored(3, dots, 64);
    } else {
      _tile_zero(0);
      _tile_loadd(1, activations, stride);
      _tile_loadd(2, weights, 64);
      if constexpr (kUnsigned) _tile_dpbsud(0, 1, 2);
      if constexpr (!kUnsigned) _tile_dpbssd(0, 1, 2);
      _tile_stored(0, dots, 64);
    }
  }

  void scale(int64_t g, const int32_t (&dots)[kTileTokens][kTileRows],
             __m512 (&sums)[kTileTokens]) const {
    const __m512 scales = _mm512_load_ps(panel_.scales[g]);
#pragma GCC unroll 16
    for (int t = 0; t < kTileTokens; ++t) {
      const BlockQ8A& x = x_[t][g / kPerActivations];
      sums[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(dots[t])),
                                _mm512_mul_ps(scales, _mm512_set1_ps(x.d)), sums[t]);
      if constexpr (Format::kHasMinimum)
        sums[t] =
            _mm512_fnmadd_ps(_mm512_load_ps(panel_.minima[g]), _mm512_set1_ps(x.d_sum), sums[t]);
    }
  }

  const Panel<Format>& panel_;
  const int64_t n_groups_;
  const size_t x_stride_;
  const BlockQ8A* x_[kTileTokens];
};

template <typename Format>
struct Tokens {
  using Lanes = avx512::Lanes;
  void operator()(const unsigned char* pieces, int64_t n_pieces, const BlockQ8A* x, size_t x_stride,
                  float* y, size_t y_stride, int64_t n_rows, bool first, int64_t T) const {
    if (T < kFewestTokens)
      return VectorTokens<Lanes, Format>()(pieces, n_pieces, x, x_stride, y, y_stride, n_rows,
                                           first, T);
    const Panel<Format> panel(pieces, n_pieces);
    __asm__ volatile("" ::: "memory");  // the compiler does not know that tiles read the panel
    for (int64_t t = 0; t < T; t += kTileTokens) {
      const int64_t n_tokens = T - t < kTileTokens ? T - t : kTileTokens;
      if (t == 0 || n_tokens < kTileTokens) {
        const TileShapes shapes(n_tokens, Format::kGroupWeights);
        _tile_loadconfig(&shapes);
      }
      float* const out = y + static_cast<size_t>(t) * y_stride;
      const auto results = [&](int64_t i) {
        return Results<Lanes>{out + static_cast<size_t>(i) * y_stride, n_rows};
      };
      __m512 sums[kTileTokens];
#pragma GCC unroll 16
      for (int i = 0; i < kTileTokens; ++i)
        sums[i] = first || i >= n_tokens ? _mm512_setzero_ps() : results(i).load();
      TokenTile<Format>(panel, n_pieces * Panel<Format>::kGroups,
                        x + static_cast<size_t>(t) * x_stride, x_stride, n_tokens)
          .add_to(sums);
#pragma GCC unroll 16
      for (int i = 0; i < kTileTokens; ++i)
        if (i < n_tokens) results(i).store(sums[i]);
    }
    _tile_release();
  }
};

}  // namespace

void put_quantised_products(KernelTable& table) {
  Operators<Lanes, FormatQ4_0, Tokens<FormatQ4_0>>::put_into(table.q4_0);
  Operators<Lanes, FormatQ8_0, Tokens<FormatQ8_0>>::put_into(table.q8_0);
  Operators<Lanes, FormatQ4_K, Tokens<FormatQ4_K>>::put_into(table.q4_k);
  Operators<Lanes, FormatQ6_K, Tokens<FormatQ6_K>>::put_into(table.q6_k);
}

}  // namespace tandem::cpu::amx

// What vectors of sixteen rows see of each format.  Layouts in tiles.h.  Unnamed on purpose: each
// file has its own copy, compiled for its own instruction set.
//
// Lanes are sixteen numbers, one per row of a tile, or four bytes per row:
//   Bytes load(p); Bytes low_nibbles(Bytes); Bytes high_nibbles(Bytes);
//   Bytes scaled_high_nibbles(Bytes)    high nibbles divided by kHighNibbleScale, 1 or 1/16: a power
//                                       of two, so no result changes
//   Bytes with_high_bits<quarter>(Bytes nibbles, Bytes packed)  adds bits 2q and 2q+1 above a nibble
//   Floats halves(p); Floats unsigned_bytes(p); Floats signed_bytes(p); Floats multiply(a, b)
//
// A format has, for group G of a block and vector i of four weights per row within the group,
//   vector<Lanes, G>(piece, i)   weights plus kOffset, as unsigned bytes (signed ones for kSigned)
//   Scales<Lanes>(piece)         scale(g) and, for kHasMinimum, minimum(g), of the sixteen rows
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels_cpu/tiles.h"

namespace tandem::cpu {
namespace {

template <typename Lanes>
struct OneScale {
  typename Lanes::Floats d;
  explicit OneScale(const unsigned char* halves) : d(Lanes::halves(halves)) {}
  typename Lanes::Floats scale(int) const { return d; }
};

struct FormatQ4_0 : TileQ4_0 {
  static constexpr int kOffset = 8;
  static constexpr bool kSigned = false, kHasMinimum = false;

  template <typename Lanes>
  struct Scales : OneScale<Lanes> {
    explicit Scales(const unsigned char* piece) : OneScale<Lanes>(piece + kScaleOffset) {}
  };
  template <typename Lanes, int G>
  static typename Lanes::Bytes vector(const unsigned char* piece, int i) {
    const auto both = Lanes::load(piece + kQuantOffset + static_cast<size_t>(i % 4) * 64);
    return i < 4 ? Lanes::low_nibbles(both) : Lanes::high_nibbles(both);
  }
};

struct FormatQ8_0 : TileQ8_0 {
  static constexpr int kOffset = 0;
  static constexpr bool kSigned = true, kHasMinimum = false;

  template <typename Lanes>
  struct Scales : OneScale<Lanes> {
    explicit Scales(const unsigned char* piece) : OneScale<Lanes>(piece + kScaleOffset) {}
  };
  template <typename Lanes, int G>
  static typename Lanes::Bytes vector(const unsigned char* piece, int i) {
    return Lanes::load(piece + kQuantOffset + static_cast<size_t>(i) * 64);
  }
};

struct FormatQ4_K : TileQ4_K {
  static constexpr int kOffset = 0;
  static constexpr bool kSigned = false, kHasMinimum = true;

  template <typename Lanes>
  struct Scales {
    typename Lanes::Floats d, d_high, dmin;
    alignas(16) uint8_t scales[8][kTileRows], minima[8][kTileRows];

    explicit Scales(const unsigned char* piece)
        : d(Lanes::halves(piece + kScaleOffset)),
          d_high(Lanes::multiply(d, Lanes::floats(Lanes::kHighNibbleScale))),
          dmin(Lanes::halves(piece + kMinOffset)) {
      const unsigned char* packed = piece + kPackedScalesOffset;
      for (int j = 0; j < 4; ++j) {
        for (int r = 0; r < kTileRows; ++r) {
          const uint8_t a = packed[j * kTileRows + r], b = packed[(j + 4) * kTileRows + r],
                        c = packed[(j + 8) * kTileRows + r];
          scales[j][r] = a & 63;
          minima[j][r] = b & 63;
          scales[j + 4][r] = static_cast<uint8_t>((c & 15) | ((a >> 2) & 48));
          minima[j + 4][r] = static_cast<uint8_t>((c >> 4) | ((b >> 2) & 48));
        }
      }
    }
    typename Lanes::Floats scale(int g) const {
      return Lanes::multiply(g % 2 == 0 ? d : d_high, Lanes::unsigned_bytes(scales[g]));
    }
    typename Lanes::Floats minimum(int g) const {
      return Lanes::multiply(dmin, Lanes::unsigned_bytes(minima[g]));
    }
  };
  template <typename Lanes, int G>
  static typename Lanes::Bytes vector(const unsigned char* piece, int i) {
    const auto both = Lanes::load(piece + kQuantOffset + G / 2 * 512 + static_cast<size_t>(i) * 64);
    return G % 2 == 0 ? Lanes::low_nibbles(both) : Lanes::scaled_high_nibbles(both);
  }
};

struct FormatQ6_K : TileQ6_K {
  static constexpr int kOffset = 32;
  static constexpr bool kSigned = false, kHasMinimum = false;

  template <typename Lanes>
  struct Scales {
    typename Lanes::Floats d;
    const unsigned char* scales;

    explicit Scales(const unsigned char* piece)
        : d(Lanes::halves(piece + kScaleOffset)), scales(piece + kPackedScalesOffset) {}
    typename Lanes::Floats scale(int g) const {
      return Lanes::multiply(d, Lanes::signed_bytes(scales + g * kTileRows));
    }
  };
  // Eight groups to a half of the block, two to each quarter of that.
  template <typename Lanes, int G>
  static typename Lanes::Bytes vector(const unsigned char* piece, int i) {
    constexpr int half = G / 8, quarter = G % 8 / 2, side = G % 2;
    const auto dword = static_cast<size_t>(side * 4 + i);
    const auto low = Lanes::load(piece + kLowOffset + (half * 16 + quarter % 2 * 8 + dword) * 64);
    const auto high = Lanes::load(piece + kHighOffset + (half * 8 + dword) * 64);
    return Lanes::template with_high_bits<quarter>(
        quarter < 2 ? Lanes::low_nibbles(low) : Lanes::high_nibbles(low), high);
  }
};

}  // namespace
}  // namespace tandem::cpu

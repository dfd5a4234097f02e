// Matrix products of quantised weights with int8 activations.  Contract: MatmulQ8A in kernels.h.
// Integer dot products inside a group are exact; groups are scaled and summed in double, rounded
// once.  Tiles are taken apart row by row.
#include "kernels_cpu/scalar.h"
#include "kernels_cpu/scalar_helpers.h"
#include "kernels_cpu/tile_packing.h"
#include "kernels_cpu/tile_unpacking.h"

namespace tandem::cpu::scalar {
namespace {

// dot(one block of weights, the activations beside it), in double.
double dot_block(const BlockQ4_0& w, const BlockQ8A* x) {
  int sum = 0;
  for (int i = 0; i < 16; ++i) {
    sum += ((w.qs[i] & 15) - 8) * x->qs[i];
    sum += ((w.qs[i] >> 4) - 8) * x->qs[i + 16];
  }
  return double{half_to_float(w.d)} * double{x->d} * sum;
}

double dot_block(const BlockQ8_0& w, const BlockQ8A* x) {
  int sum = 0;
  for (int i = 0; i < 32; ++i) sum += w.qs[i] * x->qs[i];
  return double{half_to_float(w.d)} * double{x->d} * sum;
}

double dot_block(const BlockQ4_K& w, const BlockQ8A* x) {
  const double d = half_to_float(w.d), dmin = half_to_float(w.dmin);
  double total = 0;
  for (int j = 0; j < 8; ++j) {
    const auto [scale, min] = scale_min_q4_k(w.scales, j);
    int sum = 0;
    for (int i = 0; i < 32; ++i) sum += nibble_q4_k(w, j, i) * x[j].qs[i];
    total += double{x[j].d} * (d * scale * sum - dmin * min * (x[j].sums[0] + x[j].sums[1]));
  }
  return total;
}

double dot_block(const BlockQ6_K& w, const BlockQ8A* x) {
  const double d = half_to_float(w.d);
  double total = 0;
  for (int j = 0; j < 16; ++j) {
    const BlockQ8A& activations = x[j / 2];
    int sum = 0;
    for (int i = 0; i < 16; ++i)
      sum += value_q6_k(w, j * 16 + i) * activations.qs[(j % 2) * 16 + i];
    total += double{activations.d} * (d * w.scales[j] * sum);
  }
  return total;
}

template <typename Block, int weights_per_block>
void matmul(const void* w, size_t row_bytes, const BlockQ8A* x, size_t x_stride, float* y,
            size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K, int64_t T) {
  for (int64_t t = 0; t < T; ++t) {
    const BlockQ8A* x_row = x + static_cast<size_t>(t) * x_stride;
    float* y_row = y + static_cast<size_t>(t) * y_stride;
    for (int64_t n = row_begin; n < row_end; ++n) {
      const unsigned char* row = row_of(w, row_bytes, n);
      double sum = 0;
      for (int64_t b = 0; b < K / weights_per_block; ++b)
        sum += dot_block(load<Block>(row, b), x_row + b * (weights_per_block / 32));
      y_row[n] = static_cast<float>(sum);
    }
  }
}

template <typename Tile>
struct Operators {
  using Block = typename Tile::Block;

  static void rows(const void* w, size_t row_bytes, const BlockQ8A* x, size_t x_stride, float* y,
                   size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K, int64_t T) {
    matmul<Block, Tile::kBlockWeights>(w, row_bytes, x, x_stride, y, y_stride, row_begin, row_end,
                                       K, T);
  }
  static void tiles(const void* w, size_t row_bytes, const BlockQ8A* x, size_t x_stride, float* y,
                    size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K, int64_t T) {
    for (int64_t n = row_begin; n < row_end; ++n) {
      const unsigned char* tile = row_of(w, row_bytes, n / kTileRows * kTileRows);
      for (int64_t t = 0; t < T; ++t) {
        const BlockQ8A* x_row = x + static_cast<size_t>(t) * x_stride;
        double sum = 0;
        for (int64_t b = 0; b < K / Tile::kBlockWeights; ++b)
          sum += dot_block(unpack_block(Tile{}, piece_of<Tile>(tile, b), n % kTileRows),
                           x_row + b * (Tile::kBlockWeights / 32));
        y[static_cast<size_t>(t) * y_stride + static_cast<size_t>(n)] = static_cast<float>(sum);
      }
    }
  }
  static void pack(const void* rows, size_t row_bytes, int64_t K, void* tile) {
    pack_tile<PlainTranspose, Tile>(rows, row_bytes, K, tile);
  }
  static void unpack(const void* tile, int64_t row, int64_t K, void* blocks) {
    for (int64_t b = 0; b < K / Tile::kBlockWeights; ++b) {
      const Block block =
          unpack_block(Tile{}, piece_of<Tile>(static_cast<const unsigned char*>(tile), b), row);
      std::memcpy(static_cast<unsigned char*>(blocks) + static_cast<size_t>(b) * sizeof block,
                  &block, sizeof block);
    }
  }
  static constexpr KernelTable::Quantised all() { return {rows, tiles, pack, unpack}; }
};

}  // namespace

void put_quantised_products(KernelTable& table) {
  table.q4_0 = Operators<TileQ4_0>::all();
  table.q8_0 = Operators<TileQ8_0>::all();
  table.q4_k = Operators<TileQ4_K>::all();
  table.q6_k = Operators<TileQ6_K>::all();
}

}  // namespace tandem::cpu::scalar

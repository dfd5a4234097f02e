// Walks a matrix product in tiles of rows and tokens.  Unnamed on purpose: each file has its own
// copy, compiled for its own instruction set.
//
// A Kernel has kRows, kTokens and  template <int R, int T> static void tile(rows, row_bytes, x,
// x_stride, y, y_stride, K)  with R in {kRows, 1} and T in {kTokens, 1}.  Every tile does the same
// operations in the same order for one (row, token), so results do not depend on which tile
// computed them. The rows of a tile stay in the first or second level cache while the tokens pass.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tandem::cpu {
namespace {

template <typename Kernel, int R, typename X>
inline void tiles_of_tokens(const unsigned char* rows, size_t row_bytes, const X* x,
                            size_t x_stride, float* y, size_t y_stride, int64_t K, int64_t T) {
  int64_t t = 0;
  for (; t + Kernel::kTokens <= T; t += Kernel::kTokens)
    Kernel::template tile<R, Kernel::kTokens>(rows, row_bytes,
                                              x + static_cast<size_t>(t) * x_stride, x_stride,
                                              y + static_cast<size_t>(t) * y_stride, y_stride, K);
  for (; t < T; ++t)
    Kernel::template tile<R, 1>(rows, row_bytes, x + static_cast<size_t>(t) * x_stride, x_stride,
                                y + static_cast<size_t>(t) * y_stride, y_stride, K);
}

template <typename Kernel, typename X>
inline void multiply_in_tiles(const void* w, size_t row_bytes, const X* x, size_t x_stride,
                              float* y, size_t y_stride, int64_t row_begin, int64_t row_end,
                              int64_t K, int64_t T) {
  const unsigned char* base = static_cast<const unsigned char*>(w);
  int64_t n = row_begin;
  for (; n + Kernel::kRows <= row_end; n += Kernel::kRows)
    tiles_of_tokens<Kernel, Kernel::kRows>(base + static_cast<size_t>(n) * row_bytes, row_bytes, x,
                                           x_stride, y + n, y_stride, K, T);
  for (; n < row_end; ++n)
    tiles_of_tokens<Kernel, 1>(base + static_cast<size_t>(n) * row_bytes, row_bytes, x, x_stride,
                               y + n, y_stride, K, T);
}

// Asks for the cache line that lies distance bytes after p; may lie outside the matrix.
inline void prefetch(const void* p, size_t distance) {
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(p) + distance), 0,
                     3);
}

// How far ahead of the current byte weights are asked for.  CPU ms for 2 GiB of q4_k in huge pages, one
// thread, Sapphire Rapids shared with other work, two runs each: 0: 187, 188; 512: 166, 167;
// 1024: 173, 177; 2048: 183, 183; 4096: 179, 180.
constexpr size_t kPrefetchBytes = 1024;

}  // namespace
}  // namespace tandem::cpu

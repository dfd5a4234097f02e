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

// Activations of the tokens that pass the rows one after the other; they stay in the second level cache.
constexpr int64_t kTokenBytes = int64_t{1} << 20;

template <typename Kernel, typename X>
inline void multiply_in_tiles(const void* w, size_t row_bytes, const X* x, size_t x_stride,
                              float* y, size_t y_stride, int64_t row_begin, int64_t row_end,
                              int64_t K, int64_t T) {
  const unsigned char* base = static_cast<const unsigned char*>(w);
  const int64_t fitting = kTokenBytes / (K * static_cast<int64_t>(sizeof(X))) / 8 * 8;
  const int64_t at_once = fitting > 8 ? fitting : 8;
  for (int64_t t = 0; t < T; t += at_once) {
    const int64_t n_tokens = T - t < at_once ? T - t : at_once;
    const X* const x_block = x + static_cast<size_t>(t) * x_stride;
    float* const y_block = y + static_cast<size_t>(t) * y_stride;
    int64_t n = row_begin;
    for (; n + Kernel::kRows <= row_end; n += Kernel::kRows)
      tiles_of_tokens<Kernel, Kernel::kRows>(base + static_cast<size_t>(n) * row_bytes, row_bytes,
                                             x_block, x_stride, y_block + n, y_stride, K, n_tokens);
    for (; n < row_end; ++n)
      tiles_of_tokens<Kernel, 1>(base + static_cast<size_t>(n) * row_bytes, row_bytes, x_block,
                                 x_stride, y_block + n, y_stride, K, n_tokens);
  }
}

// Asks for the cache line that lies distance bytes after p; may lie outside the matrix.
inline void prefetch(const void* p, size_t distance) {
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(p) + distance), 0,
                     3);
}

// How far ahead of the current byte weights are asked for.  Time for 1 GiB of weights in huge pages
// against that with 1024, one thread: median of 9 rounds that took every distance in random order,
// Sapphire Rapids shared with other work.
//             avx512: 0     256   512   768   2048      avx2: 512   768
//   q4_k              1.08  0.95  0.96  0.97  1.05            0.92  0.97
//   q6_k              1.12  1.07  1.00  0.97  1.04            0.96  0.96
//   q4_0              1.08  0.99  0.97  0.97  1.06            0.88  0.92
//   q8_0              1.04  1.05  1.01  0.99  1.01            0.97  0.98
//   f16               1.14  1.12  1.04  0.97  1.01            0.99  0.96
// 512 is best where four bits are unpacked and loses to 768 elsewhere.  With 4 KiB pages, avx512
// and two threads, 768 takes 0.98 to 1.01 of 1024's time.
constexpr size_t kPrefetchBytes = 768;

}  // namespace
}  // namespace tandem::cpu

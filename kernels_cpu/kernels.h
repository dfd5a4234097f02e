// The operators of the CPU: one table of function pointers per instruction set.  dispatch.h picks
// one.
//
// Threading: every function is re-entrant, keeps no state and starts no thread; the caller splits
// rows. Ownership: raw pointers to the caller's memory; nothing is allocated or kept. Errors: none;
// shapes are the caller's duty.  NaN and infinity in values or scales give NaN or infinity, never a
// crash.
//
// Shapes use the letters of base/shapes.h.  docs/numerics.md states each operator's arithmetic and
// bound. Only <cstdint>, <cstddef> and the block structs: files of every instruction set include
// this one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/blocks.h"

namespace tandem::cpu {

struct KernelTable {
  // y[t * y_stride + n] = dot(row n of W, row t of x) for n in [row_begin, row_end), t in [0, T).
  // W [N,K]: row n starts at w + n * row_bytes, any alignment.  x [T,K] with x_stride elements
  // (floats or blocks) between rows.  Overwrites y; y overlaps neither W nor x. The result for one
  // (n, t) is bit-identical whatever T, the row range and the alignment. W is read from memory
  // once; several tokens share each decoded piece of it.
  using MatmulFloat = void(const void* w, size_t row_bytes, const float* x, size_t x_stride,
                           float* y, size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K,
                           int64_t T);
  // Requires: K a multiple of the format's block (32, or 256 for the K formats).
  using MatmulQ8A = void(const void* w, size_t row_bytes, const BlockQ8A* x, size_t x_stride,
                         float* y, size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K,
                         int64_t T);

  // Sixteen rows of a matrix to a tile of the same size, see tiles.h; the tile overlaps none of them.
  using PackTile = void(const void* rows, size_t row_bytes, int64_t K, void* tile);
  // One row (0 to 15) out of a tile: K weights as the file has them.
  using UnpackRow = void(const void* tile, int64_t row, int64_t K, void* blocks);

  // Products with one quantised format, from rows as files have them or from tiles; both give the
  // same bits.  matmul_tiles requires: row_begin and row_end are multiples of 16; tile n / 16 starts
  // at w + n * row_bytes.
  struct Quantised {
    MatmulQ8A* matmul;
    MatmulQ8A* matmul_tiles;
    PackTile* pack_tile;
    UnpackRow* unpack_row;
  };

  // x [K] to K / 32 blocks.  Requires: K % 32 == 0.  Bit-identical in every instruction set.
  // A block whose largest magnitude is below 2^-118 becomes zero; one with a NaN or infinity gets
  // d = NaN, so that whatever it touches becomes NaN.
  using QuantizeQ8A = void(const float* x, BlockQ8A* q, int64_t K);

  // Blocks (any alignment) to y [K], bit-exact with the gguf Python package.
  // Requires: K a multiple of the format's block.
  using Dequantize = void(const void* blocks, float* y, int64_t K);

  // y = x / sqrt(mean(x^2) + eps) * weight.  x, weight, y: [D]; y may be x.
  using RmsNorm = void(const float* x, const float* weight, float eps, float* y, int64_t D);

  using Add = void(float* y, const float* x, int64_t n);                 // y += x
  using ScaledAdd = void(float* y, const float* x, float a, int64_t n);  // y += a * x

  // y = gate * sigmoid(gate) * up; y may be gate or up.
  using SiluMul = void(const float* gate, const float* up, float* y, int64_t n);

  // Turns the first n_rot of every head's E values of one token, in place.  x [n_heads,E]; cosines
  // and sines [n_rot/2].  Pair i is (2i, 2i+1) for normal and (i, i + n_rot/2) for neox. Requires:
  // n_rot even, n_rot <= E.
  using Rope = void(float* x, const float* cosines, const float* sines, int64_t n_heads, int64_t E,
                    int64_t n_rot);

  // One page of one key-value head, for the R query heads that share it.
  // q [R,E]; k, v [n,E] float32, float16 or, where E % 32 == 0, BlockQ8_0 [n,E/32]; scores: workspace [R,n].  Overwrites, for each r:
  //   m[r] = max over i of scale * dot(q[r], k[i])     s[r] = sum of p[r][i] = exp(score - m[r])
  //   acc[r,E] = sum of p[r][i] * v[i]
  // n == 0 gives m = -infinity, s = 0, acc = 0: the neutral element of merge_partials.
  using AttendPage = void(const float* q, const void* k, const void* v, int64_t n, int64_t R,
                          int64_t E, float scale, float* scores, float* m, float* s, float* acc);

  // Folds the second partial result into the first.  m, s [R]; acc [R,E].  The attention output is
  // acc / s once all pages are folded.
  using MergePartials = void(float* m, float* s, float* acc, const float* m2, const float* s2,
                             const float* acc2, int64_t R, int64_t E);

  // Rounds to nearest even; overflow gives infinity; NaN stays NaN.
  using StoreF16 = void(const float* x, Half* y, int64_t n);

  // Router: softmax over all X logits, then the U most probable, most probable first (of equals,
  // the lower id first).  weights are the probabilities, divided by their sum if renormalise.
  // Logits without a softmax (NaN, +infinity) give ids 0..U-1 and NaN weights.  Requires: 0 < U <=
  // X.
  using Route = void(const float* logits, int64_t X, int64_t U, bool renormalise, int32_t* ids,
                     float* weights);

  const char* isa;  // as TANDEM_CPU_ISA names it

  MatmulFloat* matmul_f32;
  MatmulFloat* matmul_f16;
  MatmulFloat* matmul_bf16;
  Quantised q4_0, q8_0, q4_k, q6_k;
  QuantizeQ8A* quantize_q8a;
  Dequantize* dequantize_f32;
  Dequantize* dequantize_f16;
  Dequantize* dequantize_bf16;
  Dequantize* dequantize_q4_0;
  Dequantize* dequantize_q8_0;
  Dequantize* dequantize_q4_k;
  Dequantize* dequantize_q6_k;
  RmsNorm* rms_norm;
  Add* add;
  ScaledAdd* scaled_add;
  SiluMul* silu_mul;
  Rope* rope_normal;
  Rope* rope_neox;
  AttendPage* attend_page_f32;
  AttendPage* attend_page_f16;
  AttendPage* attend_page_q8_0;
  MergePartials* merge_partials;
  StoreF16* store_f16;
  Route* route;
};

}  // namespace tandem::cpu

// Matrix products with float32, float16 and bfloat16 weights.  Contract: MatmulFloat in kernels.h.
// Products and sums in double, rounded once.
#include "kernels_cpu/scalar.h"
#include "kernels_cpu/scalar_helpers.h"

namespace tandem::cpu::scalar {
namespace {

template <typename Stored, float (*to_float)(Stored)>
void matmul(const void* w, size_t row_bytes, const float* x, size_t x_stride, float* y,
            size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K, int64_t T) {
  for (int64_t t = 0; t < T; ++t) {
    const float* x_row = x + static_cast<size_t>(t) * x_stride;
    float* y_row = y + static_cast<size_t>(t) * y_stride;
    for (int64_t n = row_begin; n < row_end; ++n) {
      const unsigned char* row = row_of(w, row_bytes, n);
      double sum = 0;
      for (int64_t k = 0; k < K; ++k)
        sum += double{to_float(load<Stored>(row, k))} * double{x_row[k]};
      y_row[n] = static_cast<float>(sum);
    }
  }
}

float same(float value) { return value; }

}  // namespace

void matmul_f32(const void* w, size_t row_bytes, const float* x, size_t x_stride, float* y,
                size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K, int64_t T) {
  matmul<float, same>(w, row_bytes, x, x_stride, y, y_stride, row_begin, row_end, K, T);
}

void matmul_f16(const void* w, size_t row_bytes, const float* x, size_t x_stride, float* y,
                size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K, int64_t T) {
  matmul<Half, half_to_float>(w, row_bytes, x, x_stride, y, y_stride, row_begin, row_end, K, T);
}

void matmul_bf16(const void* w, size_t row_bytes, const float* x, size_t x_stride, float* y,
                 size_t y_stride, int64_t row_begin, int64_t row_end, int64_t K, int64_t T) {
  matmul<uint16_t, bf16_to_float>(w, row_bytes, x, x_stride, y, y_stride, row_begin, row_end, K, T);
}

}  // namespace tandem::cpu::scalar

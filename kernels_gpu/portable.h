// What kernels are written with, so that the same text runs on a card and, block by block, on the host.
//
// A kernel is a struct with kThreads, a Shared type and
//
//   static void run(const Block<kThreads>&, Shared&, const Arguments&)
//
// which consists of phases: block.phase(f) runs f(thread) for every thread of the block; a barrier ends it.
// Code between phases is the same for all threads: it keeps values in local variables, reads no Shared, and reads no
// memory that a phase of the kernel writes.  What a thread keeps from one phase to the next stands in Shared.
//
// On the host the threads of a phase run one after the other, in an order that the test chooses: a kernel that lacks
// a barrier gives another result for another order.  Instructions that move values between threads of a warp, and tensor
// cores, do not fit this form; kernels that want them stand beside a portable one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define TANDEM_DEVICE __device__ __forceinline__
#define TANDEM_UNROLL _Pragma("unroll")
#else
#define TANDEM_DEVICE inline
#define TANDEM_UNROLL
#endif

namespace tandem::gpu {

#if defined(__CUDACC__)

template <int kThreads>
class Block {
 public:
  // Which block of how many, along the grid's two sides.
  __device__ int64_t x() const { return blockIdx.x; }
  __device__ int64_t n_x() const { return gridDim.x; }
  __device__ int64_t y() const { return blockIdx.y; }
  __device__ int64_t n_y() const { return gridDim.y; }

  template <typename F>
  __device__ __forceinline__ void phase(F&& f) const {
    f(static_cast<int>(threadIdx.x));
    __syncthreads();
  }
};

#else

// The order in which the host runs the threads of a phase and the blocks of a grid.
enum class HostOrder { kForward, kBackward, kScattered };

// The i-th of n in that order.  Scattered: steps of a prime, which visits all of any n below it.
inline int64_t in_order(HostOrder order, int64_t i, int64_t n) {
  constexpr int64_t kPrime = 2147483647;
  if (order == HostOrder::kForward) return i;
  if (order == HostOrder::kBackward) return n - 1 - i;
  return (i * kPrime + n / 2) % n;
}

template <int kThreads>
class Block {
 public:
  Block(int64_t x, int64_t n_x, int64_t y, int64_t n_y, HostOrder order)
      : x_(x), n_x_(n_x), y_(y), n_y_(n_y), order_(order) {}
  int64_t x() const { return x_; }
  int64_t n_x() const { return n_x_; }
  int64_t y() const { return y_; }
  int64_t n_y() const { return n_y_; }

  template <typename F>
  void phase(F&& f) const {
    for (int i = 0; i < kThreads; ++i) f(static_cast<int>(in_order(order_, i, kThreads)));
  }

 private:
  int64_t x_, n_x_, y_, n_y_;
  HostOrder order_;
};

#endif

struct NoShared {};

// f(i) for i in [0,n), each by one thread of the grid.  A whole kernel: nothing may follow it that reads the results.
template <int kThreads, typename F>
TANDEM_DEVICE void for_each(const Block<kThreads>& block, int64_t n, F&& f) {
  block.phase([&](int thread) {
    for (int64_t i = block.x() * kThreads + thread; i < n; i += block.n_x() * kThreads) f(i);
  });
}

// partial[0] becomes the sum of partial[kThreads], in a fixed order: halves added to halves.
template <int kThreads, typename T>
TANDEM_DEVICE void sum_partials(const Block<kThreads>& block, T* partial) {
  static_assert((kThreads & (kThreads - 1)) == 0, "halves of halves have to be whole");
  for (int width = kThreads / 2; width > 0; width /= 2) {
    block.phase([&](int thread) {
      if (thread < width) partial[thread] += partial[thread + width];
    });
  }
}

template <typename T>
TANDEM_DEVICE T smaller(T a, T b) {
  return b < a ? b : a;
}

template <typename T>
TANDEM_DEVICE T larger(T a, T b) {
  return a < b ? b : a;
}

// The same bits as another type.
template <typename To, typename From>
TANDEM_DEVICE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "bits are neither added nor dropped");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace tandem::gpu

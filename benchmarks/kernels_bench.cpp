// What the kernels reach: GB/s of weights and operations per second of the matrix products for each format, layout, number of
// tokens and threads, beside plain reads of the same bytes in the same process; GB/s of keys and values of attention.
//
//   kernels_bench [--benchmark_filter=...]     TANDEM_CPU_ISA forces an instruction set
//
// The weights (2 GiB in huge pages) are walked end to end as many matrices of one shape, so no cache helps; with many tokens
// fewer of them.  Keys and values stay in cache.
#include <benchmark/benchmark.h>
#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kernels_cpu/dispatch.h"

namespace {

using tandem::BlockQ8A;
using tandem::cpu::KernelTable;

constexpr size_t kArenaBytes = size_t{2} << 30;
constexpr size_t kHugePageBytes = size_t{2} << 20;
constexpr int64_t kRows = 2048, kColumns = 8192;  // the down projection of a 1B model

struct Format {
  const char* name;
  size_t row_bytes;
  KernelTable::MatmulFloat* KernelTable::*matmul_float;
  KernelTable::Quantised KernelTable::*quantised;
};

// Random bytes in which every float16 and float32 is a small number.
class Arena {
 public:
  Arena() {
    void* memory = mmap(nullptr, kArenaBytes + kHugePageBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      std::perror("mmap");
      std::exit(1);
    }
    const uintptr_t start = reinterpret_cast<uintptr_t>(memory);
    bytes_ = reinterpret_cast<unsigned char*>((start + kHugePageBytes - 1) / kHugePageBytes *
                                              kHugePageBytes);
    madvise(bytes_, kArenaBytes, MADV_HUGEPAGE);
    std::mt19937_64 random(1);
    for (size_t i = 0; i < kArenaBytes; i += 8) {
      // In each half clears the top exponent bit and one below, and sets a lower one: no infinity, no NaN,
      // nothing large, and nothing subnormal, which would cost the processor an assist.
      const uint64_t bits = (random() & 0xafffafffafffafffull) | 0x0800080008000800ull;
      std::memcpy(bytes_ + i, &bits, 8);
    }
  }
  const unsigned char* bytes() const { return bytes_; }

 private:
  unsigned char* bytes_;  // lives as long as the program
};

const Arena& arena() {
  static const Arena instance;
  return instance;
}

// Runs work(thread) on `count` threads at once and waits.  Started anew each time: what it costs
// (tens of microseconds) is small beside the 100 ms of a pass.
template <typename Work>
void on_threads(int count, const Work& work) {
  std::vector<std::thread> threads;
  for (int thread = 1; thread < count; ++thread) threads.emplace_back(work, thread);
  work(0);
  for (std::thread& thread : threads) thread.join();
}

// Sums 64 bytes at a time with eight accumulators; the processor's prefetcher does the rest.
uint64_t read_all(const unsigned char* begin, size_t n_bytes, size_t ahead_bytes) {
  __m128i sums[8] = {};
  for (size_t i = 0; i < n_bytes; i += 128) {
    if (ahead_bytes > 0) {
      _mm_prefetch(reinterpret_cast<const char*>(begin + i + ahead_bytes), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(begin + i + ahead_bytes + 64), _MM_HINT_T0);
    }
    for (size_t j = 0; j < 8; ++j)
      sums[j] = _mm_xor_si128(sums[j],
                              _mm_load_si128(reinterpret_cast<const __m128i*>(begin + i + j * 16)));
  }
  for (size_t j = 1; j < 8; ++j) sums[0] = _mm_xor_si128(sums[0], sums[j]);
  return static_cast<uint64_t>(_mm_cvtsi128_si64(sums[0]));
}

void report(benchmark::State& state, size_t bytes_per_pass) {
  state.counters["GB/s"] = benchmark::Counter(static_cast<double>(bytes_per_pass) * 1e-9,
                                              benchmark::Counter::kIsIterationInvariantRate);
}

void read_bandwidth(benchmark::State& state, int n_threads, size_t ahead_bytes) {
  const size_t share = kArenaBytes / static_cast<size_t>(n_threads);
  const unsigned char* bytes = arena().bytes();
  for (auto pass : state)
    on_threads(n_threads, [=](int thread) {
      benchmark::DoNotOptimize(
          read_all(bytes + static_cast<size_t>(thread) * share, share, ahead_bytes));
    });
  report(state, kArenaBytes);
}

// One pass over the arena as matrices [kRows, kColumns], rows split evenly over the threads as in a
// step.
void matmul(benchmark::State& state, const KernelTable* kernels, const Format* format, bool tiles,
            int n_threads, int64_t n_tokens) {
  const size_t matrix_bytes = format->row_bytes * static_cast<size_t>(kRows);
  const int64_t n_matrices =
      std::max<int64_t>(1, static_cast<int64_t>(kArenaBytes / matrix_bytes) / n_tokens);
  std::vector<float> x(static_cast<size_t>(kColumns * n_tokens), 0.5f);
  std::vector<BlockQ8A> q(x.size() / 32);
  kernels->quantize_q8a(x.data(), q.data(), kColumns * n_tokens);
  std::vector<float> y(static_cast<size_t>(kRows * n_tokens));
  const auto work = [&](int thread) {
    const int64_t begin = kRows * thread / n_threads, end = kRows * (thread + 1) / n_threads;
    for (int64_t i = 0; i < n_matrices; ++i) {
      const unsigned char* w = arena().bytes() + static_cast<size_t>(i) * matrix_bytes;
      if (format->matmul_float != nullptr)
        (kernels->*format->matmul_float)(w, format->row_bytes, x.data(), kColumns, y.data(), kRows,
                                         begin, end, kColumns, n_tokens);
      else
        (tiles ? (kernels->*format->quantised).matmul_tiles : (kernels->*format->quantised).matmul)(
            w, format->row_bytes, q.data(), kColumns / 32, y.data(), kRows, begin, end, kColumns,
            n_tokens);
    }
    benchmark::DoNotOptimize(y.data());
  };
  for (auto pass : state) on_threads(n_threads, work);
  report(state, matrix_bytes * static_cast<size_t>(n_matrices));
  state.counters["GFLOP/s"] =
      benchmark::Counter(2e-9 * static_cast<double>(kRows * kColumns * n_matrices * n_tokens),
                         benchmark::Counter::kIsIterationInvariantRate);
}

// One page of 64 positions after the other, eight of them in turn.
void attend(benchmark::State& state, const KernelTable* kernels, int64_t n_heads, int64_t width) {
  constexpr int64_t kPositions = 64, kPages = 8;
  const auto page = static_cast<size_t>(kPositions * width);
  std::vector<float> q(static_cast<size_t>(n_heads * width), 0.01f), scores(64 * q.size());
  std::vector<float> m(q.size()), s(q.size()), acc(q.size());
  std::vector<tandem::Half> keys(kPages * page, 0x3000), values(kPages * page, 0x3000);
  size_t i = 0;
  for (auto pass : state) {
    const size_t at = i++ % kPages * page;
    kernels->attend_page_f16(q.data(), keys.data() + at, values.data() + at, kPositions, n_heads,
                             width, 0.1f, scores.data(), m.data(), s.data(), acc.data());
    benchmark::DoNotOptimize(acc.data());
  }
  report(state, 2 * page * sizeof(tandem::Half));
}

const std::vector<Format>& formats() {
  using K = KernelTable;
  static const std::vector<Format> all = {
      {"f32", kColumns * 4, &K::matmul_f32, nullptr},
      {"f16", kColumns * 2, &K::matmul_f16, nullptr},
      {"bf16", kColumns * 2, &K::matmul_bf16, nullptr},
      {"q8_0", kColumns / 32 * 34, nullptr, &K::q8_0},
      {"q4_0", kColumns / 32 * 18, nullptr, &K::q4_0},
      {"q4_k", kColumns / 256 * 144, nullptr, &K::q4_k},
      {"q6_k", kColumns / 256 * 210, nullptr, &K::q6_k},
  };
  return all;
}

void register_all(const KernelTable* kernels) {
  const auto add = [](const std::string& name, auto run) {
    benchmark::RegisterBenchmark(name.c_str(), run)->UseRealTime()->Unit(benchmark::kMillisecond);
  };
  for (const int threads : {1, 2}) {
    const std::string suffix = "/threads:" + std::to_string(threads);
    for (const size_t ahead : {size_t{0}, size_t{1024}, size_t{4096}})
      add("read/ahead:" + std::to_string(ahead) + suffix,
          [=](benchmark::State& state) { read_bandwidth(state, threads, ahead); });
    for (const Format& format : formats())
      for (const bool tiles : {false, true})
        for (const int64_t tokens : {1, 4, 16, 128, 512}) {
          if (tiles && format.quantised == nullptr) continue;
          add(std::string(kernels->isa) + "/" + format.name + (tiles ? "/tiles" : "/rows") +
                  "/T:" + std::to_string(tokens) + suffix,
              [=, &format](benchmark::State& state) {
                matmul(state, kernels, &format, tiles, threads, tokens);
              });
        }
  }
  for (const int64_t heads : {1, 4, 8})
    for (const int64_t width : {64, 128})
      add(std::string(kernels->isa) + "/attend_f16/R:" + std::to_string(heads) +
              "/E:" + std::to_string(width),
          [=](benchmark::State& state) { attend(state, kernels, heads, width); });
}

}  // namespace

int main(int argc, char** argv) {
  const KernelTable* kernels = nullptr;
  const tandem::Status status = tandem::cpu::choose(std::getenv("TANDEM_CPU_ISA"), &kernels);
  if (!status.ok()) {
    std::fprintf(stderr, "TANDEM_CPU_ISA: %s\n", status.message().c_str());
    return 1;
  }
  register_all(kernels);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  (void)arena();  // made before anything is timed
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

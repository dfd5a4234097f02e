// How long an operation takes on a processor, and a copy over the link.
//
// A bound first: bytes over bandwidth or multiply-adds over the peak, whichever is longer, plus a fixed cost.  Then what
// was measured: for each kind of operation, weight type, processor and range of multiply-adds per byte (powers of two, so
// that what limits it is the same within a range) a line through measured seconds over bounds, whose old points count 5 %
// less with every new one.  Points are weighted by 1/bound^2, so that small and large ones are met equally well relative to
// their size.  Where all have nearly one size, the line goes through zero.
//
// One outlier does little.  Of the first three points the fastest is believed: cold caches make them slow, nothing makes
// them fast.  From the fourth to the eighth the line is the median of those through two points (Theil-Sen).  Later a point
// counts as at most 1.4 times more or less than what was predicted for it, but for the third in a row, and those after it,
// that is out of this range on the same side: then the machine has changed.
//
// First form: each operation as if it ran alone.  CPU, copies and device share DRAM bandwidth; that is not in here yet.
//
// Threading: const methods from many threads, or observe() from one.  Ownership: allocates when made, never later.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "base/dtype.h"
#include "device/device.h"
#include "machine/machine.h"
#include "model/program.h"

namespace tandem {

struct ProcessorRates {
  double bytes_per_second = 0;          // > 0, of its memory
  double multiply_adds_per_second = 0;  // > 0
  double fixed_seconds = 0;             // of one operation: a barrier, a launch
};

struct PredictorRates {
  ProcessorRates cpu, device;
  double link_bytes_per_second = 0;  // > 0
  double link_latency_seconds = 0;
  bool learns = true;  // false: these stay, whatever is observed
};

// What to begin with.  `cpu_gb_per_s`: measured (profiler/).  What a device does not say is taken from its other rates;
// see the definition for what is assumed.
PredictorRates rates_of(const Machine& machine, unsigned n_threads, double cpu_gb_per_s,
                        const DeviceInfo* device);

// What an operation moves and computes.
struct Work {
  OpKind kind = OpKind::kMatmul;
  Processor processor = Processor::kCpu;  // kCpu or kDevice
  DType type = DType::kF32;               // of the weight
  double bytes = 0;                       // read and written
  double multiply_adds = 0;
};

struct StepSize {
  int64_t n_tokens = 1;
  int64_t n_outputs = 1;
  int64_t n_pairs = 0;           // of the experts that this processor computes
  int64_t n_active_experts = 0;  // of these
  int64_t n_context = 0;         // positions attended to
  KvType kv_type = KvType::kF16;
};
Work work_of(const Program& program, const Op& op, Processor processor, const StepSize& size);

enum class LinkDirection : uint8_t { kUp, kDown };

// Measured seconds over bounds, as said above.
class MeasuredLine {
 public:
  // 0: nothing measured yet.
  uint64_t n_observed() const { return n_observed_; }
  // Requires: bound > 0.
  double seconds(double bound) const;
  void observe(double bound, double seconds);

 private:
  static constexpr size_t kFirst = 8;
  struct Point {
    double bound, seconds;
  };
  struct Line {
    double slope = 0, fixed = 0;
    double at(double bound) const { return slope * bound + fixed; }
  };
  void fit_first();
  Line least_squares() const;
  double limited(double bound, double seconds);
  void add(double bound, double seconds);

  uint64_t n_observed_ = 0;
  Line line_;
  std::array<Point, kFirst> first_ = {};
  // Over 1/bound = u and seconds/bound = v: sums of 1, u, u^2, v, u*v, each fading.
  double n_ = 0, u_ = 0, uu_ = 0, v_ = 0, uv_ = 0;
  int n_out_of_range_ = 0;  // in a row; negative: too fast
};

class Predictor {
 public:
  explicit Predictor(const PredictorRates& rates);

  double seconds(const Work& work) const;
  // Ignored: times that are not above zero.
  void observe(const Work& work, double seconds);

  double transfer_seconds(LinkDirection direction, double bytes) const;
  void observe_transfer(LinkDirection direction, double bytes, double seconds);

  // Observations behind seconds(work).
  uint64_t n_observed(const Work& work) const;

 private:
  static constexpr size_t kRanges =
      12;  // of multiply-adds per byte: below 1, 1 .. 2, ... 1024 and above
  struct Lines {
    std::array<MeasuredLine, kRanges> ranges;
    MeasuredLine all;  // for ranges that were not seen yet
  };
  size_t index(const Work& work) const;
  const ProcessorRates& rates(const Work& work) const {
    return work.processor == Processor::kDevice ? rates_.device : rates_.cpu;
  }
  double bound(const Work& work) const;
  static size_t range(const Work& work);

  PredictorRates rates_;
  std::vector<Lines> lines_;
  std::array<MeasuredLine, 2> link_;
};

}  // namespace tandem

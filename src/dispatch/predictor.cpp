#include "dispatch/predictor.h"

#include <algorithm>
#include <cmath>

#include "model/lowering.h"

namespace tandem {
namespace {

constexpr double kFade = 0.95;
constexpr double kRange = 1.4;
constexpr size_t kBelieveFastest = 3;
constexpr int kInARow = 3;
constexpr double kMinSpread = 0.0025;  // variance of 1/bound over its mean squared: 5 % apart
constexpr double kLeastBound = 1e-9;

constexpr size_t kKinds = static_cast<size_t>(OpKind::kGatherOutputs) + 1;
constexpr std::array kTypes = {DType::kF32,  DType::kF16,  DType::kQ4_0, DType::kQ8_0,
                               DType::kQ4_K, DType::kQ6_K, DType::kBF16};

}  // namespace

double MeasuredLine::seconds(double bound) const { return line_.at(bound); }

// v = slope + fixed * u through the points so far; neither may be negative.
void MeasuredLine::fit_first() {
  const size_t n = static_cast<size_t>(n_observed_);
  std::array<double, kFirst*(kFirst - 1) / 2> candidates = {};
  const auto median = [&](size_t count) {
    const auto middle = candidates.begin() + static_cast<ptrdiff_t>((count - 1) / 2);
    std::nth_element(candidates.begin(), middle,
                     candidates.begin() + static_cast<ptrdiff_t>(count));
    return *middle;
  };
  size_t n_pairs = 0;
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < i; ++j) {
      const double ui = 1 / first_[i].bound, uj = 1 / first_[j].bound;
      if (std::abs(ui - uj) < 0.05 * std::max(ui, uj)) continue;
      const double vi = first_[i].seconds * ui, vj = first_[j].seconds * uj;
      candidates[n_pairs++] = (vi - vj) / (ui - uj);
    }
  }
  const bool through_zero = n <= kBelieveFastest || n_pairs == 0;
  line_.fixed = through_zero ? 0 : std::max(median(n_pairs), 0.0);
  for (size_t i = 0; i < n; ++i) {
    candidates[i] = (first_[i].seconds - line_.fixed) / first_[i].bound;
  }
  line_.slope =
      n <= kBelieveFastest
          ? *std::min_element(candidates.begin(), candidates.begin() + static_cast<ptrdiff_t>(n))
          : std::max(median(n), 0.0);
}

MeasuredLine::Line MeasuredLine::least_squares() const {
  const double mean_u = u_ / n_, mean_v = v_ / n_;
  const double spread = uu_ / n_ - mean_u * mean_u;
  if (spread < kMinSpread * mean_u * mean_u) return {mean_v, 0};
  const double fixed = (uv_ / n_ - mean_u * mean_v) / spread;
  const double slope = mean_v - fixed * mean_u;
  if (fixed < 0) return {mean_v, 0};
  if (slope < 0) return {0, uv_ / uu_};
  return {slope, fixed};
}

void MeasuredLine::add(double bound, double seconds) {
  const double u = 1 / bound, v = seconds / bound;
  n_ = n_ * kFade + 1;
  u_ = u_ * kFade + u;
  uu_ = uu_ * kFade + u * u;
  v_ = v_ * kFade + v;
  uv_ = uv_ * kFade + u * v;
}

// What an observation counts as.
double MeasuredLine::limited(double bound, double measured) {
  const double predicted = line_.at(bound);
  const double low = predicted / kRange, high = predicted * kRange;
  const int side = measured > high ? 1 : measured < low ? -1 : 0;
  n_out_of_range_ = side * n_out_of_range_ > 0 ? n_out_of_range_ + side : side;
  if (std::abs(n_out_of_range_) >= kInARow) return measured;
  return std::clamp(measured, low, high);
}

void MeasuredLine::observe(double bound, double measured) {
  if (n_observed_ >= kFirst) {
    ++n_observed_;
    add(bound, limited(bound, measured));
    line_ = least_squares();
    return;
  }
  first_[static_cast<size_t>(n_observed_++)] = {bound, measured};
  fit_first();
  if (n_observed_ < kFirst) return;
  for (const Point& point : first_) {
    const double at = line_.at(point.bound);
    add(point.bound, std::clamp(point.seconds, at / kRange, at * kRange));
  }
  line_ = least_squares();
}

Predictor::Predictor(const PredictorRates& rates)
    : rates_(rates), lines_(kKinds * kTypes.size() * 2) {}

size_t Predictor::index(const Work& work) const {
  const auto found = std::find(kTypes.begin(), kTypes.end(), work.type);
  const size_t type = found == kTypes.end() ? 0 : static_cast<size_t>(found - kTypes.begin());
  const size_t device = work.processor == Processor::kDevice ? 1 : 0;
  return (static_cast<size_t>(work.kind) * kTypes.size() + type) * 2 + device;
}

size_t Predictor::range(const Work& work) {
  const double per_byte = work.multiply_adds / std::max(work.bytes, 1.0);
  if (!(per_byte >= 1)) return 0;
  return std::min(static_cast<size_t>(std::ilogb(per_byte)) + 1, kRanges - 1);
}

double Predictor::bound(const Work& work) const {
  const ProcessorRates& r = rates(work);
  return std::max({work.bytes / r.bytes_per_second, work.multiply_adds / r.multiply_adds_per_second,
                   kLeastBound});
}

double Predictor::seconds(const Work& work) const {
  const Lines& lines = lines_[index(work)];
  const double x = bound(work);
  const MeasuredLine& line = lines.ranges[range(work)];
  if (line.n_observed() > 0) return line.seconds(x);
  if (lines.all.n_observed() > 0) return lines.all.seconds(x);
  return x + rates(work).fixed_seconds;
}

void Predictor::observe(const Work& work, double seconds) {
  if (!rates_.learns || !(seconds > 0) || !std::isfinite(seconds)) return;
  Lines& lines = lines_[index(work)];
  lines.ranges[range(work)].observe(bound(work), seconds);
  lines.all.observe(bound(work), seconds);
}

uint64_t Predictor::n_observed(const Work& work) const {
  const Lines& lines = lines_[index(work)];
  const MeasuredLine& line = lines.ranges[range(work)];
  return line.n_observed() > 0 ? line.n_observed() : lines.all.n_observed();
}

double Predictor::transfer_seconds(LinkDirection direction, double bytes) const {
  const double x = std::max(bytes / rates_.link_bytes_per_second, kLeastBound);
  const MeasuredLine& line = link_[static_cast<size_t>(direction)];
  return line.n_observed() > 0 ? line.seconds(x) : x + rates_.link_latency_seconds;
}

void Predictor::observe_transfer(LinkDirection direction, double bytes, double seconds) {
  if (!rates_.learns || !(seconds > 0) || !std::isfinite(seconds)) return;
  const double x = std::max(bytes / rates_.link_bytes_per_second, kLeastBound);
  link_[static_cast<size_t>(direction)].observe(x, seconds);
}

// ---------------------------------------------------------------- rates to begin with

PredictorRates rates_of(const Machine& machine, unsigned n_threads, double cpu_gb_per_s,
                        const DeviceInfo* device) {
  PredictorRates rates;
  // One vector of int8 products a cycle at 3 GHz; two or three instructions make it, and as many are issued.
  const double per_cycle = machine.cpu.has("avx512bw") ? 64 : machine.cpu.has("avx2") ? 32 : 4;
  rates.cpu.bytes_per_second = std::max(cpu_gb_per_s, 1.0) * 1e9;
  rates.cpu.multiply_adds_per_second = std::max(n_threads, 1u) * 3e9 * per_cycle;
  rates.cpu.fixed_seconds = 2e-6;  // a barrier of the team
  // A device that does not know its memory is believed to have this computer's; a link, half of it, as each byte is read
  // and written.  Ten multiply-adds a byte is what graphics cards of the last ten years have at least.
  const double memory = device != nullptr ? device->memory_gb_per_s : 0;
  const double link = device != nullptr ? device->link_gb_per_s : 0;
  rates.device.bytes_per_second = memory > 0 ? memory * 1e9 : rates.cpu.bytes_per_second;
  rates.device.multiply_adds_per_second = 10 * rates.device.bytes_per_second;
  rates.device.fixed_seconds = 5e-6;  // a launch
  rates.link_bytes_per_second = link > 0 ? link * 1e9 : rates.cpu.bytes_per_second / 2;
  rates.link_latency_seconds = 10e-6;
  return rates;
}

// ---------------------------------------------------------------- work

namespace {

double rows_in(RowSpace space, const StepSize& size) {
  switch (space) {
    case RowSpace::kTokens:
      return static_cast<double>(size.n_tokens);
    case RowSpace::kPairs:
      return static_cast<double>(size.n_pairs);
    case RowSpace::kOutputs:
      return static_cast<double>(size.n_outputs);
    case RowSpace::kStep:
      return 1;
  }
  return 0;
}

double value_bytes(const Program& program, ValueId value, const StepSize& size) {
  if (value == kNoId) return 0;
  const Value& v = program.values[value];
  return rows_in(v.rows, size) *
         static_cast<double>(value_row_bytes(program, v, std::max<int64_t>(size.n_tokens, 1)));
}

// Keys and values of the context, once for all tokens of the step.
void add_attention(const Program& program, const StepSize& size, Work& work) {
  const ModelShape& s = program.shape;
  const double context = static_cast<double>(size.n_context);
  const auto row = static_cast<double>(kv_row_bytes(size.kv_type, s.head_width));
  work.bytes += 2 * context * static_cast<double>(s.n_kv_heads) * row;
  work.multiply_adds +=
      2 * context * static_cast<double>(s.query_width()) * static_cast<double>(size.n_tokens);
}

}  // namespace

Work work_of(const Program& program, const Op& op, Processor processor, const StepSize& size) {
  Work work;
  work.kind = op.kind;
  work.processor = processor;
  work.bytes = value_bytes(program, op.in[0], size) + value_bytes(program, op.in[1], size) +
               value_bytes(program, op.out, size);
  if (op.kind == OpKind::kAttend || op.kind == OpKind::kAttendPages)
    add_attention(program, size, work);
  if (op.weight == kNoId || op.kind == OpKind::kListPairs) return work;
  const Weight& weight = program.weights[op.weight];
  work.type = weight.type;
  const double rows = static_cast<double>(weight.rows), cols = static_cast<double>(weight.cols);
  const double weight_bytes = rows * static_cast<double>(weight.row_bytes());
  if (op.kind == OpKind::kExpertMatmul) {
    work.bytes += weight_bytes * static_cast<double>(size.n_active_experts);
    work.multiply_adds += rows * cols * static_cast<double>(size.n_pairs);
  } else if (op.kind == OpKind::kMatmul) {
    work.bytes += weight_bytes;
    work.multiply_adds += rows * cols * rows_in(program.values[op.out].rows, size);
  } else if (op.kind == OpKind::kEmbed) {
    work.bytes += static_cast<double>(weight.row_bytes() * static_cast<size_t>(size.n_tokens));
  } else {
    work.bytes += weight_bytes;
  }
  return work;
}

}  // namespace tandem

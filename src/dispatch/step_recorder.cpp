#include "dispatch/step_recorder.h"

#include <algorithm>

#include "model/lowering.h"

namespace tandem {
namespace {

constexpr size_t kOtherActivities = 256;  // of a step: its input, pages that move, copies to caches

uint64_t weight_bytes(const Program& program, const Op& op, const StepSize& size) {
  if (op.weight == kNoId || op.kind == OpKind::kListPairs) return 0;
  const Weight& weight = program.weights[op.weight];
  const int64_t rows = op.kind == OpKind::kExpertMatmul ? weight.rows * size.n_active_experts
                       : op.kind == OpKind::kEmbed      ? size.n_tokens
                                                        : weight.rows;
  return static_cast<uint64_t>(rows) * weight.row_bytes();
}

// 0 for none.
double copied_bytes(const Program& program, const LoweredProgram& lowered, ValueId id,
                    const StepSize& size) {
  if (id == kNoId) return 0;
  return static_cast<double>(lowered.step_bytes(program, id, size.n_tokens, size.n_outputs));
}

double seconds_between(int64_t begin_ns, int64_t end_ns) {
  return static_cast<double>(end_ns - begin_ns) * 1e-9;
}

// Whether what it took depends on experts that the device did not count.
bool lacks_size(const Program& program, const DeviceActivity& activity) {
  const Op& op = program.ops[static_cast<size_t>(activity.operation)];
  const bool of_pairs = op.out != kNoId && program.values[op.out].rows == RowSpace::kPairs;
  return of_pairs && activity.rows < 0;
}

}  // namespace

StepRecorder::StepRecorder(const PredictorRates& rates, size_t records_per_lane)
    : trace_(records_per_lane), predictor_(rates) {}

void StepRecorder::reserve(const Program& program, size_t n_cpu_tasks, size_t n_device_tasks) {
  const std::lock_guard lock(mutex_);
  cpu_.resize(std::max(cpu_.size(), n_cpu_tasks));
  cpu_seconds_.resize(cpu_.size());
  device_seconds_.resize(std::max(device_seconds_.size(), n_device_tasks));
  activities_.resize(2 * device_seconds_.size() + kOtherActivities);
  operation_seconds_.resize(std::max(operation_seconds_.size(), program.ops.size()));
}

void StepRecorder::begin() {
  std::fill(cpu_.begin(), cpu_.end(), CpuTimes{});
  begin_ns_ = Trace::now_ns();
}

void StepRecorder::observed(const DeviceActivity& activity) noexcept {
  const std::lock_guard lock(mutex_);
  if (n_activities_ == activities_.size()) {
    ++n_lost_;
    return;
  }
  activities_[n_activities_++] = activity;
}

void StepRecorder::finish(const Finished& step) {
  const int64_t end_ns = Trace::now_ns();
  const std::lock_guard lock(mutex_);
  std::fill(operation_seconds_.begin(), operation_seconds_.end(), 0);
  finish_cpu(step);
  for (size_t i = 0; i < n_activities_; ++i) {
    const DeviceActivity& activity = activities_[i];
    using Kind = DeviceActivity::Kind;
    if (activity.kind == Kind::kCopyUp) {
      finish_copy(activity, TraceLane::kLinkUp, LinkDirection::kUp);
    } else if (activity.kind == Kind::kCopyDown) {
      finish_copy(activity, TraceLane::kLinkDown, LinkDirection::kDown);
    } else {
      finish_operation(step, activity);
    }
  }
  trace_.write(TraceLane::kStep, {.name = step.name,
                                  .begin_ns = begin_ns_,
                                  .end_ns = end_ns,
                                  .predicted_seconds = predicted_step(step)});
  n_activities_ = 0;
}

// A task's operations are timed together: each is taken to have had the share that was predicted for it.
void StepRecorder::finish_cpu(const Finished& step) {
  for (size_t t = 0; t < step.schedule.cpu.size(); ++t) {
    const CpuTimes& times = cpu_[t];
    cpu_seconds_[t] = 0;
    if (times.end_ns == 0) continue;
    const Step& done = step.lowered.steps[step.schedule.cpu[t].step];
    StepSize size = step.size;
    size.n_pairs = times.n_pairs;
    size.n_active_experts = times.n_active_experts;
    const Op* const ops = &step.program.ops[done.first_op];
    TraceRecord record;
    record.name = operation_name(ops->kind);
    record.layer = ops->layer;
    record.begin_ns = times.begin_ns;
    record.end_ns = times.end_ns;
    const auto predicted = [&](const Op& op) {
      return predictor_.seconds(work_of(step.program, op, Processor::kCpu, size));
    };
    for (uint32_t i = 0; i < done.n_ops; ++i) {
      record.predicted_seconds += predicted(ops[i]);
      record.bytes += weight_bytes(step.program, ops[i], size);
    }
    const double slower =
        seconds_between(times.begin_ns, times.end_ns) / std::max(record.predicted_seconds, 1e-12);
    for (uint32_t i = 0; i < done.n_ops; ++i) {
      predictor_.observe(work_of(step.program, ops[i], Processor::kCpu, size),
                         predicted(ops[i]) * slower);
    }
    cpu_seconds_[t] = record.predicted_seconds;
    trace_.write(TraceLane::kCpu, record);
  }
}

void StepRecorder::finish_operation(const Finished& step, const DeviceActivity& activity) {
  TraceRecord record;
  record.name = activity.name;
  record.layer = activity.layer;
  record.begin_ns = activity.begin_ns;
  record.end_ns = activity.end_ns;
  record.bytes = activity.bytes;
  const auto index = static_cast<size_t>(activity.operation);
  if (activity.kind == DeviceActivity::Kind::kGraph) {
    record.predicted_seconds = predict_graph(step);
  } else if (activity.operation >= 0 && index < step.program.ops.size() &&
             !lacks_size(step.program, activity)) {
    const Op& op = step.program.ops[index];
    StepSize size = step.size;
    size.n_pairs = activity.rows;
    if (op.kind == OpKind::kExpertMatmul) {
      const Weight& weight = step.program.weights[op.weight];
      const uint64_t of_one = static_cast<uint64_t>(weight.rows) * weight.row_bytes();
      size.n_active_experts = static_cast<int64_t>(activity.bytes / of_one);
    }
    const Work work = work_of(step.program, op, Processor::kDevice, size);
    record.predicted_seconds = operation_seconds_[index] = predictor_.seconds(work);
    predictor_.observe(work, seconds_between(record.begin_ns, record.end_ns));
  }
  trace_.write(TraceLane::kDevice, record);
}

void StepRecorder::finish_copy(const DeviceActivity& activity, TraceLane lane,
                               LinkDirection direction) {
  TraceRecord record;
  record.name = activity.name;
  record.begin_ns = activity.begin_ns;
  record.end_ns = activity.end_ns;
  record.bytes = activity.bytes;
  const auto bytes = static_cast<double>(activity.bytes);
  record.predicted_seconds = predictor_.transfer_seconds(direction, bytes);
  predictor_.observe_transfer(direction, bytes, seconds_between(record.begin_ns, record.end_ns));
  trace_.write(lane, record);
}

// As many experts as there can be: which of them are the device's it alone knows.
double StepRecorder::predict_graph(const Finished& step) {
  StepSize size = step.size;
  size.n_pairs = size.n_tokens * step.program.shape.n_experts_used;
  size.n_active_experts = std::min(size.n_pairs, step.program.shape.n_experts);
  double seconds = 0;
  for (const DeviceTask& task : step.schedule.device) {
    if (task.kind != DeviceTask::Kind::kLaunch) continue;
    const Work work = work_of(step.program, step.program.ops[task.index], Processor::kDevice, size);
    seconds += operation_seconds_[task.index] = predictor_.seconds(work);
  }
  return seconds;
}

// 0 where the device's part was not measured, or the CPU's was given up.
double StepRecorder::predicted_step(const Finished& step) {
  const std::vector<DeviceTask>& tasks = step.schedule.device;
  const auto cpu = std::span(cpu_seconds_).first(step.schedule.cpu.size());
  const auto device = std::span(device_seconds_).first(tasks.size());
  if ((n_activities_ == 0 && !tasks.empty()) ||
      std::find(cpu.begin(), cpu.end(), 0.0) != cpu.end()) {
    return 0;
  }
  for (size_t i = 0; i < tasks.size(); ++i) {
    const bool up = tasks[i].kind == DeviceTask::Kind::kCopyUp;
    device[i] = tasks[i].kind == DeviceTask::Kind::kLaunch
                    ? operation_seconds_[tasks[i].index]
                    : predictor_.transfer_seconds(
                          up ? LinkDirection::kUp : LinkDirection::kDown,
                          copied_bytes(step.program, step.lowered, tasks[i].index, step.size) +
                              copied_bytes(step.program, step.lowered, tasks[i].also, step.size));
  }
  return finish_times(step.schedule, cpu, device);
}

TraceSummary StepRecorder::summarize() const {
  const std::lock_guard lock(mutex_);
  TraceSummary summary = trace_.summarize();
  summary.n_dropped += n_lost_;
  return summary;
}

Status StepRecorder::write_perfetto(const std::filesystem::path& path) const {
  const std::lock_guard lock(mutex_);
  return trace_.write_perfetto(path);
}

void StepRecorder::clear() {
  const std::lock_guard lock(mutex_);
  trace_.clear();
  n_lost_ = 0;
}

}  // namespace tandem

// Measures what the tasks of both lanes take in each step of an Executor, and writes it to a Trace beside what was
// predicted; the Predictor learns from it.
//
// During a step times are only put down; predictions are made, and learned from, when it is over, with what is known then
// of the experts that were active.
//
// Threading: begin(), cpu_task() and finish() by the thread that computes; observed() by the device's; what reads, any.
// Ownership: owns trace and predictor; allocates when made and in reserve(), never in a step.
// Errors: those of writing a file.
#pragma once

#include <filesystem>
#include <mutex>
#include <string_view>
#include <vector>

#include "device/device.h"
#include "dispatch/predictor.h"
#include "dispatch/schedule.h"
#include "dispatch/trace.h"

namespace tandem {

class StepRecorder final : public DeviceObserver {
 public:
  StepRecorder(const PredictorRates& rates, size_t records_per_lane);

  // ---- for the Executor ----
  // For schedules of at most so many tasks.
  void reserve(const Program& program, size_t n_cpu_tasks, size_t n_device_tasks);
  // A step begins now.
  void begin();
  struct CpuTimes {
    int64_t begin_ns = 0, end_ns = 0;  // 0: was not done
    int64_t n_pairs = 0, n_active_experts = 0;
  };
  void cpu_task(uint32_t task, const CpuTimes& times) { cpu_[task] = times; }
  struct Finished {
    std::string_view name;  // a literal
    const Program& program;
    const LoweredProgram& lowered;
    const Schedule& schedule;
    StepSize size;  // without experts
  };
  // The step is over, or was given up.
  void finish(const Finished& step);

  void observed(const DeviceActivity& activity) noexcept override;

  // As it was after the last finish().  By the threads of a step, or between steps.
  const Predictor& predictor() const { return predictor_; }

  // ---- for whoever wants to know; between two steps ----
  TraceSummary summarize() const;
  Status write_perfetto(const std::filesystem::path& path) const;
  void clear();

 private:
  void finish_cpu(const Finished& step);
  void finish_operation(const Finished& step, const DeviceActivity& activity);
  void finish_copy(const DeviceActivity& activity, TraceLane lane, LinkDirection direction);
  double predict_graph(const Finished& step);
  double predicted_step(const Finished& step);

  std::vector<CpuTimes> cpu_;  // [tasks]
  int64_t begin_ns_ = 0;

  mutable std::mutex mutex_;  // guards the rest
  std::vector<DeviceActivity> activities_;
  size_t n_activities_ = 0;
  uint64_t n_lost_ = 0;  // activities there was no room for
  Trace trace_;
  Predictor predictor_;
  std::vector<double> operation_seconds_;             // [ops] predicted of the device's
  std::vector<double> cpu_seconds_, device_seconds_;  // [tasks] predicted
};

}  // namespace tandem

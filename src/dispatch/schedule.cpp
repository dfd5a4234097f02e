#include "dispatch/schedule.h"

#include <algorithm>
#include <iterator>

#include "base/status.h"

namespace tandem {
namespace {

struct Bytes {
  size_t begin = 0, end = 0;
  bool overlaps(const Bytes& other) const { return begin < other.end && other.begin < end; }
};

// A task that touches bytes of the host's arena.
struct Touch {
  uint32_t task;
  Bytes bytes;
  bool writes;
};

class Maker {
 public:
  Maker(const Program& program, const LoweredProgram& lowered, uint32_t end_step,
        Schedule& schedule)
      : program_(program), lowered_(lowered), end_step_(end_step), schedule_(schedule) {}

  void add_step(uint32_t step);
  // Makes a value valid on a side.
  void bring(ValueId value, Side side);

 private:
  uint8_t& valid(ValueId value) { return schedule_.valid[value]; }
  void bring_inputs(const Op& op, Side side);
  void bring_early(uint32_t step);
  void bring_other_share(ValueId value, Side side);
  void copy(ValueId value, Side to, bool other);
  bool joins_last_copy(ValueId value, DeviceTask::Kind kind) const;
  void add_cpu_task(uint32_t step);
  void add_launches(uint32_t step);
  void add_choice(uint32_t step);
  void mark_outputs(const Op& op, Processor processor);

  Bytes bytes_of(ValueId value, bool other = false) const;
  // The last task of a lane that a touch of these bytes must come after, plus one.
  static uint32_t needed(const std::vector<Touch>& touches, const Bytes& bytes, bool writes);
  uint32_t device_after_cpu(uint32_t progress);
  uint32_t cpu_after_device(uint32_t progress);

  const Program& program_;
  const LoweredProgram& lowered_;
  const uint32_t end_step_;
  Schedule& schedule_;
  bool brought_down_ = false;              // something, for the step that is being added
  std::vector<Touch> by_cpu_, by_device_;  // of host memory
  uint32_t device_knows_ =
      0;                    // progress of the CPU's lane that the device's last task has behind it
  uint32_t cpu_knows_ = 0;  // and the other way round
  uint32_t cpu_wants_ = 0;  // what the CPU's next task needs of the device's lane
};

Bytes Maker::bytes_of(ValueId value, bool other) const {
  const size_t begin = (other ? lowered_.other_offset : lowered_.offset)[value];
  return {begin, begin + lowered_.value_bytes(program_, value)};
}

uint32_t Maker::needed(const std::vector<Touch>& touches, const Bytes& bytes, bool writes) {
  for (size_t i = touches.size(); i-- > 0;) {
    const Touch& touch = touches[i];
    if ((writes || touch.writes) && touch.bytes.overlaps(bytes)) return touch.task + 1;
  }
  return 0;
}

// What the device's next task has to wait for, so that it comes after this much of the CPU's lane.
uint32_t Maker::device_after_cpu(uint32_t progress) {
  if (progress <= device_knows_) return 0;
  schedule_.cpu[progress - 1].announce = true;
  device_knows_ = progress;
  return progress;
}

uint32_t Maker::cpu_after_device(uint32_t progress) {
  if (progress <= cpu_knows_) return 0;
  schedule_.device[progress - 1].announce = true;
  cpu_knows_ = progress;
  return progress;
}

// Each copy pays the link's latency: two values that lie side by side and fill their places cross as one.
bool Maker::joins_last_copy(ValueId value, DeviceTask::Kind kind) const {
  if (lowered_.options.max_tokens != 1 || schedule_.device.empty()) return false;
  const DeviceTask& last = schedule_.device.back();
  if (last.kind != kind || last.other || last.announce || last.also != kNoId) return false;
  return lowered_.are_neighbours(program_, last.index, value);
}

void Maker::copy(ValueId value, Side to, bool other) {
  const bool down = to == kValidOnCpu;
  const Bytes host = bytes_of(value, down && other);
  const auto kind = down ? DeviceTask::Kind::kCopyDown : DeviceTask::Kind::kCopyUp;
  const uint32_t progress = needed(by_cpu_, host, /*writes=*/down);
  if (!other && progress <= device_knows_ && joins_last_copy(value, kind)) {
    schedule_.device.back().also = value;
  } else {
    schedule_.device.push_back(
        {.kind = kind, .other = other, .index = value, .wait = device_after_cpu(progress)});
  }
  const auto index = static_cast<uint32_t>(schedule_.device.size() - 1);
  by_device_.push_back({index, host, down});
  if (down) cpu_wants_ = std::max(cpu_wants_, index + 1);
  brought_down_ = brought_down_ || down;
}

void Maker::bring(ValueId value, Side side) {
  if ((valid(value) & side) != 0) return;
  TANDEM_ASSERT(valid(value) == kValidOnCpu || valid(value) == kValidOnDevice);
  copy(value, side, /*other=*/false);
  valid(value) |= side;
}

void Maker::bring_other_share(ValueId value, Side side) { copy(value, side, /*other=*/true); }

void Maker::bring_inputs(const Op& op, Side side) {
  // The last operand first: the lists of what the other processor computes are there long before the rows.
  for (size_t i = std::size(op.in); i-- > 0;) {
    const ValueId value = op.in[i];
    if (value == kNoId) continue;
    const bool shared = valid(value) == kShares;
    if (!shared) {
      bring(value, side);
    } else if (op.kind == OpKind::kCombine &&
               lowered_.other_offset[value] != LoweredProgram::kNoOffset) {
      bring_other_share(value, side);
    }
  }
}

// What the CPU's next steps need of the device and could have now comes now, so that the CPU waits once for all of it.
void Maker::bring_early(uint32_t s) {
  for (; s < end_step_ && lowered_.steps[s].processor != Processor::kDevice; ++s) {
    const Step& step = lowered_.steps[s];
    for (uint32_t i = step.first_op; i < step.first_op + step.n_ops; ++i) {
      for (const ValueId value : program_.ops[i].in) {
        if (value != kNoId && valid(value) == kValidOnDevice) bring(value, kValidOnCpu);
      }
    }
  }
}

void Maker::mark_outputs(const Op& op, Processor processor) {
  for (const ValueId value : {op.out, op.out2}) {
    if (value == kNoId) continue;
    valid(value) = processor == Processor::kCpu      ? kValidOnCpu
                   : processor == Processor::kDevice ? kValidOnDevice
                                                     : kShares;
  }
}

void Maker::add_launches(uint32_t s) {
  const Step& step = lowered_.steps[s];
  for (uint32_t i = step.first_op; i < step.first_op + step.n_ops; ++i) {
    schedule_.device.push_back({.kind = DeviceTask::Kind::kLaunch, .index = i});
  }
}

void Maker::add_cpu_task(uint32_t s) {
  const Step& step = lowered_.steps[s];
  const auto index = static_cast<uint32_t>(schedule_.cpu.size());
  for (uint32_t i = step.first_op; i < step.first_op + step.n_ops; ++i) {
    const Op& op = program_.ops[i];
    for (const ValueId value : {op.out, op.out2}) {
      if (value == kNoId) continue;
      cpu_wants_ = std::max(cpu_wants_, needed(by_device_, bytes_of(value), /*writes=*/true));
      by_cpu_.push_back({index, bytes_of(value), true});
    }
    for (const ValueId value : op.in) {
      if (value == kNoId) continue;
      by_cpu_.push_back({index, bytes_of(value), false});
      if (op.kind == OpKind::kCombine &&
          lowered_.other_offset[value] != LoweredProgram::kNoOffset) {
        by_cpu_.push_back({index, bytes_of(value, /*other=*/true), false});
      }
    }
  }
  schedule_.cpu.push_back({.step = s, .wait = cpu_after_device(cpu_wants_), .announce = false});
}

void Maker::add_choice(uint32_t s) {
  add_cpu_task(s);
  const size_t first = schedule_.device.size();
  add_launches(s);
  schedule_.device[first].chosen = true;
  schedule_.device[first].wait = device_after_cpu(static_cast<uint32_t>(schedule_.cpu.size()));
}

void Maker::add_step(uint32_t s) {
  const Step& step = lowered_.steps[s];
  const bool on_cpu = step.processor != Processor::kDevice;
  const bool on_device = step.processor != Processor::kCpu;
  brought_down_ = false;
  for (uint32_t i = step.first_op; i < step.first_op + step.n_ops; ++i) {
    const Op& op = program_.ops[i];
    if (on_cpu) bring_inputs(op, kValidOnCpu);
    if (on_device) bring_inputs(op, kValidOnDevice);
    mark_outputs(op, step.processor);
  }
  if (on_cpu && brought_down_) bring_early(s + 1);
  const Op& first = program_.ops[step.first_op];
  if (on_cpu && on_device && first.kind == OpKind::kListPairs && !schedule_.choosing.empty() &&
      schedule_.choosing[static_cast<size_t>(first.layer)]) {
    return add_choice(s);
  }
  if (on_device) add_launches(s);
  if (on_cpu) add_cpu_task(s);
}

}  // namespace

Schedule make_schedule(const Program& program, const LoweredProgram& lowered, uint32_t first_step,
                       uint32_t end_step, const std::vector<uint8_t>& valid,
                       const std::vector<bool>& choosing) {
  Schedule schedule;
  schedule.choosing = choosing;
  schedule.valid = valid;
  schedule.valid.resize(program.values.size(), kNowhere);
  Maker maker(program, lowered, end_step, schedule);
  for (uint32_t s = first_step; s < end_step; ++s) maker.add_step(s);
  if (end_step == lowered.steps.size()) maker.bring(program.logits, kValidOnCpu);
  return schedule;
}

double finish_times(const Schedule& schedule, std::span<double> cpu, std::span<double> device) {
  // Ends tasks of one lane until one of them waits for a task of the other that has not ended.
  const auto advance = [](const auto& tasks, std::span<double> ends, size_t& n_ended,
                          std::span<const double> other, size_t n_other) {
    const size_t before = n_ended;
    for (; n_ended < tasks.size() && tasks[n_ended].wait <= n_other; ++n_ended) {
      const uint32_t wait = tasks[n_ended].wait;
      const double free_at = n_ended > 0 ? ends[n_ended - 1] : 0;
      ends[n_ended] += std::max(free_at, wait > 0 ? other[wait - 1] : 0);
    }
    return n_ended > before;
  };
  size_t n_cpu = 0, n_device = 0;
  while (advance(schedule.cpu, cpu, n_cpu, device, n_device) ||
         advance(schedule.device, device, n_device, cpu, n_cpu)) {
  }
  TANDEM_ASSERT(n_cpu == schedule.cpu.size() && n_device == schedule.device.size());
  return std::max(cpu.empty() ? 0 : cpu.back(), device.empty() ? 0 : device.back());
}

}  // namespace tandem

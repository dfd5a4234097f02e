// A lowered Program for two processors: what each of them does, in which order, what crosses the link between them, and
// who waits for whom.
//
// Each processor has a lane, a list of tasks that it does in order: the CPU's are steps of the lowered Program, the
// device's are operations and copies on one stream.  Both lists follow the Program, so that each lane may run ahead of the
// other until it needs something.  Its waits are for a lane's progress, the number of its tasks that are done:
// one is made where a task touches host memory that the other lane touches too, at least one of them writing, unless an
// earlier wait covers it.  Device memory is touched by the device's lane alone.
//
// Threading and ownership: plain data, immutable once made; refers to nothing.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/lowering.h"

namespace tandem {

// Where values are valid: bits.
enum Side : uint8_t {
  kNowhere = 0,
  kValidOnCpu = 1,
  kValidOnDevice = 2,
  kShares = 4,  // each side has what it computed itself
};

struct CpuTask {
  uint32_t step = 0;
  uint32_t wait = 0;      // progress of the device's lane that must be reached before; 0: none
  bool announce = false;  // somebody waits for it: progress is raised to its place + 1 after it
};

struct DeviceTask {
  enum class Kind : uint8_t { kLaunch, kCopyDown, kCopyUp };
  Kind kind = Kind::kLaunch;
  bool other = false;  // a copy to the place of the other processor's share
  bool chosen =
      false;  // lists the experts of a layer where the CPU has just chosen who computes them
  bool announce = false;
  uint32_t index = 0;  // of the operation, or of the value that is copied
  ValueId also =
      kNoId;          // another value, beside the first in the arena, that crosses in the same copy
  uint32_t wait = 0;  // progress of the CPU's lane that must be reached before; 0: none
};

struct Schedule {
  std::vector<CpuTask> cpu;
  std::vector<DeviceTask> device;
  std::vector<uint8_t> valid;  // [values] Sides, after it
  std::vector<bool>
      choosing;  // [L] where the CPU chooses in the middle of the step who computes an expert; or none
};

// Of the steps [first_step, end_step).  `valid`: where values are valid before it; empty: nowhere.  Logits, if they are
// computed, end on the CPU.  `choosing`: as the member; the device lists the experts of such a layer after the CPU did.
Schedule make_schedule(const Program& program, const LoweredProgram& lowered, uint32_t first_step,
                       uint32_t end_step, const std::vector<uint8_t>& valid,
                       const std::vector<bool>& choosing = {});

// When both lanes are through, if each task begins as soon as its lane and what it waits for let it.  `cpu` and `device`:
// seconds of each task, overwritten with when it ends.
double finish_times(const Schedule& schedule, std::span<double> cpu, std::span<double> device);

}  // namespace tandem

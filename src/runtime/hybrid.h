// The second processor of an engine, if there is one, and what was decided about it.
//
// Threading: plan_hybrid() from any thread; the rest is constant.
// Ownership: owns the device.
// Errors: those of opening the device, of the place file and of choosing a placement; kInvalidArgument for words that are
// none of those expected.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "device/device.h"
#include "dispatch/placement.h"
#include "kernels_cpu/kernels.h"
#include "memory/kv_layout.h"

namespace tandem {

struct HybridOptions {
  std::string device = "none";       // as open_device() takes it
  std::string gpu_layers = "auto";   // or "all", or a number
  std::string cpu_experts = "0";     // of so many layers, or "all"
  bool expert_cache = true;          // what memory is left holds copies of experts
  bool split = true;                 // experts that the device lacks are computed by the CPU
  std::filesystem::path place_file;  // empty: none
  uint64_t device_memory = 0;        // bytes of it that may be used; 0: what is free
};

struct Hybrid {
  std::unique_ptr<Device> device;  // null: the CPU alone
  Placement placement;
  std::string summary =
      "all in RAM";  // "12 of 16 layers, the output on mirror, 512 experts in RAM"
};

struct HybridNeed {
  KvLayout kv;
  int64_t n_context = 0;
  uint64_t work_bytes = 0;  // of activations
};

Result<Hybrid> plan_hybrid(const Program& program, const HybridOptions& options,
                           const HybridNeed& need, const cpu::KernelTable& kernels);

}  // namespace tandem

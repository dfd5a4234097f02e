// What CPUID says about the processor that runs this thread.
#pragma once

#include <string>
#include <vector>

namespace tandem {

struct CpuFeatures {
  std::string model;   // "AMD Ryzen 7 7700X 8-Core Processor"; empty when it has none
  std::string vendor;  // "GenuineIntel"
  // Those that matter here, as /proc/cpuinfo spells them, and only where the operating system saves
  // their registers: "avx2", "avx512f", "amx_int8".
  std::vector<std::string> instruction_sets;
  bool hypervisor = false;  // a virtual machine: cache sizes and core kinds may be the host's

  bool operator==(const CpuFeatures&) const = default;
};

CpuFeatures read_cpu_features();

}  // namespace tandem

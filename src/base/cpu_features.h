// What CPUID says about the processor that runs this thread.  x86-64 only.
//
// Threading: any thread.  Errors: none; what the processor does not say is left out.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tandem {

struct CpuFeatures {
  std::string model;   // "AMD Ryzen 7 7700X 8-Core Processor"; empty when it has none
  std::string vendor;  // "GenuineIntel"
  // Those that matter here, as /proc/cpuinfo spells them, and only where the operating system saves
  // their registers: "avx2", "avx512f", "amx_int8".
  std::vector<std::string> instruction_sets;
  bool hypervisor = false;  // a virtual machine: cache sizes and core kinds may be the host's

  bool has(std::string_view instruction_set) const;

  bool operator==(const CpuFeatures&) const = default;
};

CpuFeatures read_cpu_features();

}  // namespace tandem

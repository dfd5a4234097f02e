#include "base/cpu_features.h"

#include <cpuid.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

namespace tandem {
namespace {

enum Register : unsigned { kEax, kEbx, kEcx, kEdx };
using Registers = std::array<unsigned, 4>;

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r = {};
  if (__get_cpuid_count(leaf, subleaf, &r[0], &r[1], &r[2], &r[3]) == 0) return {};
  return r;
}

// Which registers the operating system saves.  Requires: OSXSAVE.
uint64_t read_xcr0() {
  unsigned low = 0, high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

constexpr uint64_t kSse = 0x2, kAvx = 0x6, kAvx512 = 0xE6, kAmx = 0x60000;

struct Feature {
  const char* name;
  unsigned leaf, subleaf;
  Register where;
  unsigned bit;
  uint64_t saved;  // bits of XCR0 it needs
};

// Source: Intel 64 and IA-32 manual, volume 2A, CPUID.
constexpr Feature kFeatures[] = {
    {"sse4_2", 1, 0, kEcx, 20, kSse},        {"avx", 1, 0, kEcx, 28, kAvx},
    {"f16c", 1, 0, kEcx, 29, kAvx},          {"fma", 1, 0, kEcx, 12, kAvx},
    {"avx2", 7, 0, kEbx, 5, kAvx},           {"avx_vnni", 7, 1, kEax, 4, kAvx},
    {"avx512f", 7, 0, kEbx, 16, kAvx512},    {"avx512dq", 7, 0, kEbx, 17, kAvx512},
    {"avx512bw", 7, 0, kEbx, 30, kAvx512},   {"avx512vl", 7, 0, kEbx, 31, kAvx512},
    {"avx512vbmi", 7, 0, kEcx, 1, kAvx512},  {"avx512_vnni", 7, 0, kEcx, 11, kAvx512},
    {"avx512_bf16", 7, 1, kEax, 5, kAvx512}, {"avx512_fp16", 7, 0, kEdx, 23, kAvx512},
    {"amx_tile", 7, 0, kEdx, 24, kAmx},      {"amx_int8", 7, 0, kEdx, 25, kAmx},
    {"amx_bf16", 7, 0, kEdx, 22, kAmx},
};

std::string vendor() {
  const Registers r = cpuid(0, 0);
  std::string text(12, '\0');
  std::memcpy(text.data(), &r[kEbx], 4);
  std::memcpy(text.data() + 4, &r[kEdx], 4);
  std::memcpy(text.data() + 8, &r[kEcx], 4);
  return text;
}

// 48 bytes over three leaves, padded with NUL and spaces.
std::string brand() {
  if (cpuid(0x80000000, 0)[kEax] < 0x80000004) return "";
  std::string text;
  for (unsigned leaf = 0x80000002; leaf <= 0x80000004; ++leaf) {
    const Registers r = cpuid(leaf, 0);
    text.append(reinterpret_cast<const char*>(r.data()), sizeof(r));
  }
  text = text.c_str();
  const size_t first = text.find_first_not_of(' ');
  if (first == text.npos) return "";
  return text.substr(first, text.find_last_not_of(' ') - first + 1);
}

}  // namespace

bool CpuFeatures::has(std::string_view instruction_set) const {
  return std::find(instruction_sets.begin(), instruction_sets.end(), instruction_set) !=
         instruction_sets.end();
}

CpuFeatures read_cpu_features() {
  CpuFeatures features;
  features.vendor = vendor();
  features.model = brand();
  const unsigned flags = cpuid(1, 0)[kEcx];
  features.hypervisor = (flags >> 31 & 1) != 0;
  const bool osxsave = (flags >> 27 & 1) != 0;
  const uint64_t saved = osxsave ? read_xcr0() : kSse;
  for (const Feature& feature : kFeatures) {
    const unsigned bits = cpuid(feature.leaf, feature.subleaf)[feature.where];
    if ((bits >> feature.bit & 1) != 0 && (saved & feature.saved) == feature.saved) {
      features.instruction_sets.emplace_back(feature.name);
    }
  }
  return features;
}

}  // namespace tandem

#include "kernels_cpu/cpu_features.h"

#include <cpuid.h>

#include <cstdint>

namespace tandem::cpu {
namespace {

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// All zero for a leaf the processor does not have.
Registers cpuid(unsigned leaf) {
  Registers r;
  if (__get_cpuid_count(leaf, 0, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}

constexpr bool bit(unsigned value, int index) { return ((value >> index) & 1u) != 0; }

// The register state that the operating system saves at a task switch; 0 if it says nothing.
uint64_t saved_state() {
  const bool may_ask = bit(cpuid(1).ecx, 27);  // OSXSAVE
  if (!may_ask) return 0;
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

constexpr uint64_t kYmmState = 0x6;   // XMM and upper halves of YMM
constexpr uint64_t kZmmState = 0xe6;  // also mask registers, upper halves of ZMM, ZMM16-31

bool saves(uint64_t state) { return (saved_state() & state) == state; }

}  // namespace

bool has_avx2() {
  const Registers basic = cpuid(1), extended = cpuid(7);
  const bool fma = bit(basic.ecx, 12), avx = bit(basic.ecx, 28), f16c = bit(basic.ecx, 29);
  const bool avx2 = bit(extended.ebx, 5);
  return fma && avx && f16c && avx2 && saves(kYmmState);
}

bool has_avx512() {
  const Registers extended = cpuid(7);
  const bool f = bit(extended.ebx, 16), dq = bit(extended.ebx, 17), bw = bit(extended.ebx, 30),
             vl = bit(extended.ebx, 31), vnni = bit(extended.ecx, 11);
  return has_avx2() && f && dq && bw && vl && vnni && saves(kZmmState);
}

}  // namespace tandem::cpu

#include "kernels_cpu/amx_permission.h"

#include <sys/syscall.h>
#include <unistd.h>

namespace tandem::cpu {

// Source: Documentation/arch/x86/xstate.rst of the Linux kernel.
bool may_use_amx() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  static const bool allowed = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return allowed;
}

}  // namespace tandem::cpu

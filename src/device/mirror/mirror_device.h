// A Device made of this computer: memory of its own behind a link that takes time, streams with threads of their own,
// and operations computed by the CPU's kernels, or (timed) only taking time.
//
// What may happen with a real device happens here too: streams go on in any legal order, errors come late, memory runs
// out, copies fail, the device is lost.
//
// Threading, ownership, errors: as Device.
#pragma once

#include <memory>

#include "device/device.h"
#include "device/mirror/mirror_options.h"
#include "kernels_cpu/kernels.h"

namespace tandem::mirror {

// `kernels` compute the operations; the same as the CPU's give the same bits.
Result<std::unique_ptr<Device>> create_device(const MirrorOptions& options,
                                              const cpu::KernelTable& kernels);

}  // namespace tandem::mirror

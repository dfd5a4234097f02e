// Operators for processors with AMX-INT8 beside what avx512.h asks for.  Contracts in kernels.h.
#pragma once

#include "kernels_cpu/kernels.h"

namespace tandem::cpu::amx {

void put_quantised_products(KernelTable& table);

}  // namespace tandem::cpu::amx

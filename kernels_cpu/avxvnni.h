// Operators for processors with AVX2 and AVX-VNNI.  Contracts in kernels.h.
#pragma once

#include "kernels_cpu/kernels.h"

namespace tandem::cpu::avxvnni {

void put_quantised_products(KernelTable& table);

}  // namespace tandem::cpu::avxvnni

// Operators for processors with AVX-512 F, BW, VL, DQ and VNNI.  Contracts in kernels.h.
#pragma once

#include "kernels_cpu/kernels.h"

namespace tandem::cpu::avx512 {

KernelTable::MatmulFloat matmul_f32, matmul_f16, matmul_bf16;
void put_quantised_products(KernelTable& table);
KernelTable::QuantizeQ8A quantize_q8a;
KernelTable::RmsNorm rms_norm;
KernelTable::SiluMul silu_mul;
KernelTable::AttendPage attend_page_f32, attend_page_f16, attend_page_q8_0;
KernelTable::MergePartials merge_partials;
KernelTable::StoreF16 store_f16;

}  // namespace tandem::cpu::avx512

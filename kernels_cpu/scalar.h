// The reference operators: obvious, portable, kept for ever.  Contracts in kernels.h.
#pragma once

#include "kernels_cpu/kernels.h"

namespace tandem::cpu::scalar {

KernelTable::MatmulFloat matmul_f32, matmul_f16, matmul_bf16;
void put_quantised_products(KernelTable& table);
KernelTable::QuantizeQ8A quantize_q8a;
KernelTable::Dequantize dequantize_f32, dequantize_f16, dequantize_bf16, dequantize_q4_0,
    dequantize_q8_0, dequantize_q4_k, dequantize_q6_k;
KernelTable::RmsNorm rms_norm;
KernelTable::Add add;
KernelTable::ScaledAdd scaled_add;
KernelTable::SiluMul silu_mul;
KernelTable::Rope rope_normal, rope_neox;
KernelTable::AttendPage attend_page_f32, attend_page_f16, attend_page_q8_0;
KernelTable::MergePartials merge_partials;
KernelTable::StoreF16 store_f16;
KernelTable::Route route;

}  // namespace tandem::cpu::scalar

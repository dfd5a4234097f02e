#include "kernels_cpu/dispatch.h"

#include <string>
#include <string_view>

#include "kernels_cpu/scalar.h"

namespace tandem::cpu {
namespace {

constexpr KernelTable kScalarTable = {
    .isa = "scalar",
    .matmul_f32 = scalar::matmul_f32,
    .matmul_f16 = scalar::matmul_f16,
    .matmul_bf16 = scalar::matmul_bf16,
    .matmul_q4_0 = scalar::matmul_q4_0,
    .matmul_q8_0 = scalar::matmul_q8_0,
    .matmul_q4_k = scalar::matmul_q4_k,
    .matmul_q6_k = scalar::matmul_q6_k,
    .quantize_q8a = scalar::quantize_q8a,
    .dequantize_f32 = scalar::dequantize_f32,
    .dequantize_f16 = scalar::dequantize_f16,
    .dequantize_bf16 = scalar::dequantize_bf16,
    .dequantize_q4_0 = scalar::dequantize_q4_0,
    .dequantize_q8_0 = scalar::dequantize_q8_0,
    .dequantize_q4_k = scalar::dequantize_q4_k,
    .dequantize_q6_k = scalar::dequantize_q6_k,
    .rms_norm = scalar::rms_norm,
    .add = scalar::add,
    .scaled_add = scalar::scaled_add,
    .silu_mul = scalar::silu_mul,
    .rope_normal = scalar::rope_normal,
    .rope_neox = scalar::rope_neox,
    .attend_page_f32 = scalar::attend_page_f32,
    .attend_page_f16 = scalar::attend_page_f16,
    .merge_partials = scalar::merge_partials,
    .store_f16 = scalar::store_f16,
    .route = scalar::route,
};

constexpr Isa kAllIsas[] = {Isa::kScalar, Isa::kAvx2, Isa::kAvx512};

std::string_view name_of(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
  }
  return "";
}

// "scalar, avx2"
std::string available_names() {
  std::string names;
  for (const Isa isa : kAllIsas) {
    if (table_for(isa) == nullptr) continue;
    if (!names.empty()) names += ", ";
    names += name_of(isa);
  }
  return names;
}

}  // namespace

const KernelTable* table_for(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return &kScalarTable;
    case Isa::kAvx2:
    case Isa::kAvx512:
      return nullptr;
  }
  return nullptr;
}

Isa best_isa() {
  Isa best = Isa::kScalar;
  for (const Isa isa : kAllIsas)
    if (table_for(isa) != nullptr) best = isa;
  return best;
}

Status choose(const char* forced, const KernelTable** out) {
  const std::string_view wanted = forced == nullptr ? "" : forced;
  if (wanted.empty()) {
    *out = table_for(best_isa());
    return ok_status();
  }
  for (const Isa isa : kAllIsas) {
    if (name_of(isa) != wanted) continue;
    const KernelTable* table = table_for(isa);
    if (table == nullptr)
      return unsupported("instruction set '" + std::string(wanted) +
                         "' was asked for, but this build on this processor has only " +
                         available_names());
    *out = table;
    return ok_status();
  }
  return invalid_argument("unknown instruction set '" + std::string(wanted) +
                          "'; expected one of " + available_names());
}

}  // namespace tandem::cpu

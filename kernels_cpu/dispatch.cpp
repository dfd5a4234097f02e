#include "kernels_cpu/dispatch.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <string_view>

#include "kernels_cpu/scalar.h"
#if defined(TANDEM_VECTOR_KERNELS)
#include "base/cpu_features.h"
#include "kernels_cpu/avx2.h"
#include "kernels_cpu/avx512.h"
#endif

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

// The vector tables keep the scalar operators that are a negligible part of a step.
#if defined(TANDEM_VECTOR_KERNELS)
constexpr KernelTable make_avx2_table() {
  KernelTable table = kScalarTable;
  table.isa = "avx2";
  table.matmul_f32 = avx2::matmul_f32;
  table.matmul_f16 = avx2::matmul_f16;
  table.matmul_bf16 = avx2::matmul_bf16;
  table.matmul_q4_0 = avx2::matmul_q4_0;
  table.matmul_q8_0 = avx2::matmul_q8_0;
  table.matmul_q4_k = avx2::matmul_q4_k;
  table.matmul_q6_k = avx2::matmul_q6_k;
  table.quantize_q8a = avx2::quantize_q8a;
  table.rms_norm = avx2::rms_norm;
  table.silu_mul = avx2::silu_mul;
  table.attend_page_f32 = avx2::attend_page_f32;
  table.attend_page_f16 = avx2::attend_page_f16;
  table.store_f16 = avx2::store_f16;
  return table;
}

constexpr KernelTable make_avx512_table() {
  KernelTable table = kScalarTable;
  table.isa = "avx512";
  table.matmul_f32 = avx512::matmul_f32;
  table.matmul_f16 = avx512::matmul_f16;
  table.matmul_bf16 = avx512::matmul_bf16;
  table.matmul_q4_0 = avx512::matmul_q4_0;
  table.matmul_q8_0 = avx512::matmul_q8_0;
  table.matmul_q4_k = avx512::matmul_q4_k;
  table.matmul_q6_k = avx512::matmul_q6_k;
  table.quantize_q8a = avx512::quantize_q8a;
  table.rms_norm = avx512::rms_norm;
  table.silu_mul = avx512::silu_mul;
  table.attend_page_f32 = avx512::attend_page_f32;
  table.attend_page_f16 = avx512::attend_page_f16;
  table.store_f16 = avx512::store_f16;
  return table;
}

constexpr KernelTable kAvx2Table = make_avx2_table();
constexpr KernelTable kAvx512Table = make_avx512_table();

// What the files of each table are compiled for, in CMakeLists.txt.
constexpr const char* kAvx2Needs[] = {"avx", "avx2", "fma", "f16c"};
constexpr const char* kAvx512Needs[] = {"avx512f", "avx512bw", "avx512vl", "avx512dq",
                                        "avx512_vnni"};

const KernelTable* vector_table_for(Isa isa) {
  const CpuFeatures processor = read_cpu_features();
  const auto has = [&processor](const char* name) { return processor.has(name); };
  if (!std::all_of(std::begin(kAvx2Needs), std::end(kAvx2Needs), has)) return nullptr;
  if (isa == Isa::kAvx2) return &kAvx2Table;
  const bool avx512 = std::all_of(std::begin(kAvx512Needs), std::end(kAvx512Needs), has);
  return avx512 ? &kAvx512Table : nullptr;
}
#else
const KernelTable* vector_table_for(Isa) { return nullptr; }
#endif

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
  return isa == Isa::kScalar ? &kScalarTable : vector_table_for(isa);
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

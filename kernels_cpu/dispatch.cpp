#include "kernels_cpu/dispatch.h"

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>

#include "kernels_cpu/scalar.h"
#if defined(TANDEM_VECTOR_KERNELS)
#include "base/cpu_features.h"
#include "kernels_cpu/amx.h"
#include "kernels_cpu/amx_permission.h"
#include "kernels_cpu/avx2.h"
#include "kernels_cpu/avx512.h"
#include "kernels_cpu/avxvnni.h"
#endif

namespace tandem::cpu {
namespace {

KernelTable make_scalar_table() {
  KernelTable table = {
      .isa = "scalar",
      .matmul_f32 = scalar::matmul_f32,
      .matmul_f16 = scalar::matmul_f16,
      .matmul_bf16 = scalar::matmul_bf16,
      .q4_0 = {},
      .q8_0 = {},
      .q4_k = {},
      .q6_k = {},
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
      .attend_page_q8_0 = scalar::attend_page_q8_0,
      .merge_partials = scalar::merge_partials,
      .store_f16 = scalar::store_f16,
      .route = scalar::route,
  };
  scalar::put_quantised_products(table);
  return table;
}

#if defined(TANDEM_VECTOR_KERNELS)
// The vector tables keep the scalar operators that are a negligible part of a step.
KernelTable make_avx2_table() {
  KernelTable table = make_scalar_table();
  table.isa = "avx2";
  table.matmul_f32 = avx2::matmul_f32;
  table.matmul_f16 = avx2::matmul_f16;
  table.matmul_bf16 = avx2::matmul_bf16;
  avx2::put_quantised_products(table);
  table.quantize_q8a = avx2::quantize_q8a;
  table.rms_norm = avx2::rms_norm;
  table.silu_mul = avx2::silu_mul;
  table.attend_page_f32 = avx2::attend_page_f32;
  table.attend_page_f16 = avx2::attend_page_f16;
  table.attend_page_q8_0 = avx2::attend_page_q8_0;
  table.store_f16 = avx2::store_f16;
  return table;
}

KernelTable make_avxvnni_table() {
  KernelTable table = make_avx2_table();
  table.isa = "avxvnni";
  avxvnni::put_quantised_products(table);
  return table;
}

KernelTable make_avx512_table() {
  KernelTable table = make_scalar_table();
  table.isa = "avx512";
  table.matmul_f32 = avx512::matmul_f32;
  table.matmul_f16 = avx512::matmul_f16;
  table.matmul_bf16 = avx512::matmul_bf16;
  avx512::put_quantised_products(table);
  table.quantize_q8a = avx512::quantize_q8a;
  table.rms_norm = avx512::rms_norm;
  table.silu_mul = avx512::silu_mul;
  table.attend_page_f32 = avx512::attend_page_f32;
  table.attend_page_f16 = avx512::attend_page_f16;
  table.attend_page_q8_0 = avx512::attend_page_q8_0;
  table.merge_partials = avx512::merge_partials;
  table.store_f16 = avx512::store_f16;
  return table;
}

KernelTable make_amx_table() {
  KernelTable table = make_avx512_table();
  table.isa = "amx";
  amx::put_quantised_products(table);
  return table;
}

const KernelTable* vector_table_for(Isa isa) {
  static const KernelTable avx2 = make_avx2_table(), avxvnni = make_avxvnni_table(),
                           avx512 = make_avx512_table(), amx = make_amx_table();
  static const CpuFeatures processor = read_cpu_features();
  // What the files of each table are compiled for, in CMakeLists.txt.
  const auto has = [](std::initializer_list<const char*> names) {
    return std::all_of(names.begin(), names.end(),
                       [](const char* name) { return processor.has(name); });
  };
  const bool has_avx2 = has({"avx", "avx2", "fma", "f16c"});
  const bool has_avx512 =
      has_avx2 && has({"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"});
  switch (isa) {
    case Isa::kScalar:
      return nullptr;
    case Isa::kAvx2:
      return has_avx2 ? &avx2 : nullptr;
    case Isa::kAvxVnni:
      return has_avx2 && has({"avx_vnni"}) ? &avxvnni : nullptr;
    case Isa::kAvx512:
      return has_avx512 ? &avx512 : nullptr;
    case Isa::kAmx:
      return has_avx512 && has({"amx_tile", "amx_int8"}) && may_use_amx() ? &amx : nullptr;
  }
  return nullptr;
}
#else
const KernelTable* vector_table_for(Isa) { return nullptr; }
#endif

constexpr Isa kAllIsas[] = {Isa::kScalar, Isa::kAvx2, Isa::kAvxVnni, Isa::kAvx512, Isa::kAmx};

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

std::string_view name_of(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvxVnni:
      return "avxvnni";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAmx:
      return "amx";
  }
  return "";
}

const KernelTable* table_for(Isa isa) {
  static const KernelTable scalar = make_scalar_table();
  return isa == Isa::kScalar ? &scalar : vector_table_for(isa);
}

const KernelTable::Quantised* quantised_of(const KernelTable& kernels, DType type) {
  switch (type) {
    case DType::kQ4_0:
      return &kernels.q4_0;
    case DType::kQ8_0:
      return &kernels.q8_0;
    case DType::kQ4_K:
      return &kernels.q4_k;
    case DType::kQ6_K:
      return &kernels.q6_k;
    default:
      return nullptr;
  }
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

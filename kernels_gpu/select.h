// Which kernel computes an operation, on which grid.  The same choice for a card and for the host's emulation.
//
// Grids do not depend on how many rows a step has, which only device memory says: blocks stride over the rows and those
// without a row return, so that a captured graph serves every step up to the Program's capacity.
#pragma once

#include <algorithm>
#include <string>

#include "base/result.h"
#include "kernels_gpu/add.h"
#include "kernels_gpu/attend.h"
#include "kernels_gpu/combine.h"
#include "kernels_gpu/embed.h"
#include "kernels_gpu/gather.h"
#include "kernels_gpu/list_pairs.h"
#include "kernels_gpu/matmul.h"
#include "kernels_gpu/norm.h"
#include "kernels_gpu/quantize.h"
#include "kernels_gpu/rope.h"
#include "kernels_gpu/rope_angles.h"
#include "kernels_gpu/route.h"
#include "kernels_gpu/silu_mul.h"
#include "kernels_gpu/store_kv.h"

namespace tandem::gpu {

struct Grid {
  uint32_t x = 1, y = 1;
};

inline bool is_product(const Operation& op) {
  return op.kind == OpKind::kMatmul || op.kind == OpKind::kExpertMatmul;
}

// What the kernels do not take, before anything is launched.
inline Status check_operation(const Arguments& a) {
  const Operation& op = a.op;
  if (op.kind == OpKind::kMergePages) {
    return unsupported("merging attention over pages is the CPU's, not a CUDA kernel's");
  }
  const bool attends = op.kind == OpKind::kAttend || op.kind == OpKind::kAttendPages;
  if (attends && a.c.head_width > kMaxHeadWidth) {
    return unsupported("attention heads of " + std::to_string(a.c.head_width) +
                       " values: CUDA kernels take up to " + std::to_string(kMaxHeadWidth));
  }
  const size_t alignment = op.weight_type == DType::kF32 ? 4 : 2;
  if (reinterpret_cast<uintptr_t>(op.weight) % alignment != 0 ||
      op.weight_row_bytes % alignment != 0) {
    return unsupported("weights at an address that is no multiple of " + std::to_string(alignment) +
                       ": CUDA kernels need one");
  }
  return ok_status();
}

// Launcher: blocks() says how many blocks fill the processor; run<Kernel>(grid, arguments).
template <template <typename> typename Kernel, typename Launcher>
Status select_format(const Launcher& launcher, Grid grid, const Arguments& a) {
  switch (a.op.weight_type) {
    case DType::kF32:
      return launcher.template run<Kernel<FloatRows<F32>>>(grid, a);
    case DType::kF16:
      return launcher.template run<Kernel<FloatRows<F16>>>(grid, a);
    case DType::kBF16:
      return launcher.template run<Kernel<FloatRows<BF16>>>(grid, a);
    case DType::kQ4_0:
      return launcher.template run<Kernel<QuantisedRows<Q4_0>>>(grid, a);
    case DType::kQ8_0:
      return launcher.template run<Kernel<QuantisedRows<Q8_0>>>(grid, a);
    case DType::kQ4_K:
      return launcher.template run<Kernel<QuantisedRows<Q4_K>>>(grid, a);
    case DType::kQ6_K:
      return launcher.template run<Kernel<QuantisedRows<Q6_K>>>(grid, a);
  }
  return internal_error("a weight type that no kernel was chosen for");
}

// kMatmul and kExpertMatmul.
template <typename Launcher>
Status select_product(const Launcher& launcher, const Arguments& a) {
  Grid grid;
  grid.x = static_cast<uint32_t>((a.op.weight_rows + kProductRows - 1) / kProductRows);
  if (a.op.kind == OpKind::kMatmul) return select_format<MatmulKernel>(launcher, grid, a);
  // A decoded token has U active experts; steps with more go round.
  grid.y = static_cast<uint32_t>(std::clamp<int64_t>(a.c.n_experts_used, 1, 64));
  return select_format<ExpertMatmulKernel>(launcher, grid, a);
}

// All others.
template <typename Launcher>
Status select_row_wise(const Launcher& launcher, const Arguments& a) {
  const Grid all{launcher.blocks(), 1};
  switch (a.op.kind) {
    case OpKind::kEmbed:
      return launcher.template run<EmbedKernel>(all, a);
    case OpKind::kRopeAngles:
      return launcher.template run<RopeAnglesKernel>(all, a);
    case OpKind::kNorm:
      return launcher.template run<NormKernel>(all, a);
    case OpKind::kQuantize:
      return launcher.template run<QuantizeKernel>(all, a);
    case OpKind::kBias:
      return launcher.template run<BiasKernel>(all, a);
    case OpKind::kHeadNorm:
      return launcher.template run<HeadNormKernel>(all, a);
    case OpKind::kRope:
      return launcher.template run<RopeKernel>(all, a);
    case OpKind::kStoreKv:
      return launcher.template run<StoreKvKernel>(all, a);
    case OpKind::kAttend:
    case OpKind::kAttendPages:
      return launcher.template run<AttendKernel>(Grid{static_cast<uint32_t>(a.c.n_heads), 32}, a);
    case OpKind::kAdd:
      return launcher.template run<AddKernel>(all, a);
    case OpKind::kSiluMul:
      return launcher.template run<SiluMulKernel>(all, a);
    case OpKind::kRoute:
      return launcher.template run<RouteKernel>(all, a);
    case OpKind::kListPairs:
      return launcher.template run<ListPairsKernel>(Grid{1, 1}, a);
    case OpKind::kGatherPairs:
      return launcher.template run<GatherPairsKernel>(all, a);
    case OpKind::kCombine:
      return launcher.template run<CombineKernel>(all, a);
    case OpKind::kGatherOutputs:
      return launcher.template run<GatherOutputsKernel>(all, a);
    case OpKind::kMatmul:
    case OpKind::kExpertMatmul:
    case OpKind::kMergePages:
      break;
  }
  return internal_error("an operation that no kernel was chosen for");
}

// Every kernel once, so that a launcher may prepare it.
template <typename Launcher>
Status select_all_products(const Launcher& launcher) {
  const OperationConstants constants;
  Operation op;
  for (const OpKind kind : {OpKind::kMatmul, OpKind::kExpertMatmul}) {
    for (const DType type : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ4_0, DType::kQ8_0,
                             DType::kQ4_K, DType::kQ6_K}) {
      op.kind = kind;
      op.weight_type = type;
      TANDEM_RETURN_IF_ERROR(select_product(launcher, Arguments{op, constants}));
    }
  }
  return ok_status();
}

template <typename Launcher>
Status select_all_row_wise(const Launcher& launcher) {
  const OperationConstants constants;
  Operation op;
  for (int i = 0; i < kNumOpKinds; ++i) {
    op.kind = static_cast<OpKind>(i);
    if (is_product(op) || op.kind == OpKind::kMergePages) continue;
    TANDEM_RETURN_IF_ERROR(select_row_wise(launcher, Arguments{op, constants}));
  }
  return ok_status();
}
}  // namespace tandem::gpu

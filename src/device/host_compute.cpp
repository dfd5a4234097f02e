#include "device/host_compute.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/status.h"
#include "device/host_operands.h"
#include "kernels_cpu/dispatch.h"
#include "kernels_cpu/tiles.h"

namespace tandem::host {
namespace {

// y = rows [begin,end) of w times n rows of in[0] from `first` on.
void product(const Operation& op, const cpu::KernelTable& kernels, const void* w, int64_t first,
             int64_t n, int64_t begin, int64_t end) {
  float* y = row_of<float>(op.out, first);
  const size_t y_stride = op.out.row_bytes / sizeof(float);
  const Operand& in = op.in[0];
  const auto with_floats = [&](cpu::KernelTable::MatmulFloat* matmul) {
    matmul(w, op.weight_row_bytes, row_of<const float>(in, first), in.row_bytes / sizeof(float), y,
           y_stride, begin, end, op.weight_cols, n);
  };
  switch (op.weight_type) {
    case DType::kF32:
      return with_floats(kernels.matmul_f32);
    case DType::kF16:
      return with_floats(kernels.matmul_f16);
    case DType::kBF16:
      return with_floats(kernels.matmul_bf16);
    default: {
      const cpu::KernelTable::Quantised& quantised = *cpu::quantised_of(kernels, op.weight_type);
      const auto matmul = op.weight_in_tiles ? quantised.matmul_tiles : quantised.matmul;
      matmul(w, op.weight_row_bytes, row_of<const BlockQ8A>(in, first),
             in.row_bytes / sizeof(BlockQ8A), y, y_stride, begin, end, op.weight_cols, n);
    }
  }
}

cpu::KernelTable::Dequantize* dequantize_of(const cpu::KernelTable& kernels, DType type) {
  switch (type) {
    case DType::kF32:
      return kernels.dequantize_f32;
    case DType::kF16:
      return kernels.dequantize_f16;
    case DType::kBF16:
      return kernels.dequantize_bf16;
    case DType::kQ4_0:
      return kernels.dequantize_q4_0;
    case DType::kQ8_0:
      return kernels.dequantize_q8_0;
    case DType::kQ4_K:
      return kernels.dequantize_q4_k;
    case DType::kQ6_K:
      return kernels.dequantize_q6_k;
  }
  return nullptr;
}

void embed(const Operation& op, const cpu::KernelTable& kernels, int64_t row, float* y) {
  const int64_t id = follow(op, op.step->ids)[row];
  const auto dequantize = dequantize_of(kernels, op.weight_type);
  if (!op.weight_in_tiles) {
    return dequantize(op.weight + static_cast<size_t>(id) * op.weight_row_bytes, y, op.width);
  }
  // Out of its tile block by block.
  const std::byte* piece =
      op.weight + static_cast<size_t>(id / cpu::kTileRows * cpu::kTileRows) * op.weight_row_bytes;
  const DTypeInfo& format = dtype_info(op.weight_type);
  std::array<std::byte, 256> block;
  TANDEM_ASSERT(format.block_bytes <= block.size());
  for (int64_t k = 0; k < op.width; k += format.block_weights) {
    cpu::quantised_of(kernels, op.weight_type)
        ->unpack_row(piece, id % cpu::kTileRows, format.block_weights, block.data());
    dequantize(block.data(), y + k, format.block_weights);
    piece += size_t{cpu::kTileRows} * format.block_bytes;
  }
}

// cos in the first half of the row, sin in the second.
void rope_angles(const Operation& op, int64_t position, float* out) {
  const auto* frequency = reinterpret_cast<const double*>(op.weight);
  const int64_t n = op.constants->n_rot / 2;
  for (int64_t i = 0; i < n; ++i) {
    const double angle = static_cast<double>(position) * frequency[i];
    out[i] = static_cast<float>(std::cos(angle) * op.constants->rope_magnitude);
    out[n + i] = static_cast<float>(std::sin(angle) * op.constants->rope_magnitude);
  }
}

// Integers as activations are rounded to them, the scale rounded to half.
void store_q8_0(const cpu::KernelTable& kernels, const float* x, BlockQ8_0* out, int64_t n) {
  for (int64_t i = 0; i < n; i += 32) {
    BlockQ8A rounded;
    kernels.quantize_q8a(x + i, &rounded, 32);
    kernels.store_f16(&rounded.d, &out[i / 32].d, 1);
    std::memcpy(out[i / 32].qs, rounded.qs, sizeof(rounded.qs));
  }
}

// One token's key or value heads into their places in a page.
void store_heads(const OperationConstants& c, const cpu::KernelTable& kernels, const float* x,
                 std::byte* page, int64_t slot) {
  for (int64_t g = 0; g < c.n_kv_heads; ++g) {
    const float* head = x + g * c.head_width;
    std::byte* place = page + static_cast<size_t>(g) * c.kv_head_bytes() +
                       static_cast<size_t>(slot) * c.kv_row_bytes();
    switch (c.kv_type) {
      case KvType::kF16:
        kernels.store_f16(head, reinterpret_cast<Half*>(place), c.head_width);
        break;
      case KvType::kF32:
        std::memcpy(place, head, static_cast<size_t>(c.head_width) * sizeof(float));
        break;
      case KvType::kQ8_0:
        store_q8_0(kernels, head, reinterpret_cast<BlockQ8_0*>(place), c.head_width);
        break;
    }
  }
}

void store_kv(const Operation& op, const cpu::KernelTable& kernels, int64_t row) {
  const int64_t position = op.step->first_position + row;
  if (!has_page(op, position / kPageTokens)) return;
  std::byte* keys = keys_of_page(op, position / kPageTokens);
  const int64_t slot = position % kPageTokens;
  store_heads(*op.constants, kernels, row_of<const float>(op.in[0], row), keys, slot);
  store_heads(*op.constants, kernels, row_of<const float>(op.in[1], row),
              keys + op.constants->kv_page_bytes(), slot);
}

void gather_pair(const Operation& op, int64_t row) {
  const int64_t token = lists_in(op).pair_at[row] / op.constants->n_experts_used;
  std::memcpy(row_of<std::byte>(op.out, row), row_of<std::byte>(op.in[0], token), op.out.row_bytes);
}

ExpertLists lists_at(const Operation& op, const Operand& operand) {
  return ExpertLists::over(reinterpret_cast<int32_t*>(operand.data), op.constants->n_experts,
                           op.step->n_tokens * op.constants->n_experts_used);
}

void combine(const Operation& op, const cpu::KernelTable& kernels, int64_t row) {
  const int64_t n_used = op.constants->n_experts_used;
  const int32_t* own = lists_at(op, op.in[1]).row_of + row * n_used;
  const int32_t* other =
      op.other_lists.data == nullptr ? own : lists_at(op, op.other_lists).row_of + row * n_used;
  const float* shares = row_of<const float>(op.in[2], row);
  float* out = row_of<float>(op.out, row);
  std::memset(out, 0, static_cast<size_t>(op.width) * sizeof(float));
  for (int64_t u = 0; u < n_used; ++u) {
    const float* computed = own[u] >= 0 ? row_of<const float>(op.in[0], own[u])
                                        : row_of<const float>(op.other_rows, other[u]);
    kernels.scaled_add(out, computed, shares[u], op.width);
  }
}

}  // namespace

int64_t n_rows(const Operation& op) {
  switch (op.rows) {
    case RowSpace::kTokens:
      return op.step->n_tokens;
    case RowSpace::kPairs:
      return *op.n_pairs;
    case RowSpace::kOutputs:
      return op.step->n_outputs;
    case RowSpace::kStep:
      return 1;
  }
  return 0;
}

ExpertLists lists_in(const Operation& op) { return lists_at(op, op.in[1]); }

void compute_row(const Operation& op, const cpu::KernelTable& kernels, int64_t row) {
  const OperationConstants& c = *op.constants;
  const auto in = [&](int i) { return row_of<const float>(op.in[i], row); };
  float* out = row_of<float>(op.out, row);
  const auto* weight = reinterpret_cast<const float*>(op.weight);
  switch (op.kind) {
    case OpKind::kEmbed:
      return embed(op, kernels, row, out);
    case OpKind::kRopeAngles:
      return rope_angles(op, op.step->first_position + row, out);
    case OpKind::kNorm:
      return kernels.rms_norm(in(0), weight, c.norm_epsilon, out, op.width);
    case OpKind::kQuantize:
      return kernels.quantize_q8a(in(0), row_of<BlockQ8A>(op.out, row), op.width);
    case OpKind::kBias:
      return kernels.add(out, weight, op.width);
    case OpKind::kHeadNorm:
      for (int64_t i = 0; i < op.width; i += c.head_width) {
        kernels.rms_norm(out + i, weight, c.norm_epsilon, out + i, c.head_width);
      }
      return;
    case OpKind::kRope: {
      const auto rotate = c.rope == RopeStyle::kNeox ? kernels.rope_neox : kernels.rope_normal;
      const float* angles = in(1);
      return rotate(out, angles, angles + c.n_rot / 2, op.width / c.head_width, c.head_width,
                    c.n_rot);
    }
    case OpKind::kStoreKv:
      return store_kv(op, kernels, row);
    case OpKind::kAdd:
      return kernels.add(out, in(1), op.width);
    case OpKind::kSiluMul:
      return kernels.silu_mul(in(0), in(1), out, op.width);
    case OpKind::kRoute:
      return kernels.route(in(0), c.n_experts, c.n_experts_used, /*renormalise=*/true,
                           row_of<int32_t>(op.out, row), row_of<float>(op.out2, row));
    case OpKind::kGatherPairs:
      return gather_pair(op, row);
    case OpKind::kCombine:
      return combine(op, kernels, row);
    case OpKind::kGatherOutputs:
      std::memcpy(out, row_of<std::byte>(op.in[0], op.step->first_output + row), op.out.row_bytes);
      return;
    case OpKind::kMatmul:
    case OpKind::kAttend:
    case OpKind::kAttendPages:
    case OpKind::kMergePages:
    case OpKind::kListPairs:
    case OpKind::kExpertMatmul:
      TANDEM_ASSERT(false && "not a row-wise operation");
      return;
  }
}

void compute_product(const Operation& op, const cpu::KernelTable& kernels, int64_t begin,
                     int64_t end) {
  product(op, kernels, op.weight, 0, n_rows(op), begin, end);
}

void compute_expert_product(const Operation& op, const cpu::KernelTable& kernels, int32_t expert,
                            int64_t begin, int64_t end) {
  const ExpertLists lists = lists_in(op);
  const int64_t first = lists.begin[expert];
  const std::byte* weight = follow(op, op.experts[expert]);
  product(op, kernels, weight, first, lists.begin[expert + 1] - first, begin, end);
}

// A counting sort of the (token, expert) pairs by expert; pairs of one expert keep the order of the tokens.
void list_pairs(const Operation& op) {
  const int64_t n_experts = op.constants->n_experts;
  const int64_t n_pairs = op.step->n_tokens * op.constants->n_experts_used;
  const int32_t* expert_of = row_of<const int32_t>(op.in[0], 0);  // [T,U], contiguous
  const std::byte* const* experts = op.experts;
  const ExpertLists lists = lists_at(op, op.out);
  std::fill_n(lists.begin, n_experts + 1, 0);
  for (int64_t p = 0; p < n_pairs; ++p) {
    if (experts[expert_of[p]] != nullptr) ++lists.begin[expert_of[p] + 1];
  }
  *lists.n_active = 0;
  for (int32_t e = 0; e < n_experts; ++e) {
    if (lists.begin[e + 1] > 0) lists.active[(*lists.n_active)++] = e;
    lists.begin[e + 1] += lists.begin[e];
  }
  // begin[e] serves as the next free row of expert e, then is put back by one expert's worth.
  for (int64_t p = 0; p < n_pairs; ++p) {
    lists.row_of[p] = -1;
    if (experts[expert_of[p]] == nullptr) continue;
    const int32_t row = lists.begin[expert_of[p]]++;
    lists.pair_at[row] = static_cast<int32_t>(p);
    lists.row_of[p] = row;
  }
  for (int64_t e = n_experts; e > 0; --e) lists.begin[e] = lists.begin[e - 1];
  lists.begin[0] = 0;
}

void compute(const Operation& op, const cpu::KernelTable& kernels, float* attend_scratch) {
  switch (op.kind) {
    case OpKind::kMatmul:
      return compute_product(op, kernels, 0, op.weight_rows);
    case OpKind::kExpertMatmul: {
      const ExpertLists lists = lists_in(op);
      for (int32_t i = 0; i < *lists.n_active; ++i) {
        compute_expert_product(op, kernels, lists.active[i], 0, op.weight_rows);
      }
      return;
    }
    case OpKind::kAttend:
    case OpKind::kAttendPages:
    case OpKind::kMergePages:
      for (int64_t t = 0; t < op.step->n_tokens; ++t) {
        for (int64_t g = 0; g < op.constants->n_kv_heads; ++g) {
          compute_attend(op, kernels, t, g, attend_scratch, or_never(nullptr));
        }
      }
      return;
    case OpKind::kListPairs:
      return list_pairs(op);
    default:
      for (int64_t row = 0, n = n_rows(op); row < n; ++row) compute_row(op, kernels, row);
  }
}

}  // namespace tandem::host

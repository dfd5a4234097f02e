// The row-wise operations of the executor: one row of one operation.
#include <cmath>
#include <cstring>

#include "dispatch/executor_walk.h"

namespace tandem {
namespace {

// One token's key or value heads into their places in a page.
void store_heads(const cpu::KernelTable& kernels, const KvLayout& layout, const float* x,
                 std::byte* page, int64_t slot) {
  for (int64_t g = 0; g < layout.n_kv_heads; ++g) {
    const float* head = x + g * layout.head_width;
    std::byte* place = page + static_cast<size_t>(g) * layout.head_bytes() +
                       static_cast<size_t>(slot * layout.head_width) * layout.element_bytes();
    if (layout.type == KvType::kF16) {
      kernels.store_f16(head, reinterpret_cast<Half*>(place), layout.head_width);
    } else {
      std::memcpy(place, head, static_cast<size_t>(layout.head_width) * sizeof(float));
    }
  }
}

void embed(const cpu::KernelTable& kernels, const Weight& weight, const void* table, int64_t id,
           float* y) {
  const auto* row =
      static_cast<const std::byte*>(table) + static_cast<size_t>(id) * weight.row_bytes();
  switch (weight.type) {
    case DType::kF32:
      return kernels.dequantize_f32(row, y, weight.cols);
    case DType::kF16:
      return kernels.dequantize_f16(row, y, weight.cols);
    case DType::kBF16:
      return kernels.dequantize_bf16(row, y, weight.cols);
    case DType::kQ4_0:
      return kernels.dequantize_q4_0(row, y, weight.cols);
    case DType::kQ8_0:
      return kernels.dequantize_q8_0(row, y, weight.cols);
    case DType::kQ4_K:
      return kernels.dequantize_q4_k(row, y, weight.cols);
    case DType::kQ6_K:
      return kernels.dequantize_q6_k(row, y, weight.cols);
  }
}

// cos in the first half of the row, sin in the second.
void rope_angles(const RopeFrequencies& rope, int64_t position, float* out) {
  const size_t n = rope.frequency.size();
  for (size_t i = 0; i < n; ++i) {
    const double angle = static_cast<double>(position) * rope.frequency[i];
    out[i] = static_cast<float>(std::cos(angle) * rope.magnitude);
    out[n + i] = static_cast<float>(std::sin(angle) * rope.magnitude);
  }
}

}  // namespace

void Executor::Walk::row_op(const Op& op, int64_t row_index) {
  const ModelShape& shape = program.shape;
  const auto in = [&](int i) { return row_as<float>(op.in[i], row_index); };
  const auto out = [&] { return row_as<float>(op.out, row_index); };
  const int64_t width = op.out == kNoId ? 0 : program.values[op.out].width;
  switch (op.kind) {
    case OpKind::kEmbed:
      return embed(kernels, program.weights[op.weight], weight_data(program.weights[op.weight]),
                   ids[row_index], out());
    case OpKind::kRopeAngles:
      return rope_angles(rope, first_position + row_index, out());
    case OpKind::kNorm:
      return kernels.rms_norm(in(0), weight_vector(op.weight), shape.norm_epsilon, out(), width);
    case OpKind::kQuantize:
      return kernels.quantize_q8a(in(0), row_as<BlockQ8A>(op.out, row_index), width);
    case OpKind::kBias:
      return kernels.add(out(), weight_vector(op.weight), width);
    case OpKind::kHeadNorm:
      for (int64_t i = 0; i < width; i += shape.head_width) {
        kernels.rms_norm(out() + i, weight_vector(op.weight), shape.norm_epsilon, out() + i,
                         shape.head_width);
      }
      return;
    case OpKind::kRope: {
      const float* angles = row_as<const float>(op.in[1], row_index);
      const auto rotate =
          shape.architecture->rope == RopeStyle::kNeox ? kernels.rope_neox : kernels.rope_normal;
      return rotate(out(), angles, angles + shape.n_rot / 2, width / shape.head_width,
                    shape.head_width, shape.n_rot);
    }
    case OpKind::kStoreKv: {
      const int64_t position = first_position + row_index;
      const int64_t page = position / kPageTokens, slot = position % kPageTokens;
      store_heads(kernels, sequence->layout(), in(0), sequence->keys(op.layer, page), slot);
      return store_heads(kernels, sequence->layout(), in(1), sequence->values(op.layer, page),
                         slot);
    }
    case OpKind::kAdd:
      return kernels.add(out(), in(1), width);
    case OpKind::kSiluMul:
      return kernels.silu_mul(in(0), in(1), out(), width);
    case OpKind::kRoute:
      return kernels.route(in(0), shape.n_experts, shape.n_experts_used, /*renormalise=*/true,
                           row_as<int32_t>(op.out, row_index), row_as<float>(op.out2, row_index));
    case OpKind::kGatherPairs: {
      const int64_t token = lists(op.in[1]).pair_at[row_index] / shape.n_experts_used;
      std::memcpy(row(op.out, row_index), row(op.in[0], token), lowered->row_bytes[op.out]);
      return;
    }
    case OpKind::kCombine: {
      const int32_t* row_of = lists(op.in[1]).row_of + row_index * shape.n_experts_used;
      const float* shares = in(2);
      std::memset(out(), 0, static_cast<size_t>(width) * sizeof(float));
      for (int64_t u = 0; u < shape.n_experts_used; ++u) {
        kernels.scaled_add(out(), row_as<const float>(op.in[0], row_of[u]), shares[u], width);
      }
      return;
    }
    case OpKind::kGatherOutputs:
      std::memcpy(row(op.out, row_index), row(op.in[0], first_output + row_index),
                  lowered->row_bytes[op.out]);
      return;
    case OpKind::kMatmul:
    case OpKind::kAttend:
    case OpKind::kListPairs:
    case OpKind::kExpertMatmul:
      TANDEM_ASSERT(false && "not a row-wise operation");
      return;
  }
}

}  // namespace tandem

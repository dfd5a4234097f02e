#include "dispatch/block_roles.h"

#include <string_view>

namespace tandem {
namespace {

using Kind = BlockRole::Kind;

void describe_experts(const Program& program, const Op& op, std::vector<BlockRole>& roles) {
  for (int64_t e = 0; e < program.shape.n_experts; ++e) {
    BlockRole& role = roles[program.weights[op.weight + static_cast<WeightId>(e)].block];
    role.kind = Kind::kExpert;
    role.layer = op.layer;
  }
}

void describe_dense(const Program& program, const Op& op, BlockRole& role) {
  const Weight& weight = program.weights[op.weight];
  role.kind = op.layer >= 0 ? Kind::kDense : Kind::kHead;
  role.layer = op.layer;
  role.vector = weight.rows == 1;
  role.attention = op.kind == OpKind::kMatmul && op.layer >= 0 &&
                   program.blocks[weight.block].name.find(".attn_") != std::string::npos;
}

}  // namespace

std::vector<uint32_t> producers(const Program& program) {
  std::vector<uint32_t> writer(program.values.size(), kNoId);
  std::vector<uint32_t> result(program.ops.size(), kNoId);
  for (uint32_t i = 0; i < program.ops.size(); ++i) {
    const Op& op = program.ops[i];
    if (op.in[0] != kNoId) result[i] = writer[op.in[0]];
    if (op.out != kNoId) writer[op.out] = i;
    if (op.out2 != kNoId) writer[op.out2] = i;
  }
  return result;
}

std::vector<BlockRole> block_roles(const Program& program) {
  std::vector<BlockRole> roles(program.blocks.size());
  const std::vector<uint32_t> producer = producers(program);
  for (uint32_t i = 0; i < program.ops.size(); ++i) {
    const Op& op = program.ops[i];
    if (op.kind == OpKind::kRoute && producer[i] != kNoId) {
      roles[program.weights[program.ops[producer[i]].weight].block].router = true;
    }
    if (op.weight == kNoId || op.kind == OpKind::kEmbed || op.kind == OpKind::kListPairs) continue;
    if (op.kind == OpKind::kExpertMatmul) {
      describe_experts(program, op, roles);
      continue;
    }
    BlockRole& role = roles[program.weights[op.weight].block];
    describe_dense(program, op, role);
    if (op.kind != OpKind::kBias && op.kind != OpKind::kHeadNorm) continue;
    // A bias may stand before the head norm: both lead to the product.
    uint32_t product = producer[i];
    while (product != kNoId && program.ops[product].kind != OpKind::kMatmul) {
      product = producer[product];
    }
    if (product != kNoId) role.follows = program.weights[program.ops[product].weight].block;
  }
  return roles;
}

}  // namespace tandem

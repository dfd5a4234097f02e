// Which processor computes each operation of a Program, from where the blocks are.

#include "dispatch/block_roles.h"
#include "dispatch/placement.h"

namespace tandem {
namespace {

// What a layer's experts are computed by.
Processor experts_of(const Program& program, const Placement& placement, const Op& op) {
  bool cpu = false, device = false;
  for (int64_t e = 0; e < program.shape.n_experts; ++e) {
    const Weight& weight = program.weights[op.weight + static_cast<WeightId>(e)];
    (placement.blocks[weight.block].on_device() ? device : cpu) = true;
  }
  if (cpu && placement.cached_layers[static_cast<size_t>(op.layer)]) device = true;
  if (cpu && device) return Processor::kBoth;
  return device ? Processor::kDevice : Processor::kCpu;
}

class Walk {
 public:
  Walk(const Program& program, const Placement& placement)
      : program_(program),
        placement_(placement),
        producers_(producers(program)),
        last_use_(program.values.size(), Processor::kCpu),
        experts_(static_cast<size_t>(program.shape.n_layers), Processor::kCpu) {
    for (const Op& op : program.ops) {
      if (op.kind != OpKind::kExpertMatmul) continue;
      experts_[static_cast<size_t>(op.layer)] = experts_of(program, placement, op);
    }
  }

  std::vector<Processor> all() {
    for (uint32_t i = 0; i < program_.ops.size(); ++i) {
      const Op& op = program_.ops[i];
      result_.push_back(place(i));
      if (op.in[0] != kNoId) last_use_[op.in[0]] = result_.back();
      if (op.out != kNoId) last_use_[op.out] = result_.back();
      if (op.out2 != kNoId) last_use_[op.out2] = result_.back();
    }
    return std::move(result_);
  }

 private:
  Processor place(uint32_t i) const {
    const Op& op = program_.ops[i];
    switch (op.kind) {
      case OpKind::kEmbed:
      case OpKind::kRopeAngles:
        return Processor::kCpu;
      case OpKind::kNorm:
      case OpKind::kMatmul:
        return placement_.blocks[program_.weights[op.weight].block].processor;
      case OpKind::kStoreKv:
      case OpKind::kAttend:
        return placement_.kv_on_device[static_cast<size_t>(op.layer)] ? Processor::kDevice
                                                                      : Processor::kCpu;
      case OpKind::kExpertMatmul:
      case OpKind::kListPairs:
      case OpKind::kGatherPairs:
        return experts_[static_cast<size_t>(op.layer)];
      case OpKind::kCombine: {
        const Processor experts = experts_[static_cast<size_t>(op.layer)];
        return experts == Processor::kBoth ? last_use_[op.in[2]] : experts;
      }
      case OpKind::kAdd:
        return last_use_[op.in[0]];
      default:
        return producers_[i] == kNoId ? Processor::kCpu : result_[producers_[i]];
    }
  }

  const Program& program_;
  const Placement& placement_;
  const std::vector<uint32_t> producers_;
  std::vector<Processor> last_use_;  // [values] who wrote it, or read it as first operand, last
  std::vector<Processor> experts_;   // [L]
  std::vector<Processor> result_;
};

}  // namespace

std::vector<Processor> processors_of(const Program& program, const Placement& placement) {
  return Walk(program, placement).all();
}

}  // namespace tandem

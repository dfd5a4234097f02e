#include "model/program.h"

namespace tandem {
namespace {

uint64_t weight_bytes(const Weight& weight) {
  return static_cast<uint64_t>(weight.rows) * weight.row_bytes();
}

// Calls use(weight, times) for every weight that one token reads; experts count U times one expert.
template <typename Use>
void for_each_use(const Program& program, Use use) {
  for (const Op& op : program.ops) {
    // An embedding reads one row; lists only ask whose experts these are.
    if (op.weight == kNoId || op.kind == OpKind::kEmbed || op.kind == OpKind::kListPairs) continue;
    const bool expert = op.kind == OpKind::kExpertMatmul;
    use(program.weights[op.weight],
        expert ? static_cast<uint64_t>(program.shape.n_experts_used) : 1);
  }
}

uint64_t elements(const Weight& weight) {
  return static_cast<uint64_t>(weight.rows) * static_cast<uint64_t>(weight.cols);
}

}  // namespace

uint64_t Program::bytes_per_token() const {
  uint64_t bytes = 0;
  for_each_use(
      *this, [&](const Weight& weight, uint64_t times) { bytes += times * weight_bytes(weight); });
  return bytes;
}

uint64_t Program::n_parameters() const {
  uint64_t n = 0;
  for (const Weight& weight : weights) n += elements(weight);
  return n;
}

uint64_t Program::n_active_parameters() const {
  uint64_t n = 0;
  bool tied = true;
  WeightId embeddings = kNoId;
  for (const Op& op : ops) {
    if (op.kind == OpKind::kEmbed) embeddings = op.weight;
  }
  for_each_use(*this, [&](const Weight& weight, uint64_t times) { n += times * elements(weight); });
  for (const Op& op : ops) {
    if (op.out == logits && op.weight != embeddings) tied = false;
  }
  return tied || embeddings == kNoId ? n : n + elements(weights[embeddings]);
}

}  // namespace tandem

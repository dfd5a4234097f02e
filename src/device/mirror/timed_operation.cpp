#include "device/mirror/timed_operation.h"

#include <algorithm>
#include <cstring>

#include "device/host_compute.h"

namespace tandem::mirror {
namespace {

// splitmix64: well mixed from consecutive seeds.
uint64_t mixed(uint64_t seed) {
  seed += 0x9E3779B97F4A7C15;
  seed = (seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9;
  seed = (seed ^ (seed >> 27)) * 0x94D049BB133111EB;
  return seed ^ (seed >> 31);
}

void choose_experts(const Operation& op, int64_t row) {
  const int64_t n_experts = op.constants->n_experts, n_used = op.constants->n_experts_used;
  auto* ids = reinterpret_cast<int32_t*>(op.out.data + static_cast<size_t>(row) * op.out.row_bytes);
  auto* weights =
      reinterpret_cast<float*>(op.out2.data + static_cast<size_t>(row) * op.out2.row_bytes);
  uint64_t random = mixed(static_cast<uint64_t>(op.step->first_position + row) * 4096 +
                          static_cast<uint64_t>(op.layer));
  for (int64_t n = 0; n < n_used; random = mixed(random)) {
    const auto id = static_cast<int32_t>(random % static_cast<uint64_t>(n_experts));
    if (std::find(ids, ids + n, id) != ids + n) continue;
    weights[n] = 1 / static_cast<float>(n_used);
    ids[n++] = id;
  }
}

void clear(const Operand& value, int64_t n_rows) {
  if (value.data == nullptr) return;
  std::memset(value.data, 0, std::min(value.bytes, static_cast<size_t>(n_rows) * value.row_bytes));
}

}  // namespace

void stand_in_for(const Operation& op) {
  const int64_t n_rows = host::n_rows(op);
  switch (op.kind) {
    case OpKind::kRoute:
      for (int64_t row = 0; row < n_rows; ++row) choose_experts(op, row);
      return;
    case OpKind::kListPairs:
      return host::list_pairs(op);
    default:
      clear(op.out, n_rows);
      clear(op.out2, n_rows);
  }
}

}  // namespace tandem::mirror

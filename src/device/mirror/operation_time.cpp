#include "device/mirror/operation_time.h"

#include "device/host_compute.h"

namespace tandem::mirror {

uint64_t weight_bytes(const Operation& op) {
  if (op.kind == OpKind::kExpertMatmul) {
    const int64_t n_experts = *host::lists_in(op).n_active;
    return static_cast<uint64_t>(op.weight_rows * n_experts) * op.weight_row_bytes;
  }
  if (op.weight == nullptr) return 0;
  const int64_t rows = op.kind == OpKind::kEmbed ? host::n_rows(op) : op.weight_rows;
  return static_cast<uint64_t>(rows) * op.weight_row_bytes;
}

double seconds_of(const Profile& profile, const Operation& op) {
  const auto found = profile.times.find(op.kind);
  if (found == profile.times.end()) return 0;
  const OperationTime& time = found->second;
  double seconds = time.fixed_us * 1e-6;
  seconds += time.ns_per_row * 1e-9 * static_cast<double>(host::n_rows(op));
  if (time.gb_per_s > 0) seconds += static_cast<double>(weight_bytes(op)) / (time.gb_per_s * 1e9);
  return seconds;
}

}  // namespace tandem::mirror

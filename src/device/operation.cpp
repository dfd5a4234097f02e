#include "device/operation.h"

namespace tandem {

std::string_view operation_name(OpKind kind) {
  switch (kind) {
    case OpKind::kEmbed:
      return "embed";
    case OpKind::kRopeAngles:
      return "rope_angles";
    case OpKind::kNorm:
      return "norm";
    case OpKind::kQuantize:
      return "quantize";
    case OpKind::kMatmul:
      return "matmul";
    case OpKind::kBias:
      return "bias";
    case OpKind::kHeadNorm:
      return "head_norm";
    case OpKind::kRope:
      return "rope";
    case OpKind::kStoreKv:
      return "store_kv";
    case OpKind::kAttend:
      return "attend";
    case OpKind::kAttendPages:
      return "attend_pages";
    case OpKind::kMergePages:
      return "merge_pages";
    case OpKind::kAdd:
      return "add";
    case OpKind::kSiluMul:
      return "silu_mul";
    case OpKind::kRoute:
      return "route";
    case OpKind::kListPairs:
      return "list_pairs";
    case OpKind::kGatherPairs:
      return "gather_pairs";
    case OpKind::kExpertMatmul:
      return "expert_matmul";
    case OpKind::kCombine:
      return "combine";
    case OpKind::kGatherOutputs:
      return "gather_outputs";
  }
  return "";
}

}  // namespace tandem

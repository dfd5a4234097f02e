// The model families that the decoder can build, as data.
//
// Adding a family that differs from these only in such facts is one more row in architectures.cpp.
#pragma once

#include <string_view>

#include "base/result.h"
#include "device/operation.h"

namespace tandem {

struct Architecture {
  std::string_view name;  // general.architecture
  RopeStyle rope = RopeStyle::kNormal;
  bool qkv_bias = false;          // blk.N.attn_{q,k,v}.bias are required
  bool head_norm = false;         // blk.N.attn_{q,k}_norm.weight: RMS norm of each head before RoPE
  bool experts_required = false;  // expert_count must be > 0; elsewhere it may be absent
};

// Errors: kUnsupported naming the architecture, the nearest supported relative and all names.
Result<const Architecture*> find_architecture(std::string_view name);

}  // namespace tandem

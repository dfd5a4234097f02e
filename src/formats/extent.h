// Bytes in one of a model's files.
#pragma once

#include <cstdint>

namespace tandem {

struct Extent {
  uint32_t file_index = 0;  // into the model's list of paths
  uint64_t offset = 0;      // from the start of that file
  uint64_t bytes = 0;
};

}  // namespace tandem

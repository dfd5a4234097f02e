// One GGUF file on its own, read and checked.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "formats/gguf/gguf.h"

namespace tandem {

// Limits that no real file comes near; beyond them a file is refused with its numbers.
inline constexpr uint64_t kMaxMetadataEntries = uint64_t{1} << 16;
inline constexpr uint64_t kMaxTensors = uint64_t{1} << 20;
inline constexpr uint64_t kMaxKeyBytes = (uint64_t{1} << 16) - 1;  // as the specification says
inline constexpr uint64_t kMaxTensorNameBytes =
    255;  // the specification says 64; some files pass it
inline constexpr uint64_t kMaxAlignment = uint64_t{1} << 20;
inline constexpr int kMaxArrayDepth = 4;

struct GgufPart {
  uint32_t version = 0;
  uint64_t file_bytes = 0;
  FileIdentity identity;
  std::unique_ptr<const std::byte[]> header;  // views below point into it
  std::vector<MetadataEntry> metadata;
  std::vector<TensorInfo> tensors;  // extents have file_index 0

  const MetadataEntry* find(std::string_view key) const;
};

// Checks everything that can be checked within one file: counts, types, keys and their repetition,
// alignment, shapes, sizes, offsets, overlaps, and that the weights are all there.  Tensors' names
// are compared by whoever joins the parts.
// Errors: as GgufFile::open.
Result<GgufPart> read_gguf_part(const ReadFile& file);

}  // namespace tandem

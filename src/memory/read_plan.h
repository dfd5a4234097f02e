// The order in which a model's bytes are read: windows of files in ascending order, each with the
// pieces of memory its bytes belong to.
#pragma once

#include <cstdint>
#include <vector>

#include "formats/extent.h"

namespace tandem {

// An extent and where it goes.
struct Placement {
  uint32_t block = 0;
  Extent extent;
  uint64_t slot_offset = 0;  // in the arena
};

struct ReadPiece {
  uint32_t block = 0;
  uint64_t file_offset = 0;
  uint64_t bytes = 0;
  uint64_t slot_offset = 0;
};

struct ReadWindow {
  uint32_t file_index = 0;
  uint64_t begin = 0;  // a multiple of kReadAlignment
  uint64_t end = 0;    // of the last piece
  uint32_t first_piece = 0, n_pieces = 0;
};

struct ReadPlan {
  std::vector<ReadWindow> windows;
  std::vector<ReadPiece> pieces;
  uint64_t bytes = 0;  // of all pieces
};

// Direct reads of any drive take multiples of this.
inline constexpr uint64_t kReadAlignment = 4096;

// Every byte of every placement is in exactly one piece.  Windows are at most `window_bytes` long;
// gaps of a few pages between extents are read over.  Requires: window_bytes % kReadAlignment == 0.
ReadPlan plan_reads(std::vector<Placement> placements, uint64_t window_bytes);

}  // namespace tandem

// The order in which a model's bytes are read: windows of files in ascending order, each with the
// pieces of memory its bytes belong to.
//
// Direct reads move whole pages. A large extent keeps its place within the page and has the pages
// around it in the arena to itself, so that it is read where it belongs; small ones lie packed and
// are copied out of a buffer.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "formats/extent.h"

namespace tandem {

// Direct reads of any drive take multiples of this.
inline constexpr uint64_t kReadAlignment = 4096;

// An extent and where it goes.
struct ReadTarget {
  uint32_t block = 0;
  Extent extent;
  uint64_t slot_offset = 0;  // in the arena; see slot_for()
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
  bool in_place = false;  // one piece, whose pages in the arena are its own
};

struct ReadPlan {
  std::vector<ReadWindow> windows;
  std::vector<ReadPiece> pieces;
  uint64_t bytes = 0;  // of all pieces
};

// From this length on an extent has pages of its own: at most two pages more, 1 % of a megabyte.
inline constexpr uint64_t kMinInPlaceBytes = 64 * 1024;

struct SlotRange {
  uint64_t begin = 0;  // where the extent's first byte goes
  uint64_t next = 0;   // free for the next extent
};

// Where an extent goes when the arena is used up to `used`.  Small ones begin at a multiple of
// `alignment`, a divisor of kReadAlignment.  Nothing when the sum overflows.
std::optional<SlotRange> slot_for(const Extent& extent, uint64_t used, uint64_t alignment);

// Every byte of every target is in exactly one piece.  Windows are at most `window_bytes` long.
// Those in place end where the arena has a multiple of it, the others read over gaps of a few pages
// between extents. Requires: slots are from slot_for(); window_bytes % kReadAlignment == 0.
ReadPlan plan_reads(std::vector<ReadTarget> targets, uint64_t window_bytes);

}  // namespace tandem

#include "memory/read_plan.h"

#include <algorithm>
#include <tuple>

namespace tandem {
namespace {

// Two extents this close share a window: reading on is cheaper than a second read.
constexpr uint64_t kMaxGapBytes = 16 * kReadAlignment;

}  // namespace

ReadPlan plan_reads(std::vector<Placement> placements, uint64_t window_bytes) {
  std::sort(placements.begin(), placements.end(), [](const Placement& a, const Placement& b) {
    return std::tie(a.extent.file_index, a.extent.offset, a.slot_offset) <
           std::tie(b.extent.file_index, b.extent.offset, b.slot_offset);
  });
  ReadPlan plan;
  for (const Placement& placement : placements) {
    uint64_t done = 0;
    while (done < placement.extent.bytes) {
      const uint64_t offset = placement.extent.offset + done;
      const ReadWindow* last = plan.windows.empty() ? nullptr : &plan.windows.back();
      const bool joins = last != nullptr && last->file_index == placement.extent.file_index &&
                         offset >= last->begin && offset <= last->end + kMaxGapBytes &&
                         offset < last->begin + window_bytes;
      if (!joins) {
        plan.windows.push_back({placement.extent.file_index,
                                offset / kReadAlignment * kReadAlignment, offset,
                                static_cast<uint32_t>(plan.pieces.size()), 0});
      }
      ReadWindow& window = plan.windows.back();
      const uint64_t bytes =
          std::min(placement.extent.bytes - done, window.begin + window_bytes - offset);
      plan.pieces.push_back({placement.block, offset, bytes, placement.slot_offset + done});
      ++window.n_pieces;
      window.end = std::max(window.end, offset + bytes);
      done += bytes;
    }
    plan.bytes += placement.extent.bytes;
  }
  return plan;
}

}  // namespace tandem

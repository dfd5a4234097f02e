#include "memory/read_plan.h"

#include <algorithm>
#include <tuple>

#include "base/checked.h"

namespace tandem {
namespace {

// Two small extents this close share a window: reading on is cheaper than a second read.
constexpr uint64_t kMaxGapBytes = 16 * kReadAlignment;

bool is_in_place(const Extent& extent) { return extent.bytes >= kMinInPlaceBytes; }

uint64_t page_start(uint64_t offset) { return offset / kReadAlignment * kReadAlignment; }

void add_piece(ReadPlan& plan, const ReadPiece& piece) {
  ReadWindow& window = plan.windows.back();
  plan.pieces.push_back(piece);
  ++window.n_pieces;
  window.end = std::max(window.end, piece.file_offset + piece.bytes);
}

void open_window(ReadPlan& plan, uint32_t file_index, uint64_t offset, bool in_place) {
  plan.windows.push_back({file_index, page_start(offset), offset,
                          static_cast<uint32_t>(plan.pieces.size()), 0, in_place});
}

void plan_in_place(ReadPlan& plan, const ReadTarget& target, uint64_t window_bytes) {
  const Extent& extent = target.extent;
  for (uint64_t done = 0; done < extent.bytes;) {
    const uint64_t slot = target.slot_offset + done;
    const uint64_t bytes = std::min(extent.bytes - done, window_bytes - slot % window_bytes);
    open_window(plan, extent.file_index, extent.offset + done, true);
    add_piece(plan, {target.block, extent.offset + done, bytes, slot});
    done += bytes;
  }
}

void plan_gathered(ReadPlan& plan, const ReadTarget& target, uint64_t window_bytes) {
  const Extent& extent = target.extent;
  for (uint64_t done = 0; done < extent.bytes;) {
    const uint64_t offset = extent.offset + done;
    const ReadWindow* last = plan.windows.empty() ? nullptr : &plan.windows.back();
    const bool joins = last != nullptr && !last->in_place &&
                       last->file_index == extent.file_index && offset >= last->begin &&
                       offset <= last->end + kMaxGapBytes && offset < last->begin + window_bytes;
    if (!joins) open_window(plan, extent.file_index, offset, false);
    const uint64_t bytes =
        std::min(extent.bytes - done, plan.windows.back().begin + window_bytes - offset);
    add_piece(plan, {target.block, offset, bytes, target.slot_offset + done});
    done += bytes;
  }
}

}  // namespace

std::optional<SlotRange> slot_for(const Extent& extent, uint64_t used, uint64_t alignment) {
  const bool in_place = is_in_place(extent);
  const auto start = checked_align_up(used, in_place ? kReadAlignment : alignment);
  const auto begin =
      start ? checked_add(*start, in_place ? extent.offset % kReadAlignment : 0) : std::nullopt;
  const auto end = begin ? checked_add(*begin, extent.bytes) : std::nullopt;
  const auto next = end ? checked_align_up(*end, in_place ? kReadAlignment : 1) : std::nullopt;
  if (!next) return std::nullopt;
  return SlotRange{*begin, *next};
}

ReadPlan plan_reads(std::vector<ReadTarget> targets, uint64_t window_bytes) {
  std::sort(targets.begin(), targets.end(), [](const ReadTarget& a, const ReadTarget& b) {
    return std::tie(a.extent.file_index, a.extent.offset, a.slot_offset) <
           std::tie(b.extent.file_index, b.extent.offset, b.slot_offset);
  });
  ReadPlan plan;
  for (const ReadTarget& target : targets) {
    if (is_in_place(target.extent)) {
      plan_in_place(plan, target, window_bytes);
    } else {
      plan_gathered(plan, target, window_bytes);
    }
    plan.bytes += target.extent.bytes;
  }
  return plan;
}

}  // namespace tandem

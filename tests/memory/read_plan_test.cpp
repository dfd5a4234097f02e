#include "memory/read_plan.h"

#include <gtest/gtest.h>

#include <random>

namespace tandem {
namespace {

constexpr uint64_t kWindow = 4 * kReadAlignment;

// Each target's bytes, put together from the pieces, must be its extent in order and once.
void expect_covered(const std::vector<ReadTarget>& targets, const ReadPlan& plan) {
  for (const ReadTarget& target : targets) {
    uint64_t covered = 0;
    for (const ReadPiece& piece : plan.pieces) {
      if (piece.slot_offset < target.slot_offset ||
          piece.slot_offset >= target.slot_offset + target.extent.bytes) {
        continue;
      }
      EXPECT_EQ(piece.file_offset - target.extent.offset, piece.slot_offset - target.slot_offset);
      EXPECT_EQ(piece.block, target.block);
      covered += piece.bytes;
    }
    EXPECT_EQ(covered, target.extent.bytes);
  }
}

void expect_windows_hold_their_pieces(const ReadPlan& plan) {
  uint32_t next = 0;
  for (const ReadWindow& window : plan.windows) {
    EXPECT_EQ(window.begin % kReadAlignment, 0u);
    EXPECT_LE(window.end - window.begin, kWindow);
    EXPECT_EQ(window.first_piece, next);
    for (uint32_t i = 0; i < window.n_pieces; ++i) {
      const ReadPiece& piece = plan.pieces[window.first_piece + i];
      EXPECT_GE(piece.file_offset, window.begin);
      EXPECT_LE(piece.file_offset + piece.bytes, window.end);
    }
    next += window.n_pieces;
  }
  EXPECT_EQ(next, plan.pieces.size());
}

void expect_pages_read_in_place_belong_to_one(const std::vector<ReadTarget>& targets,
                                              const ReadPlan& plan) {
  for (const ReadWindow& window : plan.windows) {
    if (!window.in_place) continue;
    const ReadPiece& piece = plan.pieces[window.first_piece];
    EXPECT_EQ(window.n_pieces, 1u);
    EXPECT_EQ(piece.slot_offset % kReadAlignment, piece.file_offset % kReadAlignment);
    const uint64_t begin = piece.slot_offset / kReadAlignment * kReadAlignment;
    const uint64_t end = piece.slot_offset + piece.bytes + kReadAlignment - 1;
    for (const ReadTarget& other : targets) {
      if (other.block == piece.block || other.extent.bytes == 0) continue;
      EXPECT_TRUE(other.slot_offset >= end / kReadAlignment * kReadAlignment ||
                  other.slot_offset + other.extent.bytes <= begin);
    }
  }
}

TEST(ReadPlan, CutsASmallExtentIntoAlignedWindows) {
  const std::vector<ReadTarget> targets = {{0, {0, 100, 10 * kReadAlignment}, 0}};
  const ReadPlan plan = plan_reads(targets, kWindow);
  ASSERT_EQ(plan.windows.size(), 3u);
  EXPECT_EQ(plan.windows[0].begin, 0u);
  EXPECT_EQ(plan.windows[1].begin, kWindow);
  EXPECT_EQ(plan.bytes, 10 * kReadAlignment);
  EXPECT_FALSE(plan.windows[0].in_place);
  expect_covered(targets, plan);
}

TEST(ReadPlan, CutsALargeExtentWhereTheArenaHasMultiples) {
  const Extent extent{0, 5 * kReadAlignment + 32, kMinInPlaceBytes};
  const auto slot = slot_for(extent, 100, 64);
  ASSERT_TRUE(slot);
  EXPECT_EQ(slot->begin, kReadAlignment + 32);
  EXPECT_EQ(slot->next, kReadAlignment * 2 + kMinInPlaceBytes);
  const ReadPlan plan = plan_reads({{0, extent, slot->begin}}, kWindow);
  ASSERT_EQ(plan.windows.size(), 5u);
  for (const ReadWindow& window : plan.windows) {
    EXPECT_TRUE(window.in_place);
    const ReadPiece& piece = plan.pieces[window.first_piece];
    EXPECT_EQ(piece.slot_offset / kWindow, (piece.slot_offset + piece.bytes - 1) / kWindow);
  }
  expect_covered({{0, extent, slot->begin}}, plan);
}

TEST(ReadPlan, GivesNoSlotBeyondTheLargestAddress) {
  for (uint64_t bytes : {uint64_t{1}, kMinInPlaceBytes, UINT64_MAX}) {
    EXPECT_FALSE(slot_for({0, 4095, bytes}, UINT64_MAX - 62, 64)) << bytes;
  }
}

TEST(ReadPlan, ReadsNeighboursTogetherInFileOrder) {
  const std::vector<ReadTarget> targets = {{1, {0, 640, 320}, 4096}, {0, {0, 96, 500}, 0}};
  const ReadPlan plan = plan_reads(targets, kWindow);
  ASSERT_EQ(plan.windows.size(), 1u);
  EXPECT_EQ(plan.pieces[0].block, 0u);
  expect_covered(targets, plan);
}

TEST(ReadPlan, DoesNotReadOverLargeGapsOrFiles) {
  const std::vector<ReadTarget> targets = {
      {0, {0, 0, 32}, 0}, {1, {0, uint64_t{1} << 30, 32}, 64}, {2, {1, 64, 32}, 128}};
  EXPECT_EQ(plan_reads(targets, kWindow).windows.size(), 3u);
}

TEST(ReadPlan, HasNothingToDoForEmptyExtents) {
  EXPECT_TRUE(plan_reads({{0, {0, 32, 0}, 0}}, kWindow).windows.empty());
}

TEST(ReadPlan, CoversAnyLayoutExactlyOnce) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<ReadTarget> targets;
    uint64_t slot = 0;
    for (uint32_t block = 0; block < 20; ++block) {
      // Extents of different blocks may overlap: two blocks may share weights.
      const Extent extent{static_cast<uint32_t>(random() % 2), random() % 300000 / 32 * 32,
                          random() % 140000};
      const auto range = slot_for(extent, slot, 64);
      ASSERT_TRUE(range);
      targets.push_back({block, extent, range->begin});
      slot = range->next;
    }
    const ReadPlan plan = plan_reads(targets, kWindow);
    expect_pages_read_in_place_belong_to_one(targets, plan);
    expect_windows_hold_their_pieces(plan);
    expect_covered(targets, plan);
  }
}

}  // namespace
}  // namespace tandem

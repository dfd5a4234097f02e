#include "memory/read_plan.h"

#include <gtest/gtest.h>

#include <random>

namespace tandem {
namespace {

constexpr uint64_t kWindow = 4 * kReadAlignment;

// Each placement's bytes, put together from the pieces, must be its extent in order and once.
void expect_covered(const std::vector<Placement>& placements, const ReadPlan& plan) {
  for (const Placement& placement : placements) {
    uint64_t covered = 0;
    for (const ReadPiece& piece : plan.pieces) {
      if (piece.slot_offset < placement.slot_offset ||
          piece.slot_offset >= placement.slot_offset + placement.extent.bytes) {
        continue;
      }
      EXPECT_EQ(piece.file_offset - placement.extent.offset,
                piece.slot_offset - placement.slot_offset);
      EXPECT_EQ(piece.block, placement.block);
      covered += piece.bytes;
    }
    EXPECT_EQ(covered, placement.extent.bytes);
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

TEST(ReadPlan, CutsALargeExtentIntoAlignedWindows) {
  const std::vector<Placement> placements = {{0, {0, 100, 10 * kReadAlignment}, 0}};
  const ReadPlan plan = plan_reads(placements, kWindow);
  ASSERT_EQ(plan.windows.size(), 3u);
  EXPECT_EQ(plan.windows[0].begin, 0u);
  EXPECT_EQ(plan.windows[1].begin, kWindow);
  EXPECT_EQ(plan.bytes, 10 * kReadAlignment);
  expect_covered(placements, plan);
}

TEST(ReadPlan, ReadsNeighboursTogetherInFileOrder) {
  const std::vector<Placement> placements = {{1, {0, 640, 320}, 4096}, {0, {0, 96, 500}, 0}};
  const ReadPlan plan = plan_reads(placements, kWindow);
  ASSERT_EQ(plan.windows.size(), 1u);
  EXPECT_EQ(plan.pieces[0].block, 0u);
  expect_covered(placements, plan);
}

TEST(ReadPlan, DoesNotReadOverLargeGapsOrFiles) {
  const std::vector<Placement> placements = {
      {0, {0, 0, 32}, 0}, {1, {0, uint64_t{1} << 30, 32}, 64}, {2, {1, 64, 32}, 128}};
  EXPECT_EQ(plan_reads(placements, kWindow).windows.size(), 3u);
}

TEST(ReadPlan, HasNothingToDoForEmptyExtents) {
  EXPECT_TRUE(plan_reads({{0, {0, 32, 0}, 0}}, kWindow).windows.empty());
}

TEST(ReadPlan, CoversAnyLayoutExactlyOnce) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<Placement> placements;
    uint64_t slot = 0;
    for (uint32_t block = 0; block < 20; ++block) {
      // Extents of different blocks may overlap: two blocks may share weights.
      const Extent extent{static_cast<uint32_t>(random() % 2), random() % 300000 / 32 * 32,
                          random() % 70000};
      placements.push_back({block, extent, slot});
      slot += extent.bytes + 64;
    }
    const ReadPlan plan = plan_reads(placements, kWindow);
    expect_windows_hold_their_pieces(plan);
    expect_covered(placements, plan);
  }
}

}  // namespace
}  // namespace tandem

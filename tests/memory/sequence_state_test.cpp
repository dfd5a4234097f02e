#include "memory/sequence_state.h"

#include <cstring>
#include <vector>

#include "status_matchers.h"

namespace tandem {
namespace {

using testing::fails_with;
using testing::is_ok;

constexpr KvLayout kLayout{.n_layers = 2, .n_kv_heads = 3, .head_width = 8, .type = KvType::kF16};

TEST(SequenceState, CountsWholePages) {
  EXPECT_EQ(kLayout.page_bytes(), 3u * 64 * 8 * 2);
  EXPECT_EQ(kLayout.bytes_for(1), kLayout.bytes_for(64));
  EXPECT_EQ(kLayout.bytes_for(65), 2 * kLayout.group_bytes());
}

TEST(SequenceState, PagesOfOneGroupAreContiguousAndDistinct) {
  auto state = SequenceState::create(kLayout, 100);
  ASSERT_THAT(state, is_ok());
  std::byte* base = (*state)->keys(0, 0);
  EXPECT_EQ((*state)->values(0, 0), base + kLayout.page_bytes());
  EXPECT_EQ((*state)->keys(1, 0), base + 2 * kLayout.page_bytes());
  EXPECT_EQ((*state)->keys(0, 1), base + kLayout.group_bytes());
}

TEST(SequenceState, RestoreBringsBackWhatWasUsed) {
  auto a = SequenceState::create(kLayout, 200);
  auto b = SequenceState::create(kLayout, 200);
  ASSERT_THAT(a, is_ok());
  ASSERT_THAT(b, is_ok());
  std::memset((*a)->values(1, 1), 7, kLayout.page_bytes());
  (*a)->append(70);
  (*b)->restore((*a)->used(), (*a)->size());
  EXPECT_EQ((*b)->size(), 70);
  EXPECT_EQ(std::memcmp((*b)->values(1, 1), (*a)->values(1, 1), kLayout.page_bytes()), 0);
}

TEST(SequenceState, ClearUnusedZeroesExactlyWhatWasTruncated) {
  auto state = *SequenceState::create(kLayout, 200);
  state->append(150);
  const std::span<const std::byte> used = state->used();
  std::memset(const_cast<std::byte*>(used.data()), 0x5A, used.size());
  state->truncate(100);
  state->clear_unused();
  const size_t row = kLayout.head_bytes() / kPageTokens;
  for (size_t i = 0; i < state->used().size(); ++i) {
    const bool second_group = i >= kLayout.group_bytes();
    const bool beyond = second_group && i % kLayout.head_bytes() / row >= 100 - kPageTokens;
    ASSERT_EQ(beyond ? std::byte{0} : std::byte{0x5A}, state->used()[i]) << i;
  }
}

TEST(SequenceState, AFailedRestoreLeavesItEmpty) {
  auto state = SequenceState::create(kLayout, 200);
  ASSERT_THAT(state, is_ok());
  (*state)->append(5);
  EXPECT_FALSE(
      (*state)->restore_from(70, [](std::span<std::byte>) { return io_error("read"); }).ok());
  EXPECT_EQ((*state)->size(), 0);
}

TEST(SequenceState, RefusesWhatTheSystemCannotReserve) {
  KvLayout huge = kLayout;
  huge.n_layers = int64_t{1} << 36;
  EXPECT_THAT(SequenceState::create(huge, 1 << 10),
              fails_with(Code::kOutOfMemory, ::testing::HasSubstr("1024 tokens")));
}

}  // namespace
}  // namespace tandem

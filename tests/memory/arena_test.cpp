#include "memory/arena.h"

#include <cstring>

#include "status_matchers.h"

namespace tandem {
namespace {

using namespace testing;
using ::testing::HasSubstr;

TEST(Arena, IsAlignedWholeAndZero) {
  auto arena = Arena::create(5 << 20);
  ASSERT_THAT(arena, is_ok());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(arena->data()) % Arena::kAlignment, 0u);
  EXPECT_EQ(arena->bytes(), uint64_t{6} << 20);
  EXPECT_EQ(arena->data()[arena->bytes() - 1], std::byte{0});
}

TEST(Arena, LivesInHugePagesWhereTheSystemHasThem) {
  auto arena = Arena::create(16 << 20);
  ASSERT_THAT(arena, is_ok());
  EXPECT_EQ(arena->huge_page_bytes(), 0u) << "nothing was written yet";
  std::memset(arena->data(), 1, arena->bytes());
  if (!arena->huge_page_refusal().empty()) GTEST_SKIP() << arena->huge_page_refusal();
  const uint64_t huge = arena->huge_page_bytes();
  if (huge == 0) GTEST_SKIP() << "no huge pages here now";
  EXPECT_LE(huge, arena->bytes());
  EXPECT_EQ(huge % Arena::kAlignment, 0u);
}

TEST(Arena, SaysWhatItNeededWhenMemoryIsRefused) {
  for (uint64_t bytes : {uint64_t{1} << 60, UINT64_MAX}) {
    const auto arena = Arena::create(bytes);
    EXPECT_THAT(arena, fails_with(Code::kOutOfMemory, HasSubstr("are free")));
    EXPECT_GE(arena.status().bytes_needed(), bytes);
    EXPECT_GT(arena.status().bytes_available(), 0u);
  }
}

}  // namespace
}  // namespace tandem

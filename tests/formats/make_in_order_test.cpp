#include "formats/make_in_order.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "status_matchers.h"

namespace tandem {
namespace {

using namespace testing;
using ::testing::HasSubstr;

MakeInOrder squares(size_t n, std::vector<size_t>* taken) {
  MakeInOrder work;
  work.n_pieces = n;
  work.piece_bytes = sizeof(size_t);
  work.n_threads = 4;
  work.make = [](size_t piece, std::span<std::byte> buffer) {
    const size_t square = piece * piece;
    std::memcpy(buffer.data(), &square, sizeof(square));
  };
  work.take = [taken](size_t piece, std::span<const std::byte> buffer) {
    size_t square = 0;
    std::memcpy(&square, buffer.data(), sizeof(square));
    EXPECT_EQ(square, piece * piece);
    taken->push_back(piece);
    return ok_status();
  };
  return work;
}

TEST(MakeInOrder, HandsOverEveryPieceInOrder) {
  CancelFlag cancel;
  for (size_t n : {size_t{0}, size_t{1}, size_t{7}, size_t{5000}}) {
    std::vector<size_t> taken;
    ASSERT_THAT(make_in_order(squares(n, &taken), cancel), is_ok());
    ASSERT_EQ(taken.size(), n);
    for (size_t i = 0; i < n; ++i) EXPECT_EQ(taken[i], i);
  }
}

TEST(MakeInOrder, StopsAtTheFirstError) {
  CancelFlag cancel;
  std::vector<size_t> taken;
  MakeInOrder work = squares(100, &taken);
  work.take = [&](size_t piece, std::span<const std::byte>) {
    taken.push_back(piece);
    return piece == 3 ? io_error("full") : ok_status();
  };
  EXPECT_THAT(make_in_order(work, cancel), fails_with(Code::kIo, HasSubstr("full")));
  EXPECT_EQ(taken.size(), 4u);
}

TEST(MakeInOrder, ACancelEndsItWhileAPieceIsMade) {
  CancelFlag cancel;
  std::vector<size_t> taken;
  MakeInOrder work = squares(1000, &taken);
  work.make = [&](size_t, std::span<std::byte>) {
    cancel.cancel();
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
  };
  EXPECT_THAT(make_in_order(work, cancel), fails_with(Code::kCancelled, HasSubstr("cancelled")));
  EXPECT_TRUE(taken.empty());
}

TEST(MakeInOrder, EndsItsThreadsWhenTakingThrows) {
  CancelFlag cancel;
  std::vector<size_t> taken;
  MakeInOrder work = squares(100, &taken);
  work.take = [](size_t, std::span<const std::byte>) -> Status { throw 1; };
  EXPECT_THROW((void)make_in_order(work, cancel), int);
}

}  // namespace
}  // namespace tandem

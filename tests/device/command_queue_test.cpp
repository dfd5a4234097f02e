#include "device/mirror/command_queue.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

namespace tandem::mirror {
namespace {

using Queue = CommandQueue<uint32_t, 4>;

// Adds and reads as a device does: what has been read counts as executed.
class CommandQueueTest : public ::testing::Test {
 protected:
  void add(uint32_t n) {
    for (; n > 0; --n, ++n_added_) *queue_.add(n_added_, executed_) = n_added_ * 3;
  }
  void read(uint32_t n) {
    for (; n > 0; --n) {
      ASSERT_EQ(n_read_ * 3, queue_.at(n_read_));
      executed_.raise(++n_read_);
    }
  }
  Queue queue_;
  WaitWord executed_;
  uint32_t n_added_ = 0, n_read_ = 0;
};

TEST_F(CommandQueueTest, GivesWhatWasAddedInItsOrder) {
  add(3);
  read(2);
  add(9);
  read(10);
  EXPECT_EQ(n_added_, n_read_);
}

TEST_F(CommandQueueTest, GivesTheSameCommandUntilItIsExecuted) {
  add(6);
  read(4);
  EXPECT_EQ(12u, queue_.at(4));
  EXPECT_EQ(12u, queue_.at(4));
  read(2);
}

TEST_F(CommandQueueTest, GrowsWithWhatNobodyHasExecuted) {
  add(8);
  EXPECT_EQ(2u, queue_.n_blocks());
  add(93);
  EXPECT_EQ(26u, queue_.n_blocks());
  read(101);
}

TEST_F(CommandQueueTest, GrowsInTheMiddleOfTheCircleWithoutLosingTheOrder) {
  add(8);
  read(5);  // the reader is in the second block
  add(40);  // the first is used again, then come new ones
  read(30);
  add(50);
  read(n_added_ - n_read_);
}

TEST_F(CommandQueueTest, HasRoomForEverForWhatItOnceHeld) {
  std::mt19937 generator(1);
  const auto random = [&] { return static_cast<uint32_t>(generator()); };
  add(50);
  read(50);
  const uint32_t n_blocks = queue_.n_blocks();
  for (int round = 0; round < 2000; ++round) {
    for (uint32_t left = 1 + random() % 45; left > 0;) {
      const uint32_t n = 1 + random() % left;
      add(n);
      read(random() % (n_added_ - n_read_ + 1));
      left -= n;
    }
    read(n_added_ - n_read_);
  }
  EXPECT_EQ(n_blocks, queue_.n_blocks());
}

TEST_F(CommandQueueTest, PassesFromThreadToThread) {
  constexpr uint32_t kCommands = 200000;
  WaitWord added;
  std::thread reader([&] {
    for (uint32_t n = 0; n < kCommands; ++n) {
      while (!added.reached(n + 1)) std::this_thread::yield();
      ASSERT_EQ(n * 3, queue_.at(n));
      executed_.raise(n + 1);
    }
  });
  for (uint32_t n = 0; n < kCommands; ++n) {
    *queue_.add(n, executed_) = n * 3;
    added.raise(n + 1);
  }
  reader.join();
}

}  // namespace
}  // namespace tandem::mirror

#include "runtime/event.h"

#include <poll.h>

#include <thread>

#include "status_matchers.h"

namespace tandem {
namespace {

using std::chrono::milliseconds;

Event token(TokenId id) {
  Event event;
  event.kind = EventKind::kToken;
  event.token = id;
  return event;
}

bool readable(const EventQueue& queue) {
  pollfd waiting = {queue.descriptor(), POLLIN, 0};
  return ::poll(&waiting, 1, 0) == 1;
}

TEST(EventQueue, GivesEventsInOrderAroundTheRing) {
  auto queue = EventQueue::create(3);
  ASSERT_THAT(queue, testing::is_ok());
  Event event;
  TokenId pushed = 0, popped = 0;
  for (int round = 0; round < 10; ++round) {
    while ((*queue)->has_room()) (*queue)->push(token(pushed++));
    while ((*queue)->pop(milliseconds(0), event)) EXPECT_EQ(popped++, event.token);
  }
  EXPECT_EQ(30, pushed);
  EXPECT_EQ(30, popped);
}

TEST(EventQueue, KeepsAPlaceForTheLastEventOfARequest) {
  auto queue = EventQueue::create(2);
  ASSERT_THAT(queue, testing::is_ok());
  (*queue)->push(token(1));
  (*queue)->push(token(2));
  ASSERT_FALSE((*queue)->has_room());
  Event done;
  done.kind = EventKind::kDone;
  (*queue)->push(done);
  Event event;
  for (const EventKind kind : {EventKind::kToken, EventKind::kToken, EventKind::kDone}) {
    ASSERT_TRUE((*queue)->pop(milliseconds(0), event));
    EXPECT_EQ(kind, event.kind);
  }
}

TEST(EventQueue, IsReadableExactlyWhileItHoldsEvents) {
  auto queue = EventQueue::create(4);
  ASSERT_THAT(queue, testing::is_ok());
  EXPECT_FALSE(readable(**queue));
  (*queue)->push(token(1));
  (*queue)->push(token(2));
  Event event;
  (*queue)->pop(milliseconds(0), event);
  EXPECT_TRUE(readable(**queue));
  (*queue)->pop(milliseconds(0), event);
  EXPECT_FALSE(readable(**queue));
}

TEST(EventQueue, TellsTheProducerAboutRoomAfterEachPop) {
  auto queue = EventQueue::create(4);
  ASSERT_THAT(queue, testing::is_ok());
  int n = 0;
  (*queue)->set_on_room([&n] { ++n; });
  (*queue)->push(token(1));
  Event event;
  (*queue)->pop(milliseconds(0), event);
  (*queue)->pop(milliseconds(0), event);  // finds nothing
  EXPECT_EQ(1, n);
}

TEST(EventQueue, InterruptEndsAWaitThatHasBegunAndThoseThatFollow) {
  auto queue = EventQueue::create(4);
  ASSERT_THAT(queue, testing::is_ok());
  bool found = true;
  std::thread consumer([&] {
    Event event;
    found = (*queue)->pop(milliseconds(-1), event);
  });
  (*queue)->interrupt();
  consumer.join();
  EXPECT_FALSE(found);
  Event event;
  EXPECT_FALSE((*queue)->pop(milliseconds(-1), event));
  (*queue)->resume();
  const auto start = Clock::now();
  EXPECT_FALSE((*queue)->pop(milliseconds(20), event));
  EXPECT_GE(seconds_since(start), 0.019);
}

}  // namespace
}  // namespace tandem

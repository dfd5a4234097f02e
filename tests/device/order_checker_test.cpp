#include "device/order_checker.h"

#include <array>

#include "status_matchers.h"

namespace tandem {
namespace {

using testing::fails_with;
using ::testing::HasSubstr;
using testing::is_ok;
using Command = OrderChecker::Command;
using Kind = Command::Kind;

constexpr StreamId kA{0}, kB{1};

class OrderCheckerTest : public ::testing::Test {
 protected:
  MemoryRange bytes(size_t begin, size_t n) const { return {memory_.data() + begin, n}; }
  Command reads(const char* name, MemoryRange range) {
    return {Kind::kAccess, {name, 1}, 0, 0, {range}, {}};
  }
  Command writes(const char* name, MemoryRange range) {
    return {Kind::kAccess, {name, 2}, 0, 0, {}, {range}};
  }
  Command event(Kind kind, uint32_t id) { return {kind, {}, id, 0, {}, {}}; }
  Command flag(Kind kind, uint32_t id, uint32_t value) { return {kind, {}, id, value, {}, {}}; }
  Status found() { return checker_.check(); }

  std::array<std::byte, 256> memory_ = {};
  OrderChecker checker_;
};

TEST_F(OrderCheckerTest, WorkOfOneStreamIsOrdered) {
  checker_.submit(kA, writes("norm", bytes(0, 64)));
  checker_.submit(kA, reads("matmul", bytes(0, 64)));
  checker_.submit(kA, writes("add", bytes(32, 64)));
  EXPECT_THAT(found(), is_ok());
}

TEST_F(OrderCheckerTest, TwoStreamsWithoutAWaitAreNotAndBothAreNamed) {
  checker_.submit(kA, writes("norm", bytes(0, 64)));
  checker_.submit(kB, reads("matmul", bytes(63, 1)));
  EXPECT_THAT(
      found(),
      fails_with(
          Code::kInternal,
          HasSubstr(
              "matmul of layer 1 on stream 1 reads what norm of layer 2 on stream 0 writes")));
}

TEST_F(OrderCheckerTest, ReadersNeedNoOrderAmongThemselvesButTheNextWriterDoes) {
  checker_.submit(kA, reads("matmul", bytes(0, 64)));
  checker_.submit(kB, reads("matmul", bytes(0, 64)));
  EXPECT_THAT(checker_.check(false), is_ok());
  checker_.submit(kB, writes("add", bytes(0, 1)));
  EXPECT_THAT(found(), fails_with(Code::kInternal,
                                  HasSubstr("writes what matmul of layer 1 on stream 0 reads")));
}

TEST_F(OrderCheckerTest, NeighbouringBytesAreNotTheSame) {
  checker_.submit(kA, writes("norm", bytes(0, 64)));
  checker_.submit(kB, writes("norm", bytes(64, 64)));
  EXPECT_THAT(found(), is_ok());
}

TEST_F(OrderCheckerTest, AnEventOrdersWhatStandsBeforeItsRecordOnly) {
  checker_.submit(kA, writes("norm", bytes(0, 64)));
  checker_.submit(kA, event(Kind::kRecord, 7));
  checker_.submit(kA, writes("add", bytes(64, 64)));
  checker_.submit(kB, event(Kind::kWait, 7));
  checker_.submit(kB, reads("matmul", bytes(0, 64)));
  EXPECT_THAT(checker_.check(false), is_ok());
  checker_.submit(kB, reads("matmul", bytes(64, 64)));
  EXPECT_FALSE(found().ok());
}

TEST_F(OrderCheckerTest, AWaitIsForTheRecordBeforeItNotForLaterOnes) {
  checker_.submit(kB, flag(Kind::kWaitFlag, 0, 1));
  checker_.submit(kA, event(Kind::kRecord, 7));
  checker_.submit(kB, event(Kind::kWait, 7));
  checker_.submit(kB, writes("add", bytes(0, 64)));
  checker_.submit(kA, reads("matmul", bytes(0, 64)));
  checker_.submit(kA, event(Kind::kRecord, 7));
  checker_.host_set_flag(0, 1);  // only now the other stream goes on
  EXPECT_FALSE(found().ok());
}

TEST_F(OrderCheckerTest, AFlagOrdersTheHostBeforeAStreamAndBack) {
  const MemoryRange up = bytes(0, 64), down = bytes(64, 64);
  checker_.submit(kA, flag(Kind::kWaitFlag, 0, 1));
  checker_.submit(kA, reads("a copy", up));
  checker_.submit(kA, writes("a copy", down));
  checker_.submit(kA, flag(Kind::kSetFlag, 1, 1));
  checker_.host_access({}, {&up, 1}, {"embed", -1});
  checker_.host_set_flag(0, 1);
  checker_.host_saw_flag(1, 1);
  checker_.host_access({&down, 1}, {&up, 1}, {"matmul", -1});
  EXPECT_THAT(found(), is_ok());
}

TEST_F(OrderCheckerTest, AHostThatDoesNotWaitIsFoundWhicheverComesFirst) {
  const MemoryRange range = bytes(0, 64);
  for (const bool host_first : {true, false}) {
    OrderChecker checker;
    if (host_first) {
      checker.submit(kA, flag(Kind::kWaitFlag, 0, 1));
      checker.submit(kA, writes("a copy", range));
      checker.host_set_flag(0, 1);
      checker.host_access({&range, 1}, {}, {"add", 3});
    } else {
      checker.submit(kA, writes("a copy", range));
      checker.host_access({&range, 1}, {}, {"add", 3});
    }
    EXPECT_FALSE(checker.check().ok()) << host_first;
  }
}

TEST_F(OrderCheckerTest, WhatTheHostDidBeforeSubmittingIsOrdered) {
  const MemoryRange range = bytes(0, 64);
  checker_.host_access({}, {&range, 1}, {"a step's input", -1});
  checker_.submit(kA, reads("a copy", range));
  EXPECT_THAT(checker_.check(false), is_ok());
  checker_.host_access({}, {&range, 1}, {"a step's input", -1});
  EXPECT_FALSE(found().ok()) << "the next input, before the copy is done";
}

TEST_F(OrderCheckerTest, ASynchronizedStreamIsBehindTheHost) {
  const MemoryRange range = bytes(0, 64);
  checker_.submit(kA, writes("a copy", range));
  checker_.host_saw_stream(kA);
  checker_.host_access({&range, 1}, {&range, 1}, {"add", 3});
  EXPECT_THAT(found(), is_ok());
}

TEST_F(OrderCheckerTest, FreedMemoryMayNotBeUsedOrBeInUse) {
  checker_.allocated(memory_.data(), 128);
  checker_.submit(kA, writes("norm", bytes(0, 64)));
  checker_.freed(memory_.data());
  EXPECT_THAT(checker_.check(false), fails_with(Code::kInternal, HasSubstr("freeing memory")));
  OrderChecker later;
  later.allocated(memory_.data(), 128);
  later.freed(memory_.data());
  later.submit(kA, writes("norm", bytes(0, 64)));
  EXPECT_THAT(later.check(), fails_with(Code::kInternal, HasSubstr("freed")));
  OrderChecker again;
  again.allocated(memory_.data(), 128);
  again.freed(memory_.data());
  again.allocated(memory_.data(), 64);
  again.submit(kA, writes("norm", bytes(0, 64)));
  EXPECT_THAT(again.check(), is_ok());
}

TEST_F(OrderCheckerTest, MemoryEndsWhereItsAllocationDoes) {
  const auto used = [this](size_t begin, size_t end) {
    OrderChecker checker;
    checker.allocated(memory_.data() + 64, 64);
    checker.submit(kA, writes("norm", bytes(begin, end - begin)));
    return checker.check();
  };
  EXPECT_THAT(used(64, 128), is_ok());
  EXPECT_THAT(used(64, 129), fails_with(Code::kInternal, HasSubstr("reaches beyond")));
  EXPECT_THAT(used(63, 65), fails_with(Code::kInternal, HasSubstr("reaches beyond")));
  EXPECT_THAT(used(0, 256), fails_with(Code::kInternal, HasSubstr("reaches beyond")));
  EXPECT_THAT(used(0, 64), is_ok()) << "memory of others";
}

TEST_F(OrderCheckerTest, AWaitForWhatIsNeverSetIsFoundAtTheEnd) {
  checker_.submit(kA, flag(Kind::kWaitFlag, 0, 2));
  checker_.host_set_flag(0, 1);
  EXPECT_THAT(checker_.check(false), is_ok());
  EXPECT_THAT(found(), fails_with(Code::kInternal, HasSubstr("waits for ever")));
}

TEST_F(OrderCheckerTest, FlagsMayNotBeResetWhileTheyAreInUse) {
  checker_.submit(kA, flag(Kind::kWaitFlag, 0, 2));
  checker_.reset_flags();
  EXPECT_FALSE(found().ok());
  OrderChecker unseen;
  unseen.submit(kA, flag(Kind::kSetFlag, 0, 1));
  unseen.reset_flags();
  EXPECT_FALSE(unseen.check().ok()) << "nobody knows that it has been set";
}

}  // namespace
}  // namespace tandem

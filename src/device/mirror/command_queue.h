// The commands that wait in a stream of the mirror device, in the order of submission.  Private to it.
//
// Blocks of commands in a circle: one that has been executed is used again, and where none is free, because a step is
// submitted faster than it is executed, the circle gets another.  So whoever submits never waits, and a stream that has
// once held its longest step takes no more memory.
//
// Threading: add() from the submitting thread, at() from the stream's own.  What is told from one to the other is that a
// command has been added (whoever calls at() knows) and that one has been executed (`executed`).
// Ownership: owns the blocks.  Errors: null when there is no memory.
#pragma once

#include <cstdint>
#include <new>
#include <utility>

#include "base/wait_word.h"

namespace tandem::mirror {

template <typename Command, uint32_t kBlockCommands>
class CommandQueue {
 public:
  CommandQueue() {
    added_to_ = read_from_ = new Block;
    added_to_->next = new Block;
    added_to_->next->next = added_to_;
  }
  ~CommandQueue() {
    for (Block* block = std::exchange(added_to_->next, nullptr); block != nullptr;) {
      delete std::exchange(block, block->next);
    }
  }
  CommandQueue(const CommandQueue&) = delete;
  CommandQueue& operator=(const CommandQueue&) = delete;

  // Where the n-th command goes; n is one more each time.  `executed`: how many have been, as a wrapping counter.
  Command* add(uint32_t n, const WaitWord& executed) {
    if (n - added_begin_ == kBlockCommands) {
      if (!take_next(n, executed) && !insert_block()) return nullptr;
      added_to_ = added_to_->next;
      added_begin_ = n;
    }
    return &added_to_->commands[n - added_begin_];
  }

  // The n-th command; n is the same as the last time or one more.  Requires: it has been added.
  const Command& at(uint32_t n) {
    if (n - read_begin_ == kBlockCommands) {
      read_from_ = read_from_->next;
      read_begin_ = n;
    }
    return read_from_->commands[n - read_begin_];
  }

  uint32_t n_blocks() const { return n_blocks_; }

 private:
  struct Block {
    Command commands[kBlockCommands];
    Block* next = nullptr;
  };

  // The next block has the oldest commands.  Its reader is through when it has executed one of the block behind it.
  bool take_next(uint32_t n, const WaitWord& executed) {
    if (n_used_ < n_blocks_) return ++n_used_ > 0;
    return executed.reached(n - (n_blocks_ - 1) * kBlockCommands + 1);
  }

  // Behind the one that is being added to.
  bool insert_block() {
    Block* const block = new (std::nothrow) Block;
    if (block == nullptr) return false;
    block->next = added_to_->next;
    added_to_->next = block;
    ++n_blocks_;
    ++n_used_;
    return true;
  }

  // Of the submitting thread.
  Block* added_to_;
  uint32_t added_begin_ = 0;  // the first command of that block
  uint32_t n_blocks_ = 2, n_used_ = 1;
  // Of the stream's own.
  alignas(64) Block* read_from_;
  uint32_t read_begin_ = 0;
};

}  // namespace tandem::mirror

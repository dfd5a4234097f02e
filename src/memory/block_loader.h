// Carries out a ReadPlan with a few threads of its own.
//
// Threading: run() once, from one thread; the counters may be read afterwards.
// Ownership: borrows plan, files and memory, which outlive it.
// Errors: the first read error in time, or kCancelled.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <stop_token>
#include <vector>

#include "base/file.h"
#include "base/progress.h"
#include "memory/arena.h"
#include "memory/read_plan.h"

namespace tandem {

class BlockLoader {
 public:
  // One huge page: two threads that first touch the same one would both clear it, and clearing is
  // most of the processor time that loading takes.  Four of these end within 100 ms, the time a
  // cancel may take, at 100 MB/s.
  static constexpr uint64_t kWindowBytes = Arena::kAlignment;
  static constexpr uint32_t kNoBlock = UINT32_MAX;

  BlockLoader(const ReadPlan& plan, std::vector<const ReadFile*> files, std::byte* memory)
      : plan_(plan), files_(std::move(files)), memory_(memory) {}

  // n_threads 0 picks a number.  Every thread has ended when it returns.
  Status run(unsigned n_threads, const ProgressCallback& progress, const CancelFlag& cancel);

  uint64_t bytes_done() const { return bytes_done_; }
  uint32_t failed_block() const { return failed_block_; }  // kNoBlock unless a read failed

 private:
  struct alignas(kReadAlignment) Page {
    std::byte bytes[kReadAlignment];
  };
  using Bounce =
      std::unique_ptr<Page[]>;  // kWindowBytes, aligned for direct reads of small extents

  void work(const std::stop_token& stop, const CancelFlag& cancel, Page* bounce);
  Status read_window(const ReadWindow& window, Page* bounce);
  Status read_buffered(const ReadWindow& window);
  Status read_direct(const ReadWindow& window, Page* bounce);
  void fail(Status status, uint32_t block);
  void wait_for_workers(const ProgressCallback& progress);

  const ReadPlan& plan_;
  const std::vector<const ReadFile*> files_;
  std::byte* const memory_;

  // Safe on their own.
  std::atomic<size_t> next_window_{0};
  std::atomic<uint64_t> bytes_done_{0};
  std::atomic<bool> stopped_{false};

  std::mutex mutex_;
  std::condition_variable worker_ended_;
  // Guarded by mutex_ while workers run.
  unsigned n_working_ = 0;
  Status first_error_;
  uint32_t failed_block_ = kNoBlock;
};

}  // namespace tandem

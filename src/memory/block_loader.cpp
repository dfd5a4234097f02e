#include "memory/block_loader.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>
#include <string>
#include <system_error>
#include <thread>

#include "base/checked.h"
#include "base/thread.h"

namespace tandem {
namespace {

// Enough outstanding megabytes for one NVMe drive; copies out of the page cache end at the cores.
constexpr unsigned kDefaultThreads = 4;
constexpr auto kProgressInterval = std::chrono::milliseconds(50);

}  // namespace

Status BlockLoader::run(unsigned n_threads, const ProgressCallback& progress,
                        const CancelFlag& cancel) {
  const size_t wanted = n_threads == 0 ? kDefaultThreads : n_threads;
  const size_t n = std::min(wanted, std::max<size_t>(plan_.windows.size(), 1));
  const bool direct = std::any_of(files_.begin(), files_.end(), [](const ReadFile* file) {
    return file->mode() == ReadFile::Mode::kDirect;
  });
  std::vector<Bounce> bounces(n);
  std::vector<std::jthread> threads;  // destroyed first: a progress callback may throw
  threads.reserve(n);
  for (Bounce& bounce : bounces) {
    if (direct) bounce = std::make_unique_for_overwrite<Page[]>(kWindowBytes / kReadAlignment);
    {
      const std::lock_guard lock(mutex_);
      ++n_working_;
    }
    try {
      threads.push_back(start_thread<std::jthread>(
          [this, &cancel, page = bounce.get()](const std::stop_token& stop) {
            work(stop, cancel, page);
          }));
    } catch (const std::system_error& error) {
      const std::lock_guard lock(mutex_);
      --n_working_;
      if (threads.empty())
        return out_of_memory(std::string("no thread to read with: ") + error.what());
      break;
    }
  }
  wait_for_workers(progress);
  threads.clear();
  if (!first_error_.ok()) return first_error_;
  if (bytes_done_ < plan_.bytes) return cancelled("loading was cancelled");
  return ok_status();
}

void BlockLoader::wait_for_workers(const ProgressCallback& progress) {
  ProgressMeter meter(Stage::kLoad, plan_.bytes, progress);
  std::unique_lock lock(mutex_);
  while (n_working_ > 0) {
    worker_ended_.wait_for(lock, kProgressInterval);
    const bool last = n_working_ == 0;
    lock.unlock();
    if (!last && bytes_done_ < plan_.bytes) meter.report(bytes_done_);
    lock.lock();
  }
  const bool complete = bytes_done_ == plan_.bytes && first_error_.ok();
  lock.unlock();
  if (complete) meter.report(plan_.bytes);
}

void BlockLoader::work(const std::stop_token& stop, const CancelFlag& cancel, Page* bounce) {
  try {
    while (!stop.stop_requested() && !stopped_ && !cancel.cancelled()) {
      const size_t i = next_window_.fetch_add(1);
      if (i >= plan_.windows.size()) break;
      const ReadWindow& window = plan_.windows[i];
      const Status status = read_window(window, bounce);
      if (!status.ok()) fail(status, plan_.pieces[window.first_piece].block);
    }
  } catch (const std::bad_alloc&) {
    fail(out_of_memory("no memory while reading weights"), kNoBlock);
  }
  const std::lock_guard lock(mutex_);
  --n_working_;
  worker_ended_.notify_one();
}

void BlockLoader::fail(Status status, uint32_t block) {
  stopped_ = true;
  const std::lock_guard lock(mutex_);
  if (!first_error_.ok()) return;
  first_error_ = std::move(status);
  failed_block_ = block;
}

Status BlockLoader::read_window(const ReadWindow& window, Page* bounce) {
  const bool direct = files_[window.file_index]->mode() == ReadFile::Mode::kDirect;
  return direct ? read_direct(window, bounce) : read_buffered(window);
}

Status BlockLoader::read_buffered(const ReadWindow& window) {
  const ReadFile& file = *files_[window.file_index];
  for (uint32_t i = 0; i < window.n_pieces; ++i) {
    const ReadPiece& piece = plan_.pieces[window.first_piece + i];
    TANDEM_RETURN_IF_ERROR(
        file.read_at(piece.file_offset, {memory_ + piece.slot_offset, piece.bytes}));
    bytes_done_ += piece.bytes;
  }
  return ok_status();
}

// Whole pages, where the bytes belong or through the bounce buffer.
Status BlockLoader::read_direct(const ReadWindow& window, Page* bounce) {
  const ReadPiece& first = plan_.pieces[window.first_piece];
  auto* buffer = window.in_place ? memory_ + first.slot_offset - (first.file_offset - window.begin)
                                 : reinterpret_cast<std::byte*>(bounce);
  const uint64_t bytes = align_up(window.end - window.begin, kReadAlignment);
  TANDEM_RETURN_IF_ERROR(files_[window.file_index]->read_at(window.begin, {buffer, bytes}));
  for (uint32_t i = 0; i < window.n_pieces; ++i) {
    const ReadPiece& piece = plan_.pieces[window.first_piece + i];
    if (!window.in_place) {
      std::memcpy(memory_ + piece.slot_offset, buffer + (piece.file_offset - window.begin),
                  piece.bytes);
    }
    bytes_done_ += piece.bytes;
  }
  return ok_status();
}

}  // namespace tandem

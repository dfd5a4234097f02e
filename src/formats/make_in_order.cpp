#include "formats/make_in_order.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace tandem {
namespace {

constexpr unsigned kMaxThreads = 16;
constexpr auto kCancelInterval = std::chrono::milliseconds(20);

class Line {
 public:
  Line(const MakeInOrder& work, size_t n_buffers) : work_(work), made_(n_buffers, false) {
    for (size_t i = 0; i < n_buffers; ++i) {
      buffers_.push_back(std::make_unique_for_overwrite<std::byte[]>(work.piece_bytes));
    }
  }

  void make_pieces(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    for (;;) {
      const bool go_on = room_.wait(
          lock, stop, [&] { return next_ == work_.n_pieces || next_ < taken_ + buffers_.size(); });
      if (!go_on || stop.stop_requested() || next_ == work_.n_pieces) return;
      const size_t piece = next_++;
      lock.unlock();
      work_.make(piece, buffer(piece));
      lock.lock();
      made_[piece % made_.size()] = true;
      ready_.notify_one();
    }
  }

  Status take_pieces(const CancelFlag& cancel) {
    for (size_t piece = 0; piece < work_.n_pieces; ++piece) {
      if (!wait_for(piece, cancel)) return cancelled("cancelled");
      TANDEM_RETURN_IF_ERROR(work_.take(piece, buffer(piece)));
      const std::lock_guard lock(mutex_);
      made_[piece % made_.size()] = false;
      ++taken_;
      room_.notify_one();
    }
    return ok_status();
  }

 private:
  std::span<std::byte> buffer(size_t piece) {
    return {buffers_[piece % buffers_.size()].get(), work_.piece_bytes};
  }

  // False when cancelled.
  bool wait_for(size_t piece, const CancelFlag& cancel) {
    std::unique_lock lock(mutex_);
    while (!cancel.cancelled()) {
      if (ready_.wait_for(lock, kCancelInterval, [&] { return made_[piece % made_.size()]; })) {
        return !cancel.cancelled();
      }
    }
    return false;
  }

  const MakeInOrder& work_;
  // A buffer belongs to one piece from the moment it is drawn until it is taken.
  std::vector<std::unique_ptr<std::byte[]>> buffers_;

  std::mutex mutex_;
  std::condition_variable_any room_;  // knows stop tokens
  std::condition_variable ready_;
  // Guarded by mutex_.
  size_t next_ = 0;         // piece that is made next
  size_t taken_ = 0;        // pieces that were taken
  std::vector<bool> made_;  // by buffer
};

}  // namespace

Status make_in_order(const MakeInOrder& work, const CancelFlag& cancel) {
  const unsigned processors = std::max(1u, std::thread::hardware_concurrency());
  const unsigned wanted = work.n_threads == 0 ? std::min(processors, kMaxThreads) : work.n_threads;
  Line line(work, 2 * size_t{wanted});
  std::vector<std::jthread> threads;  // behind `line`: they end before it does
  threads.reserve(wanted);
  for (unsigned i = 0; i < wanted; ++i) {
    try {
      threads.emplace_back([&line](const std::stop_token& stop) { line.make_pieces(stop); });
    } catch (const std::system_error& error) {
      if (threads.empty())
        return out_of_memory(std::string("no thread to work with: ") + error.what());
      break;
    }
  }
  return line.take_pieces(cancel);
}

}  // namespace tandem

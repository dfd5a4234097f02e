#include "runtime/event.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace tandem {
namespace {

constexpr size_t kTextBytes = 64;  // room that each slot starts with

}  // namespace

Result<std::unique_ptr<EventQueue>> EventQueue::create(size_t capacity) {
  const int fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) return status_from_errno(errno, "event descriptor");
  return std::unique_ptr<EventQueue>(new EventQueue(capacity, fd));
}

EventQueue::EventQueue(size_t capacity, int fd) : fd_(fd), ring_(capacity + 1) {
  for (Event& event : ring_) event.text.reserve(kTextBytes);
}

EventQueue::~EventQueue() { ::close(fd_); }

bool EventQueue::has_room(size_t n_events) const {
  std::lock_guard lock(mutex_);
  return size_ + n_events < ring_.size();
}

void EventQueue::push(const Event& event) {
  {
    std::lock_guard lock(mutex_);
    TANDEM_ASSERT(size_ < ring_.size());
    ring_[(first_ + size_) % ring_.size()] = event;
    announce_one();
  }
  filled_.notify_one();
}

void EventQueue::push_last(Event& event) noexcept {
  {
    std::lock_guard lock(mutex_);
    TANDEM_ASSERT(size_ < ring_.size());
    std::swap(ring_[(first_ + size_) % ring_.size()], event);
    announce_one();
  }
  filled_.notify_one();
}

// The descriptor is readable exactly while the queue holds something.
void EventQueue::announce_one() noexcept {
  ++size_;
  if (size_ == 1) ::eventfd_write(fd_, 1);
}

bool EventQueue::pop(std::chrono::milliseconds timeout, Event& event) {
  {
    std::unique_lock lock(mutex_);
    const auto ready = [this] { return size_ > 0 || interrupted_; };
    if (timeout.count() < 0) {
      filled_.wait(lock, ready);
    } else if (timeout.count() > 0) {
      filled_.wait_for(lock, timeout, ready);
    }
    if (size_ == 0) return false;
    std::swap(event, ring_[first_]);
    first_ = (first_ + 1) % ring_.size();
    --size_;
    if (size_ == 0) {
      eventfd_t ignored = 0;
      ::eventfd_read(fd_, &ignored);
    }
  }
  if (on_room_) on_room_();
  return true;
}

void EventQueue::set_interrupted(bool interrupted) {
  {
    std::lock_guard lock(mutex_);
    interrupted_ = interrupted;
  }
  filled_.notify_all();
}

}  // namespace tandem

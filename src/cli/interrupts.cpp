#include "interrupts.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <utility>

namespace tandem::cli::interrupts {
namespace {

std::atomic<int> event_fd{-1};
std::atomic<bool> waiting{false};
std::atomic<int> ending{0};
std::atomic<bool> window_changed{false};
std::atomic<bool> continued{false};
std::atomic<tandem_cancel*> cancel_flag{nullptr};
static_assert(std::atomic<tandem_cancel*>::is_always_lock_free, "handlers must not take locks");

void on_interrupt(int signal_number) {
  const int saved_errno = errno;
  if (signal_number != SIGINT) ending.store(signal_number);
  waiting.store(true);
  if (tandem_cancel* flag = cancel_flag.load()) tandem_cancel_trigger(flag);
  const uint64_t one = 1;
  // A full counter means that it is readable already.
  [[maybe_unused]] const ssize_t written = ::write(event_fd.load(), &one, sizeof one);
  errno = saved_errno;
}

void on_window_change(int) { window_changed.store(true); }
void on_continue(int) { continued.store(true); }

void handle(int signal_number, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  action.sa_flags = 0;  // without SA_RESTART: a write to a stopped terminal must end
  ::sigaction(signal_number, &action, nullptr);
}

}  // namespace

void install() {
  event_fd.store(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  handle(SIGINT, on_interrupt);
  handle(SIGTERM, on_interrupt);
  handle(SIGHUP, on_interrupt);
  handle(SIGWINCH, on_window_change);
  handle(SIGCONT, on_continue);
  // A closed pipe is found by write(); the program then ends as if by the signal, after cleaning
  // up.
  handle(SIGPIPE, SIG_IGN);
  // The same for a limit on the size of files (ulimit -f): a half-written file is removed, not
  // left.
  handle(SIGXFSZ, SIG_IGN);
}

int fd() { return event_fd.load(); }
bool pending() { return waiting.load(); }
int end_signal() { return ending.load(); }

void clear() {
  if (ending.load() != 0) return;
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t taken = ::read(event_fd.load(), &count, sizeof count);
  waiting.store(false);
}

CancelOnInterrupt::CancelOnInterrupt(api::Cancel& cancel) {
  cancel_flag.store(cancel.get());
  if (pending()) cancel.trigger();
}

CancelOnInterrupt::~CancelOnInterrupt() { cancel_flag.store(nullptr); }

ActOnInterrupt::ActOnInterrupt(std::function<void()> action) : end_fd_(::eventfd(0, EFD_CLOEXEC)) {
  thread_ = std::thread([this, act = std::move(action)] {
    pollfd watched[2] = {{interrupts::fd(), POLLIN, 0}, {end_fd_, POLLIN, 0}};
    while (::poll(watched, 2, -1) < 0 && errno == EINTR) {
    }
    // Again and again: what is to be stopped may be between two steps, and start the next one.
    while ((watched[1].revents & POLLIN) == 0) {
      act();
      ::poll(&watched[1], 1, 20);
    }
  });
}

ActOnInterrupt::~ActOnInterrupt() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(end_fd_, &one, sizeof one);
  thread_.join();
  ::close(end_fd_);
}

bool take_window_change() { return window_changed.exchange(false); }
bool take_continue() { return continued.exchange(false); }

}  // namespace tandem::cli::interrupts

// Threads that a library may start inside somebody's program: they take none of its signals.
//
// Threading: any thread.
// Ownership: the caller owns the thread.
// Errors: std::system_error when the system refuses a thread, as std::thread.
#pragma once

#include <signal.h>

#include <thread>
#include <utility>

namespace tandem {

// Blocks the signals of this thread, and so of the threads it starts, for its lifetime: a host that waits with
// signalfd or sigwait has its signals blocked in its own threads, and ours would take them away from it.
// Not those that an instruction of the thread itself raises: blocked, they would end the host without its handler.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t all;
    sigfillset(&all);
    for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT})
      sigdelset(&all, own);
    pthread_sigmask(SIG_SETMASK, &all, &saved_);
  }
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &saved_, nullptr); }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;

 private:
  sigset_t saved_;
};

// Thread: std::thread or std::jthread.
template <typename Thread = std::thread, typename Body>
Thread start_thread(Body&& body) {
  const BlockedSignals blocked;
  return Thread(std::forward<Body>(body));
}

}  // namespace tandem

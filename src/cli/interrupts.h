// Ctrl-C and its relatives, turned into something that loops can wait for.
//
// The program installs the handlers, the library never does. SIGINT asks to stop what runs now;
// SIGTERM and SIGHUP ask the program to end, and pass through the same path so that a half-written
// file is removed.
//
// Threading: the handlers may run on any thread; everything here may be called from any thread.
// Ownership: process-wide, because signals are.
#pragma once

#include <functional>
#include <thread>

#include "tandem/tandem.hpp"

namespace tandem::cli::interrupts {

void install();

// Readable while an interrupt waits; for poll().
int fd();
bool pending();
// Forgets a waiting SIGINT. A request to end the program stays.
void clear();
// The signal that asks the program to end, or 0.
int end_signal();

// The flag that an interrupt triggers. One at a time, nullptr for none.
class CancelOnInterrupt {
 public:
  explicit CancelOnInterrupt(api::Cancel& cancel);
  ~CancelOnInterrupt();
  CancelOnInterrupt(const CancelOnInterrupt&) = delete;
  CancelOnInterrupt& operator=(const CancelOnInterrupt&) = delete;
};

// Calls `action` from a thread of its own, from when an interrupt comes until this object goes: for
// blocking calls that have no cancel flag.
class ActOnInterrupt {
 public:
  explicit ActOnInterrupt(std::function<void()> action);
  ~ActOnInterrupt();
  ActOnInterrupt(const ActOnInterrupt&) = delete;
  ActOnInterrupt& operator=(const ActOnInterrupt&) = delete;

 private:
  int end_fd_;
  std::thread thread_;
};

// True once after the terminal changed its size, or the program came back from being stopped.
bool take_window_change();
bool take_continue();

}  // namespace tandem::cli::interrupts

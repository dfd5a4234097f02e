// Built without the thread sanitizer (CMakeLists.txt), as oneTBB itself is: its headers put parts
// of its scheduler into this file, and a sanitizer that sees only those takes every hand-over for a
// race. No data of ours is touched here.
#include "base/tbb_threads.h"

#include <tbb/global_control.h>
#include <tbb/task_arena.h>
#include <tbb/task_group.h>

#include <algorithm>
#include <cstddef>
#include <deque>

#include "base/thread.h"

namespace tandem {
namespace {

// Asking an arena for more prints a warning. Only read: the limit belongs to the host.
size_t threads_the_host_allows() {
  return tbb::global_control::active_value(tbb::global_control::max_allowed_parallelism);
}

// A place for the caller and one for a thread of oneTBB's.
struct Helper {
  tbb::task_arena arena{2};
  tbb::task_group group;
};

}  // namespace

// One arena per helper and not one for all: of an arena's threads oneTBB lets the first start the
// others, and where the system refuses one of those the process is ended (std::terminate, seen with
// 2021.8). So each is started from here, where a refusal is an exception.
void run_on_threads(unsigned n_threads, void (*work)(void*) noexcept, void* context) {
  const size_t n = std::min<size_t>(n_threads, threads_the_host_allows());
  std::deque<Helper> helpers;  // never moved
  size_t n_started = 0;
  try {
    // Not for longer: the caller may be the only thread that takes the host's signals, and one of
    // them may be what cancels this work.
    const BlockedSignals blocked;
    while (helpers.size() + 1 < n) {
      Helper& helper = helpers.emplace_back();
      helper.arena.initialize();
      ++n_started;
      helper.arena.execute([&] { helper.group.run([=] { work(context); }); });
    }
  } catch (...) {  // no memory, or no thread: those that are there do the work
    // An arena that could not be made whole would be waited for without end.
    if (helpers.size() > n_started) helpers.pop_back();
  }
  work(context);
  // What no thread had time for yet is called here, and finds nothing left to do.
  for (Helper& helper : helpers) helper.arena.execute([&] { helper.group.wait(); });
}

}  // namespace tandem

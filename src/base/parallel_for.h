// Long work that is not a step of a model, on several threads: one call per index, in any order,
// and done when it returns.
//
// The threads are oneTBB's, which all libraries of a process share, in an arena of this call's own:
// never more than n_threads work at once, the caller is one of them, and none of the host program's
// oneTBB settings is read for anything but their limits or changed. Where the host leaves no
// thread, or the system refuses one, the caller does the work alone. Not for bodies that wait (for
// a drive, a lock held for long, another index): those would take a thread from the host.
//
// Threading: any thread, also from a body. While it waits a caller runs nothing but this call's own
// bodies. Ownership: borrows cancel and body until it returns. Errors: what a body returns or
// throws, of the lowest index that did: the same for every number of threads; higher indices may
// then be left out. Else kCancelled if an index was left out because of cancel, which is looked at
// before each.
#pragma once

#include <cstddef>
#include <functional>

#include "base/progress.h"
#include "base/status.h"

namespace tandem {

// What bodies write happens before the return, and what the caller wrote before them. Bodies are
// not ordered among themselves: results that must not depend on n_threads go to a place of each
// index's own. Requires: n_threads >= 1.
Status parallel_for(size_t n, unsigned n_threads, const CancelFlag& cancel,
                    const std::function<Status(size_t)>& body);

}  // namespace tandem

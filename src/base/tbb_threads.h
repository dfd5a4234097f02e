// The one door to oneTBB: no other file of the library includes its headers.
//
// Threading: any thread, also from within `work`.
// Ownership: borrows context until it returns.
// Errors: std::bad_alloc.
#pragma once

namespace tandem {

// Calls work(context) on this thread and, as threads are free, at the same time on up to n_threads
// - 1 others; every call has returned when it does. A call that comes late may find nothing left to
// do; it is made all the same. In builds with the thread sanitizer this function is invisible to
// it: `work` orders with atomics what it hands over.
void run_on_threads(unsigned n_threads, void (*work)(void*) noexcept, void* context);

}  // namespace tandem

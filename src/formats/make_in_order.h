// Pieces that are made side by side and handed over one after the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "base/progress.h"
#include "base/status.h"

namespace tandem {

struct MakeInOrder {
  size_t n_pieces = 0;
  size_t piece_bytes = 0;  // of the buffer that each piece is made in
  unsigned n_threads = 0;  // 0: one per processor
  // Fills the buffer; called on any of the threads, several at once.  Must not throw.
  std::function<void(size_t piece, std::span<std::byte> buffer)> make;
  // Takes the pieces in order, on the calling thread, while later ones are made.
  std::function<Status(size_t piece, std::span<const std::byte> buffer)> take;
};

// Threads of its own and not parallel_for()'s: `take` waits for a drive and makers wait for it, which
// would hold threads that oneTBB shares with the host program.
// Errors: the first of take(), after which nothing more is taken; kCancelled within 50 ms and one
// take(); kOutOfMemory when there is no thread.  Every thread has ended when it returns or throws.
Status make_in_order(const MakeInOrder& work, const CancelFlag& cancel);

}  // namespace tandem

#include "runtime/weight_check.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/thread.h"
#include "formats/check_weights.h"

namespace tandem {
namespace {

constexpr size_t kPieceBytes = size_t{8} << 20;

// Some whole rows of one weight.
struct Piece {
  const Weight* weight;
  size_t begin, bytes;
};

std::vector<Piece> cut(const Program& program) {
  std::vector<Piece> pieces;
  for (const Weight& weight : program.weights) {
    const size_t row = weight.row_bytes();
    const size_t total = row * static_cast<size_t>(weight.rows);
    const size_t step = std::max<size_t>(1, kPieceBytes / row) * row;
    for (size_t begin = 0; begin < total; begin += step) {
      pieces.push_back({&weight, begin, std::min(step, total - begin)});
    }
  }
  return pieces;
}

Status not_finite(const Program& program, const Weight& weight, uint64_t offset) {
  const BlockSpec& block = program.blocks[weight.block];
  static constexpr const char* kParts[] = {" gate", " up", " down"};
  const std::string name = block.name + (block.extents.size() > 1 ? kParts[weight.extent] : "");
  return corrupt("tensor " + name + " (" + std::string(dtype_info(weight.type).name) + ") holds a value at its byte " +
                 std::to_string(offset) + " that is not a finite number: the file is damaged")
      .in_tensor(name)
      .at_offset(block.extents[weight.extent].offset + offset)
      .suggest("download or convert the model again");
}

}  // namespace

// Threads of its own rather than oneTBB's: what a library without instrumentation hands from thread to thread looks like
// races to the sanitizer, and no suppression could tell those from real ones.
Status check_weights(const Program& program, const BlockStore& store, unsigned n_threads, const CancelFlag& cancel) {
  const std::vector<Piece> pieces = cut(program);
  struct Found {
    const Weight* weight = nullptr;
    uint64_t offset = 0;
  };
  std::mutex mutex;
  Found found;  // guarded by mutex
  std::atomic<size_t> next{0};
  const auto check = [&] {
    for (size_t i = next++; i < pieces.size() && !cancel.cancelled(); i = next++) {
      const Piece& piece = pieces[i];
      const std::byte* data = store.data(piece.weight->block, piece.weight->extent) + piece.begin;
      const std::optional<uint64_t> bad = find_not_finite(piece.weight->type, {data, piece.bytes});
      if (!bad) continue;
      const std::lock_guard lock(mutex);
      if (found.weight == nullptr) found = {piece.weight, piece.begin + *bad};
    }
  };
  {
    const size_t n_helpers = std::min<size_t>(n_threads, pieces.size());
    std::vector<std::jthread> helpers;
    for (size_t i = 1; i < n_helpers; ++i) helpers.push_back(start_thread<std::jthread>(check));
    check();
  }
  if (found.weight != nullptr) return not_finite(program, *found.weight, found.offset);
  return cancel.cancelled() ? cancelled("cancelled while checking the weights") : ok_status();
}

}  // namespace tandem

#include "runtime/weight_check.h"

#include <oneapi/tbb/blocked_range.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

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

Status check_weights(const Program& program, const BlockStore& store, unsigned n_threads, const CancelFlag& cancel) {
  const std::vector<Piece> pieces = cut(program);
  std::mutex mutex;
  Status first;
  const auto check = [&](const Piece& piece) {
    if (cancel.cancelled()) return;
    const std::byte* data = store.data(piece.weight->block, piece.weight->extent) + piece.begin;
    const std::optional<uint64_t> bad = find_not_finite(piece.weight->type, {data, piece.bytes});
    if (!bad) return;
    const std::lock_guard lock(mutex);
    if (first.ok()) first = not_finite(program, *piece.weight, piece.begin + *bad);
  };
  tbb::task_arena arena(static_cast<int>(n_threads));
  arena.execute([&] {
    tbb::parallel_for(tbb::blocked_range<size_t>(0, pieces.size(), 1), [&](const tbb::blocked_range<size_t>& range) {
      for (size_t i = range.begin(); i < range.end(); ++i) check(pieces[i]);
    });
  });
  if (!first.ok()) return first;
  return cancel.cancelled() ? cancelled("cancelled while checking the weights") : ok_status();
}

}  // namespace tandem

#include "runtime/weight_check.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/parallel_for.h"
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

// `byte`: from the start of the weight.
Status not_finite(const GgufFile& file, const Program& program, const Weight& weight,
                  uint64_t byte) {
  const Extent& extent = program.blocks[weight.block].extents[weight.extent];
  const uint64_t offset = extent.offset + byte;
  const TensorInfo* tensor = file.tensor_at(extent.file_index, offset);
  const std::string name(tensor != nullptr ? tensor->name : "");
  return corrupt("tensor " + name + " (" + std::string(dtype_info(weight.type).name) +
                 ") holds a value at byte " + std::to_string(offset) +
                 " of the file that is not a finite number: the file is damaged")
      .in_file(file.paths()[extent.file_index])
      .in_tensor(name)
      .at_offset(offset)
      .suggest("download or convert the model again");
}

}  // namespace

Status check_weights(const GgufFile& file, const Program& program, const BlockStore& store,
                     unsigned n_threads, const ProgressCallback& progress,
                     const CancelFlag& cancel) {
  const std::vector<Piece> pieces = cut(program);
  uint64_t total = 0;
  for (const Piece& piece : pieces) total += piece.bytes;
  ProgressMeter meter(Stage::kCheck, total, progress);
  std::atomic<uint64_t> done{0};
  const std::thread::id caller = std::this_thread::get_id();
  const Status status = parallel_for(pieces.size(), n_threads, cancel, [&](size_t i) -> Status {
    const Piece& piece = pieces[i];
    const std::byte* data = store.data(piece.weight->block, piece.weight->extent) + piece.begin;
    const std::optional<uint64_t> bad = find_not_finite(piece.weight->type, {data, piece.bytes});
    if (bad) return not_finite(file, program, *piece.weight, piece.begin + *bad);
    done.fetch_add(piece.bytes, std::memory_order_relaxed);
    if (std::this_thread::get_id() == caller)
      meter.report(std::min(done.load(std::memory_order_relaxed), total - 1));
    return ok_status();
  });
  if (status.ok()) meter.report(total);
  return status.code() == Code::kCancelled ? cancelled("cancelled while checking the weights")
                                           : status;
}

}  // namespace tandem

#include "dispatch/weight_tiles.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "base/parallel_for.h"
#include "kernels_cpu/dispatch.h"
#include "kernels_cpu/tiles.h"

namespace tandem {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 20;

// Some tiles of one matrix.
struct Piece {
  const Weight* weight;
  const cpu::KernelTable::Quantised* kernels;
  std::byte* begin;
  size_t n_tiles;
};

size_t tile_bytes(const Weight& weight) { return cpu::kTileRows * weight.row_bytes(); }

void cut(const Weight& weight, const cpu::KernelTable::Quantised& kernels, std::byte* begin,
         std::vector<Piece>& pieces) {
  const auto n_tiles = static_cast<size_t>(weight.rows / cpu::kTileRows);
  const size_t at_once = std::max<size_t>(1, kPieceBytes / tile_bytes(weight));
  for (size_t tile = 0; tile < n_tiles; tile += at_once) {
    pieces.push_back(
        {&weight, &kernels, begin + tile * tile_bytes(weight), std::min(at_once, n_tiles - tile)});
  }
}

void pack(const Piece& piece) {
  const size_t bytes = tile_bytes(*piece.weight);
  std::vector<std::byte> rows(bytes);
  for (size_t i = 0; i < piece.n_tiles; ++i) {
    std::byte* const tile = piece.begin + i * bytes;
    std::memcpy(rows.data(), tile, bytes);
    piece.kernels->pack_tile(rows.data(), piece.weight->row_bytes(), piece.weight->cols, tile);
  }
}

}  // namespace

std::vector<bool> blocks_of_cpu(const Program& program, const Placement* placement) {
  std::vector<bool> mine(program.blocks.size(), true);
  if (placement == nullptr) return mine;
  for (size_t block = 0; block < mine.size(); ++block) {
    mine[block] = !placement->blocks[block].on_device();
  }
  for (const Op& op : program.ops) {
    if (op.kind != OpKind::kListPairs || !placement->cached_layers[static_cast<size_t>(op.layer)]) {
      continue;
    }
    for (int64_t e = 0; e < program.shape.n_experts; ++e) {
      mine[program.weights[op.weight + static_cast<WeightId>(e)].block] = false;
    }
  }
  return mine;
}

Status put_into_tiles(const Program& program, const Placement* placement,
                      const cpu::KernelTable& kernels, BlockStore& store, unsigned n_threads,
                      const ProgressCallback& progress, const CancelFlag& cancel) {
  const std::vector<bool> mine = blocks_of_cpu(program, placement);
  std::vector<Piece> pieces;
  for (const Weight& weight : program.weights) {
    const cpu::KernelTable::Quantised* quantised = cpu::quantised_of(kernels, weight.type);
    if (quantised == nullptr || weight.rows % cpu::kTileRows != 0 || !mine[weight.block] ||
        store.in_tiles(weight.block, weight.extent)) {
      continue;
    }
    store.set_in_tiles(weight.block, weight.extent);
    cut(weight, *quantised, store.writable(weight.block, weight.extent), pieces);
  }
  if (pieces.empty()) return ok_status();
  const auto bytes_of = [](const Piece& piece) {
    return piece.n_tiles * tile_bytes(*piece.weight);
  };
  uint64_t total = 0;
  for (const Piece& piece : pieces) total += bytes_of(piece);
  ProgressMeter meter(Stage::kPack, total, progress);
  std::atomic<uint64_t> done{0};
  const std::thread::id caller = std::this_thread::get_id();
  const Status status = parallel_for(pieces.size(), n_threads, cancel, [&](size_t i) -> Status {
    pack(pieces[i]);
    done.fetch_add(bytes_of(pieces[i]), std::memory_order_relaxed);
    if (std::this_thread::get_id() == caller)
      meter.report(std::min(done.load(std::memory_order_relaxed), total - 1));
    return ok_status();
  });
  if (status.ok()) meter.report(total);
  return status.code() == Code::kCancelled ? cancelled("cancelled while arranging the weights")
                                           : status;
}

}  // namespace tandem

// Where weights live: every block of a model in a slot of huge-page memory, read from its extents.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/progress.h"
#include "base/result.h"
#include "formats/extent.h"
#include "memory/arena.h"
#include "memory/read_plan.h"

namespace tandem {

using BlockId = uint32_t;  // place in the list that the store was created from

// What is placed and moved as one: a dense tensor (one extent), or an expert (gate, up and down).
struct BlockSpec {
  std::string name;
  std::vector<Extent> extents;
};

struct BlockStoreOptions {
  enum class ReadMode {
    kAuto,  // buffered where the page cache holds more than half of a file, else direct
    kBuffered,
    kDirect,  // kUnsupported where a file system has no direct reads
  };
  ReadMode read_mode = ReadMode::kAuto;
  unsigned n_read_threads = 0;  // 0: as measured to be enough for one NVMe drive
};

struct BlockStoreReport {
  struct File {
    std::string path;
    ReadFile::Mode mode = ReadFile::Mode::kBuffered;
    std::string reason;  // "the page cache holds 3 % of the file"
  };
  uint64_t slot_bytes = 0;        // as total_bytes()
  uint64_t resident_bytes = 0;    // of weights; 0 until load_all succeeded
  uint64_t huge_page_bytes = 0;   // of slot_bytes, now
  std::string huge_page_refusal;  // empty when the system agreed to use them
  uint64_t bytes_read = 0;        // of weights, over all load_all calls
  double load_seconds = 0;        // of the last load_all
  std::vector<File> files;
};

// The only way to weights, for small models too.
//
// Threading: data(), total_bytes() and report() from any thread; load_all() from one at a time and
// not beside data().  load_all starts its own threads and ends them before it returns.
// Ownership: owns the memory, and the open files.  Pointers live until the store dies.
// Errors: create() gives kOutOfMemory with the numbers, kIo for an extent past the end of its file,
// and what opening a file gives.  After load_all() failed or was cancelled it may be called again.
class BlockStore {
 public:
  // Small extents start at multiples of this; those of kMinInPlaceBytes or more where the file has
  // them in a page.
  static constexpr uint64_t kSlotAlignment = 64;

  // Extents index `paths`.  Reserves addresses for all blocks; memory is taken while loading.
  static Result<std::unique_ptr<BlockStore>> create(const std::vector<std::string>& paths,
                                                    std::vector<BlockSpec> blocks,
                                                    const BlockStoreOptions& options = {},
                                                    const OpenReadFile& open_file = ReadFile::open);

  // What create() would take for these blocks, for plans made before anything is allocated.
  // Errors: kInvalidArgument when the sum overflows.
  static Result<uint64_t> slot_bytes(const std::vector<BlockSpec>& blocks);

  uint64_t total_bytes() const { return arena_.bytes(); }
  const std::byte* begin() const { return arena_.data(); }  // of total_bytes()
  size_t n_blocks() const { return blocks_.size(); }

  // Makes every block resident.  `progress` counts bytes and is called on this thread, at most ten
  // times a second.  Errors: kCancelled; of several read errors the first, naming file, offset and
  // block.
  Status load_all(const ProgressCallback& progress, const CancelFlag& cancel);

  bool resident() const { return resident_; }
  // Requires: load_all() succeeded; extent < the block's number of extents.
  const std::byte* data(BlockId block, size_t extent) const;

  // Whether an extent's rows lie in tiles of sixteen (kernels_cpu/tiles.h) instead of as the file has them.
  bool in_tiles(BlockId block, size_t extent) const { return slots_[block].in_tiles[extent]; }
  // For whoever puts them there, before anything computes.  Requires: as data().
  std::byte* writable(BlockId block, size_t extent);
  void set_in_tiles(BlockId block, size_t extent) { slots_[block].in_tiles[extent] = true; }

  BlockStoreReport report() const;

 private:
  struct Slot {
    std::vector<uint64_t> extent_offsets;  // in the arena
    std::vector<bool> in_tiles;            // [extents]
  };
  struct OpenFile {
    std::unique_ptr<ReadFile> file;
    std::string reason;
  };

  BlockStore(Arena arena, std::vector<BlockSpec> blocks)
      : arena_(std::move(arena)), blocks_(std::move(blocks)) {}
  static Result<OpenFile> open(const std::string& path, BlockStoreOptions::ReadMode mode,
                               const OpenReadFile& open_file);
  Status check_extents() const;

  // Constant after create().
  Arena arena_;
  std::vector<BlockSpec> blocks_;
  std::vector<Slot> slots_;
  std::vector<OpenFile> files_;
  ReadPlan plan_;
  unsigned n_read_threads_ = 0;

  // Written by load_all() only.
  std::atomic<bool> resident_{false};
  std::atomic<uint64_t> bytes_read_{0};
  std::atomic<double> load_seconds_{0};
};

}  // namespace tandem

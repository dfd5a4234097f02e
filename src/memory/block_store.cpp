#include "memory/block_store.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/checked.h"
#include "memory/block_loader.h"

namespace tandem {
namespace {

using Mode = BlockStoreOptions::ReadMode;

// A page cache that holds this share makes buffered reads the faster ones.
constexpr double kMinCachedShare = 0.5;

struct Layout {
  uint64_t bytes = 0;
  std::vector<std::vector<uint64_t>> offsets;  // by block, by extent
};

// Extents one behind the other.
Result<Layout> lay_out(const std::vector<BlockSpec>& blocks) {
  Layout layout;
  layout.offsets.reserve(blocks.size());
  for (const BlockSpec& block : blocks) {
    std::vector<uint64_t>& offsets = layout.offsets.emplace_back();
    for (const Extent& extent : block.extents) {
      const auto slot = slot_for(extent, layout.bytes, BlockStore::kSlotAlignment);
      if (!slot) {
        return invalid_argument("block " + block.name + ": the sizes of the blocks overflow")
            .in_tensor(block.name);
      }
      offsets.push_back(slot->begin);
      layout.bytes = slot->next;
    }
  }
  return layout;
}

std::string percent_text(double share) {
  return std::to_string(static_cast<int>(std::lround(share * 100))) + " %";
}

// Whether direct reads really work: some file systems take the flag and refuse the read.
Status probe(const ReadFile& file) {
  if (file.size_bytes() == 0) return ok_status();
  struct alignas(kReadAlignment) Page {
    std::byte bytes[kReadAlignment];
  };
  const auto page = std::make_unique<Page>();
  return file.read_at(0, page->bytes);
}

}  // namespace

Result<uint64_t> BlockStore::slot_bytes(const std::vector<BlockSpec>& blocks) {
  TANDEM_ASSIGN_OR_RETURN(const Layout layout, lay_out(blocks));
  const auto rounded = checked_align_up(std::max<uint64_t>(layout.bytes, 1), Arena::kAlignment);
  if (!rounded) return invalid_argument("the sizes of the blocks overflow");
  return *rounded;
}

Result<BlockStore::OpenFile> BlockStore::open(const std::string& path, Mode mode,
                                              const OpenReadFile& open_file) {
  OpenFile opened;
  if (mode == Mode::kDirect) {
    opened.reason = "asked for";
    TANDEM_ASSIGN_OR_RETURN(opened.file, open_file(path, ReadFile::Mode::kDirect));
    return opened;
  }
  opened.reason = "asked for";
  TANDEM_ASSIGN_OR_RETURN(opened.file, open_file(path, ReadFile::Mode::kBuffered));
  if (mode == Mode::kBuffered) return opened;
  const double share = opened.file->cached_share();
  opened.reason = "the page cache holds " + percent_text(share) + " of the file";
  if (share > kMinCachedShare) return opened;
  auto direct = open_file(path, ReadFile::Mode::kDirect);
  const Status status = direct.ok() ? probe(**direct) : direct.status();
  if (status.ok()) {
    opened.file = std::move(direct).value();
  } else {
    opened.reason = "direct reads are refused: " + status.message();
  }
  return opened;
}

Status BlockStore::check_extents() const {
  for (const BlockSpec& block : blocks_) {
    for (const Extent& extent : block.extents) {
      if (extent.file_index >= files_.size()) {
        return invalid_argument("block " + block.name + ": file " +
                                std::to_string(extent.file_index) + " of " +
                                std::to_string(files_.size()) + " does not exist")
            .in_tensor(block.name);
      }
      const ReadFile& file = *files_[extent.file_index].file;
      const auto end = checked_add(extent.offset, extent.bytes);
      if (end && *end <= file.size_bytes()) continue;
      return io_error(file.path() + ": block " + block.name + " takes " +
                      std::to_string(extent.bytes) + " bytes from byte " +
                      std::to_string(extent.offset) + ", the file has " +
                      std::to_string(file.size_bytes()))
          .in_file(file.path())
          .in_tensor(block.name)
          .at_offset(file.size_bytes());
    }
  }
  return ok_status();
}

Result<std::unique_ptr<BlockStore>> BlockStore::create(const std::vector<std::string>& paths,
                                                       std::vector<BlockSpec> blocks,
                                                       const BlockStoreOptions& options,
                                                       const OpenReadFile& open_file) {
  TANDEM_ASSIGN_OR_RETURN(Layout layout, lay_out(blocks));
  std::vector<OpenFile> files;
  for (const std::string& path : paths) {
    TANDEM_ASSIGN_OR_RETURN(OpenFile file, open(path, options.read_mode, open_file));
    files.push_back(std::move(file));
  }
  TANDEM_ASSIGN_OR_RETURN(Arena arena, Arena::create(layout.bytes));
  std::unique_ptr<BlockStore> store(new BlockStore(std::move(arena), std::move(blocks)));
  store->files_ = std::move(files);
  store->n_read_threads_ = options.n_read_threads;
  TANDEM_RETURN_IF_ERROR(store->check_extents());
  std::vector<ReadTarget> targets;
  for (BlockId id = 0; id < store->blocks_.size(); ++id) {
    const std::vector<Extent>& extents = store->blocks_[id].extents;
    for (size_t i = 0; i < extents.size(); ++i) {
      targets.push_back({id, extents[i], layout.offsets[id][i]});
    }
    store->slots_.push_back({std::move(layout.offsets[id]), std::vector<bool>(extents.size())});
  }
  store->plan_ = plan_reads(std::move(targets), BlockLoader::kWindowBytes);
  return store;
}

const std::byte* BlockStore::data(BlockId block, size_t extent) const {
  TANDEM_ASSERT(resident_ && block < slots_.size());
  TANDEM_ASSERT(extent < slots_[block].extent_offsets.size());
  return arena_.data() + slots_[block].extent_offsets[extent];
}

std::byte* BlockStore::writable(BlockId block, size_t extent) {
  return const_cast<std::byte*>(data(block, extent));  // it is this store's memory
}

Status BlockStore::load_all(const ProgressCallback& progress, const CancelFlag& cancel) {
  const auto start = Clock::now();
  resident_ = false;
  for (Slot& slot : slots_) slot.in_tiles.assign(slot.in_tiles.size(), false);
  std::vector<const ReadFile*> files;
  for (const OpenFile& file : files_) files.push_back(file.file.get());
  BlockLoader loader(plan_, std::move(files), arena_.data());
  const Status status = loader.run(n_read_threads_, progress, cancel);
  bytes_read_ += loader.bytes_done();
  load_seconds_ = seconds_since(start);
  resident_ = status.ok();
  const uint32_t failed_block = loader.failed_block();
  return failed_block < blocks_.size() ? status.in_tensor(blocks_[failed_block].name) : status;
}

BlockStoreReport BlockStore::report() const {
  BlockStoreReport report;
  report.slot_bytes = arena_.bytes();
  report.resident_bytes = resident_ ? plan_.bytes : 0;
  report.huge_page_bytes = arena_.huge_page_bytes();
  report.huge_page_refusal = arena_.huge_page_refusal();
  report.bytes_read = bytes_read_;
  report.load_seconds = load_seconds_;
  for (const OpenFile& file : files_) {
    report.files.push_back({file.file->path(), file.file->mode(), file.reason});
  }
  return report;
}

}  // namespace tandem

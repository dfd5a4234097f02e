#include "memory/block_store.h"

#include "base/atomic_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <thread>

#include "status_matchers.h"

namespace tandem {
namespace {

using namespace testing;
using ::testing::HasSubstr;
using ReadMode = BlockStoreOptions::ReadMode;

// What a fake drive does to the reads of the file that it wraps.
struct Faults {
  std::atomic<int> n_reads{0};
  int fail_at = -1;  // this read gives EIO
  int end_at = -1;   // this read finds the file cut short
  int sleep_ms = 0;  // every read takes this long
  bool no_direct = false;
  double cached = -1;  // what the page cache is said to hold
  std::mutex mutex;
  std::vector<std::span<std::byte>> buffers;  // guarded by mutex; of all reads
};

class FaultyFile final : public ReadFile {
 public:
  FaultyFile(std::unique_ptr<ReadFile> file, Faults* faults)
      : ReadFile(file->path(), file->size_bytes(), file->mode(), file->alignment()),
        file_(std::move(file)),
        faults_(faults) {}

  Status read_at(uint64_t offset, std::span<std::byte> buffer) const override {
    const int read = faults_->n_reads++;
    {
      const std::lock_guard lock(faults_->mutex);
      faults_->buffers.push_back(buffer);
    }
    if (faults_->sleep_ms > 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(faults_->sleep_ms));
    }
    if (read == faults_->fail_at) {
      return status_from_errno(EIO, path() + ": read at byte " + std::to_string(offset))
          .in_file(path())
          .at_offset(offset);
    }
    if (read == faults_->end_at) std::filesystem::resize_file(path(), offset);
    return file_->read_at(offset, buffer);
  }
  double cached_share() const override {
    return faults_->cached >= 0 ? faults_->cached : file_->cached_share();
  }

 private:
  std::unique_ptr<ReadFile> file_;
  Faults* faults_;
};

OpenReadFile faulty(Faults* faults) {
  return [=](const std::filesystem::path& path,
             ReadFile::Mode mode) -> Result<std::unique_ptr<ReadFile>> {
    if (mode == ReadFile::Mode::kDirect && faults->no_direct) return unsupported("no direct reads");
    TANDEM_ASSIGN_OR_RETURN(auto file, ReadFile::open(path, mode));
    return std::unique_ptr<ReadFile>(std::make_unique<FaultyFile>(std::move(file), faults));
  };
}

class BlockStoreTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kFileBytes = (5 << 20) + 1234;

  void SetUp() override {
    SetUpFiles();
    // A small tensor, an expert of three extents in both files, one over several windows, the tail.
    blocks_ = {{"norm", {{0, 96, 320}}},
               {"expert", {{0, 4128, 70000}, {1, 32, 70016}, {0, 2 << 20, 70000}}},
               {"large", {{1, 1 << 20, (3 << 20) + 17}}},
               {"empty", {{0, 64, 0}}},
               {"tail", {{0, kFileBytes - 777, 777}}}};
  }

  void SetUpFiles() {
    contents_.clear();
    paths_.clear();
    for (int i = 0; i < 2; ++i) {
      contents_.emplace_back(kFileBytes);
      uint32_t state = 1 + static_cast<uint32_t>(i);
      for (std::byte& byte : contents_.back()) {
        state = state * 1664525u + 1013904223u;
        byte = static_cast<std::byte>(state >> 24);
      }
      paths_.push_back((folder_ / ("part" + std::to_string(i))).string());
      const std::span<const std::byte> parts[] = {contents_.back()};
      ASSERT_THAT(write_file_atomically(paths_.back(), parts), is_ok());
    }
  }

  Result<std::unique_ptr<BlockStore>> create(ReadMode mode, unsigned n_threads = 3) {
    return BlockStore::create(paths_, blocks_, {mode, n_threads}, faulty(&faults_));
  }
  void expect_equal_to_files(const BlockStore& store) {
    for (BlockId id = 0; id < blocks_.size(); ++id) {
      for (size_t i = 0; i < blocks_[id].extents.size(); ++i) {
        const Extent& extent = blocks_[id].extents[i];
        const std::byte* data = store.data(id, i);
        const auto address = reinterpret_cast<uintptr_t>(data);
        if (extent.bytes < kMinInPlaceBytes) {
          EXPECT_EQ(address % BlockStore::kSlotAlignment, 0u);
        } else {
          EXPECT_EQ(address % kReadAlignment, extent.offset % kReadAlignment);
        }
        EXPECT_EQ(
            std::memcmp(data, contents_[extent.file_index].data() + extent.offset, extent.bytes), 0)
            << blocks_[id].name << ' ' << i;
      }
    }
  }
  bool has_direct() { return ReadFile::open(paths_[0], ReadFile::Mode::kDirect).ok(); }

  TemporaryFolder folder_;
  std::vector<std::vector<std::byte>> contents_;
  std::vector<std::string> paths_;
  std::vector<BlockSpec> blocks_;
  Faults faults_;
  CancelFlag cancel_;
};

TEST_F(BlockStoreTest, HoldsTheFilesBytesAfterBufferedReads) {
  auto store = create(ReadMode::kBuffered);
  ASSERT_THAT(store, is_ok());
  EXPECT_FALSE((*store)->resident());
  ASSERT_THAT((*store)->load_all({}, cancel_), is_ok());
  EXPECT_TRUE((*store)->resident());
  expect_equal_to_files(**store);
}

TEST_F(BlockStoreTest, HoldsTheFilesBytesAfterDirectReads) {
  if (!has_direct()) GTEST_SKIP() << "no direct reads in " << folder_.path();
  for (unsigned n_threads : {1u, 4u, 64u}) {
    auto store = create(ReadMode::kDirect, n_threads);
    ASSERT_THAT(store, is_ok());
    ASSERT_THAT((*store)->load_all({}, cancel_), is_ok());
    EXPECT_EQ((*store)->report().files[0].mode, ReadFile::Mode::kDirect);
    expect_equal_to_files(**store);
  }
}

TEST_F(BlockStoreTest, DirectReadsOfLargeExtentsGoWhereTheyBelong) {
  if (!has_direct()) GTEST_SKIP() << "no direct reads in " << folder_.path();
  auto store = create(ReadMode::kDirect);
  ASSERT_THAT(store, is_ok());
  ASSERT_THAT((*store)->load_all({}, cancel_), is_ok());
  const std::byte* large = (*store)->data(2, 0);
  const uint64_t bytes = blocks_[2].extents[0].bytes;
  uint64_t in_place = 0;
  for (std::span<std::byte> buffer : faults_.buffers) {
    if (buffer.data() >= large && buffer.data() < large + bytes) in_place += buffer.size();
  }
  EXPECT_EQ(in_place, bytes / kReadAlignment * kReadAlignment + kReadAlignment)
      << "whole pages, each once";
}

TEST_F(BlockStoreTest, ReportsWhatItHoldsAndHowItRead) {
  faults_.cached = 0.97;
  auto store = create(ReadMode::kAuto);
  ASSERT_THAT(store, is_ok());
  ASSERT_THAT((*store)->load_all({}, cancel_), is_ok());
  const BlockStoreReport report = (*store)->report();
  const uint64_t bytes = 320 + 70000 + 70016 + 70000 + (3 << 20) + 17 + 777;
  EXPECT_EQ(report.resident_bytes, bytes);
  EXPECT_EQ(report.bytes_read, bytes);
  EXPECT_EQ(report.slot_bytes, (*store)->total_bytes());
  EXPECT_EQ(report.slot_bytes, *BlockStore::slot_bytes(blocks_));
  EXPECT_GE(report.slot_bytes, bytes);
  ASSERT_EQ(report.files.size(), 2u);
  EXPECT_EQ(report.files[1].mode, ReadFile::Mode::kBuffered);
  EXPECT_EQ(report.files[1].reason, "the page cache holds 97 % of the file");
}

TEST_F(BlockStoreTest, ReadsDirectlyWhatThePageCacheDoesNotHold) {
  if (!has_direct()) GTEST_SKIP() << "no direct reads in " << folder_.path();
  faults_.cached = 0.03;
  auto store = create(ReadMode::kAuto);
  ASSERT_THAT(store, is_ok());
  EXPECT_EQ((*store)->report().files[0].mode, ReadFile::Mode::kDirect);
  EXPECT_EQ((*store)->report().files[0].reason, "the page cache holds 3 % of the file");
}

TEST_F(BlockStoreTest, FallsBackToBufferedReadsAndSaysSo) {
  faults_.cached = 0;
  faults_.no_direct = true;
  auto store = create(ReadMode::kAuto);
  ASSERT_THAT(store, is_ok());
  ASSERT_THAT((*store)->load_all({}, cancel_), is_ok());
  EXPECT_THAT((*store)->report().files[0].reason, HasSubstr("direct reads are refused"));
  expect_equal_to_files(**store);
  EXPECT_THAT(create(ReadMode::kDirect), fails_with(Code::kUnsupported, HasSubstr("direct")));
}

TEST_F(BlockStoreTest, FallsBackWhenOnlyTheReadIsRefused) {
  if (!has_direct()) GTEST_SKIP() << "no direct reads in " << folder_.path();
  faults_.cached = 0;
  faults_.fail_at = 0;  // the probe of the first file
  auto store = create(ReadMode::kAuto);
  ASSERT_THAT(store, is_ok());
  EXPECT_EQ((*store)->report().files[0].mode, ReadFile::Mode::kBuffered);
  EXPECT_EQ((*store)->report().files[1].mode, ReadFile::Mode::kDirect);
}

TEST_F(BlockStoreTest, ProgressRisesToTheTotal) {
  faults_.sleep_ms = 30;
  auto store = create(ReadMode::kBuffered, 1);
  ASSERT_THAT(store, is_ok());
  std::vector<Progress> reports;
  ASSERT_THAT((*store)->load_all([&](const Progress& p) { reports.push_back(p); }, cancel_),
              is_ok());
  ASSERT_GE(reports.size(), 2u);
  for (size_t i = 1; i < reports.size(); ++i) EXPECT_GE(reports[i].done, reports[i - 1].done);
  EXPECT_EQ(reports.back().done, reports.back().total);
  EXPECT_EQ(reports.back().total, (*store)->report().resident_bytes);
  EXPECT_EQ(std::count_if(reports.begin(), reports.end(),
                          [](const Progress& p) { return p.done == p.total; }),
            1);
}

TEST_F(BlockStoreTest, NamesFileOffsetAndBlockOfAReadError) {
  faults_.fail_at = 2;
  for (ReadMode mode : {ReadMode::kBuffered, ReadMode::kDirect}) {
    if (mode == ReadMode::kDirect && !has_direct()) continue;
    faults_.n_reads = 0;
    auto store = create(mode, 1);
    ASSERT_THAT(store, is_ok());
    const Status status = (*store)->load_all({}, cancel_);
    EXPECT_THAT(status, fails_with(Code::kIo, HasSubstr("part0: read at byte")));
    EXPECT_EQ(status.file(), paths_[0]);
    EXPECT_NE(status.offset(), Status::kNoOffset);
    EXPECT_FALSE(status.tensor().empty());
    EXPECT_FALSE((*store)->resident());
  }
}

TEST_F(BlockStoreTest, LoadsAgainAfterAnError) {
  faults_.fail_at = 1;
  auto store = create(ReadMode::kBuffered);
  ASSERT_THAT(store, is_ok());
  ASSERT_FALSE((*store)->load_all({}, cancel_).ok());
  ASSERT_THAT((*store)->load_all({}, cancel_), is_ok());
  expect_equal_to_files(**store);
}

TEST_F(BlockStoreTest, SurvivesAFileCutShortWhileItIsRead) {
  for (ReadMode mode : {ReadMode::kBuffered, ReadMode::kDirect}) {
    if (mode == ReadMode::kDirect && !has_direct()) continue;
    auto store = create(mode, 1);
    ASSERT_THAT(store, is_ok());
    faults_.end_at = faults_.n_reads + 2;
    EXPECT_THAT((*store)->load_all({}, cancel_), fails_with(Code::kIo, HasSubstr("ended at byte")));
    SetUpFiles();
  }
}

TEST_F(BlockStoreTest, RefusesExtentsPastTheEnd) {
  blocks_[2].extents[0] = {1, kFileBytes - 10, 11};
  EXPECT_THAT(create(ReadMode::kBuffered),
              fails_with(Code::kIo, HasSubstr("block large takes 11")));
  blocks_[2].extents[0] = {1, UINT64_MAX - 3, 11};
  EXPECT_THAT(create(ReadMode::kBuffered), fails_with(Code::kIo, HasSubstr("large")));
  blocks_[2].extents[0] = {7, 0, 11};
  EXPECT_THAT(create(ReadMode::kBuffered),
              fails_with(Code::kInvalidArgument, HasSubstr("file 7 of 2")));
}

TEST_F(BlockStoreTest, SaysWhatItNeedsWhenMemoryIsRefused) {
  blocks_[2].extents[0].bytes = uint64_t{1} << 60;
  const auto store = create(ReadMode::kBuffered);
  EXPECT_THAT(store, fails_with(Code::kOutOfMemory, HasSubstr("bytes of memory")));
  EXPECT_GE(store.status().bytes_needed(), uint64_t{1} << 60);
  blocks_[1].extents[0].bytes = UINT64_MAX - 100;
  EXPECT_THAT(create(ReadMode::kBuffered),
              fails_with(Code::kInvalidArgument, HasSubstr("overflow")));
}

TEST_F(BlockStoreTest, NamesAMissingFile) {
  paths_[1] = "/nowhere/part1";
  EXPECT_THAT(create(ReadMode::kAuto), fails_with(Code::kNotFound, HasSubstr("/nowhere/part1")));
}

TEST_F(BlockStoreTest, CancelEndsLoadingSoonAndLeavesAStoreThatLoads) {
  for (ReadMode mode : {ReadMode::kBuffered, ReadMode::kDirect}) {
    if (mode == ReadMode::kDirect && !has_direct()) continue;
    faults_.sleep_ms = 20;
    auto store = create(mode, 1);
    ASSERT_THAT(store, is_ok());
    const auto start = Clock::now();
    std::jthread canceller([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
      cancel_.cancel();
    });
    EXPECT_THAT((*store)->load_all({}, cancel_),
                fails_with(Code::kCancelled, HasSubstr("cancelled")));
    EXPECT_LT(seconds_since(start), 0.030 + 0.020 + 0.5)
        << "generous: other programs share the machine";
    EXPECT_FALSE((*store)->resident());
    canceller.join();
    cancel_.reset();
    faults_.sleep_ms = 0;
    ASSERT_THAT((*store)->load_all({}, cancel_), is_ok());
    expect_equal_to_files(**store);
  }
}

TEST_F(BlockStoreTest, ACancelBeforeTheStartReadsNothing) {
  auto store = create(ReadMode::kBuffered);
  ASSERT_THAT(store, is_ok());
  faults_.n_reads = 0;
  cancel_.cancel();
  EXPECT_THAT((*store)->load_all({}, cancel_),
              fails_with(Code::kCancelled, HasSubstr("cancelled")));
  EXPECT_EQ(faults_.n_reads, 0);
}

TEST_F(BlockStoreTest, AThrowingProgressCallbackEndsTheThreads) {
  faults_.sleep_ms = 150;
  auto store = create(ReadMode::kBuffered, 2);
  ASSERT_THAT(store, is_ok());
  EXPECT_THROW((void)(*store)->load_all([](const Progress&) { throw 1; }, cancel_), int);
  EXPECT_FALSE((*store)->resident());
}

TEST_F(BlockStoreTest, AModelWithoutBlocksLoads) {
  blocks_.clear();
  auto store = create(ReadMode::kAuto);
  ASSERT_THAT(store, is_ok());
  EXPECT_THAT((*store)->load_all({}, cancel_), is_ok());
}

}  // namespace
}  // namespace tandem

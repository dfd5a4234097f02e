#include "base/atomic_file.h"

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>
#include <thread>
#include <vector>

#include "status_matchers.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;
using testing::fails_with;
using ::testing::HasSubstr;
using testing::is_ok;

Status write(const fs::path& path, std::string_view text, mode_t mode = 0666) {
  const std::span<const std::byte> parts[] = {std::as_bytes(std::span(text))};
  return write_file_atomically(path, parts, mode);
}

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

ptrdiff_t entries(const fs::path& folder) {
  return std::distance(fs::directory_iterator(folder), {});
}

mode_t mode_of(const fs::path& path) {
  struct stat info = {};
  EXPECT_EQ(::lstat(path.c_str(), &info), 0);
  return info.st_mode & mode_t{07777};
}

class AtomicFileTest : public ::testing::Test {
 protected:
  const testing::TemporaryFolder folder_;
  const fs::path path_ = folder_ / "f";
};

TEST_F(AtomicFileTest, IsNotThereBeforeCommitAndWholeAfterIt) {
  auto file = AtomicFile::create(path_);
  ASSERT_THAT(file, is_ok());
  ASSERT_THAT(file->write(std::as_bytes(std::span("abc", 3))), is_ok());
  EXPECT_FALSE(fs::exists(path_));
  ASSERT_THAT(file->commit(), is_ok());
  EXPECT_EQ("abc", read(path_));
  EXPECT_EQ(1, entries(folder_.path()));
}

TEST_F(AtomicFileTest, DroppedLeavesTheOldFileAndNothingElse) {
  ASSERT_THAT(write(path_, "old"), is_ok());
  {
    auto file = AtomicFile::create(path_);
    ASSERT_THAT(file->write(std::as_bytes(std::span("new", 3))), is_ok());
  }
  EXPECT_EQ("old", read(path_));
  EXPECT_EQ(1, entries(folder_.path()));
}

TEST_F(AtomicFileTest, WritersOfOnePathNeverMix) {
  constexpr int kRounds = 50;
  std::vector<std::thread> writers;
  for (const char letter : {'a', 'b', 'c', 'd'}) {
    writers.emplace_back([&, letter] {
      const std::string text(100'000, letter);
      for (int i = 0; i < kRounds; ++i) EXPECT_THAT(write(path_, text), is_ok());
    });
  }
  std::thread reader([&] {
    for (int i = 0; i < kRounds; ++i) {
      const std::string text = read(path_);
      EXPECT_TRUE(text.empty() ||
                  (text.size() == 100'000 &&
                   std::all_of(text.begin(), text.end(), [&](char c) { return c == text[0]; })));
    }
  });
  for (std::thread& writer : writers) writer.join();
  reader.join();
  EXPECT_EQ(1, entries(folder_.path()));
}

TEST_F(AtomicFileTest, KeepsThePermissionsOfTheOldFile) {
  ASSERT_THAT(write(path_, "old", 0600), is_ok());
  EXPECT_EQ(mode_t{0600}, mode_of(path_));
  ASSERT_THAT(write(path_, "new", 0666), is_ok());
  EXPECT_EQ(mode_t{0600}, mode_of(path_));
}

TEST_F(AtomicFileTest, FollowsALinkAndLeavesItALink) {
  ASSERT_THAT(write(folder_ / "target", "old"), is_ok());
  fs::create_symlink("target", path_);
  ASSERT_THAT(write(path_, "new"), is_ok());
  EXPECT_TRUE(fs::is_symlink(path_));
  EXPECT_EQ("new", read(folder_ / "target"));
}

TEST_F(AtomicFileTest, IsNotLedElsewhereByALinkWithTheNameOfItsTemporaryFile) {
  // Whatever the next temporary names are, somebody was there first.
  ASSERT_THAT(write(folder_ / "victim", "precious"), is_ok());
  for (int i = 0; i < 2000; ++i) {
    fs::create_symlink("victim", path_.string() + ".partial-" + std::to_string(::getpid()) + "-" +
                                     std::to_string(i));
  }
  ASSERT_THAT(write(path_, "new"), is_ok());
  EXPECT_EQ("precious", read(folder_ / "victim"));
  EXPECT_EQ("new", read(path_));
}

TEST_F(AtomicFileTest, TakesTheLongestNames) {
  const fs::path longest = folder_ / std::string(255, 'n');
  EXPECT_THAT(write(longest, "x"), is_ok());
  EXPECT_EQ("x", read(longest));
}

TEST_F(AtomicFileTest, NeverReplacesADevice) {
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_THAT(write(path_, "x"),
              fails_with(Code::kInvalidArgument, HasSubstr("not a regular file")));
  EXPECT_TRUE(fs::is_fifo(path_));
}

TEST_F(AtomicFileTest, NeverReplacesAFolder) {
  fs::create_directory(path_);
  EXPECT_FALSE(write(path_, "x").ok());
  EXPECT_TRUE(fs::is_directory(path_));
  EXPECT_EQ(1, entries(folder_.path())) << "a partial file stayed behind";
}

TEST_F(AtomicFileTest, AFileThatMayNotGrowIsAnErrorAndLeavesTheOldOne) {
  ASSERT_THAT(write(path_, "old"), is_ok());
  rlimit before = {};
  ASSERT_EQ(0, ::getrlimit(RLIMIT_FSIZE, &before));
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small = {4096, before.rlim_max};
  ASSERT_EQ(0, ::setrlimit(RLIMIT_FSIZE, &small));
  const Status status = write(path_, std::string(10'000, 'x'));
  ASSERT_EQ(0, ::setrlimit(RLIMIT_FSIZE, &before));
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(status, fails_with(Code::kIo, HasSubstr(path_.string())));
  EXPECT_EQ("old", read(path_));
  EXPECT_EQ(1, entries(folder_.path()));
}

TEST_F(AtomicFileTest, AFullDriveIsNamedAndLeavesTheOldFile) {
  if (::mount("none", folder_.path().c_str(), "tmpfs", 0, "size=64k") != 0)
    GTEST_SKIP() << "no right to mount";
  const bool written = write(path_, "old").ok();
  auto file = AtomicFile::create(path_);
  const std::string much(1 << 20, 'x');
  const Status status = file.ok() ? file->write(std::as_bytes(std::span(much))) : file.status();
  const bool full = file.ok() && file->drive_is_full();
  const std::string kept = read(path_);
  file = internal_error("dropped, so that the drive can be taken away");
  ::umount2(folder_.path().c_str(), MNT_DETACH);
  EXPECT_TRUE(written);
  EXPECT_THAT(status, fails_with(Code::kIo, HasSubstr("No space left")));
  EXPECT_TRUE(full);
  EXPECT_EQ("old", kept);
}

}  // namespace
}  // namespace tandem

#include "base/file.h"
#include "base/atomic_file.h"

#include <sys/stat.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <vector>

#include "status_matchers.h"

namespace tandem {
namespace {

using testing::fails_with;
using ::testing::HasSubstr;
using testing::is_ok;

std::vector<std::byte> bytes_of(size_t n) {
  std::vector<std::byte> bytes(n);
  for (size_t i = 0; i < n; ++i) bytes[i] = static_cast<std::byte>(i * 7);
  return bytes;
}

Status write(const std::filesystem::path& path, const std::vector<std::byte>& bytes) {
  const std::span<const std::byte> parts[] = {bytes};
  return write_file_atomically(path, parts);
}

TEST(ReadFile, ReadsWhatWasWritten) {
  testing::TemporaryFolder folder;
  const auto bytes = bytes_of(10000);
  ASSERT_THAT(write(folder / "f", bytes), is_ok());
  auto file = ReadFile::open(folder / "f");
  ASSERT_THAT(file, is_ok());
  std::vector<std::byte> part(500);
  ASSERT_THAT((*file)->read_at(1234, part), is_ok());
  EXPECT_EQ(std::memcmp(part.data(), bytes.data() + 1234, part.size()), 0);
}

TEST(ReadFile, NamesAMissingFile) {
  EXPECT_THAT(ReadFile::open("/nowhere/m.gguf"),
              fails_with(Code::kNotFound, HasSubstr("/nowhere/m.gguf")));
}

TEST(ReadFile, RefusesAFolder) {
  testing::TemporaryFolder folder;
  EXPECT_THAT(ReadFile::open(folder.path()),
              fails_with(Code::kInvalidArgument, HasSubstr("regular file")));
}

TEST(ReadFile, SaysWhereAFileCutShortEnded) {
  testing::TemporaryFolder folder;
  ASSERT_THAT(write(folder / "f", bytes_of(8192)), is_ok());
  auto file = ReadFile::open(folder / "f");
  ASSERT_THAT(file, is_ok());
  std::filesystem::resize_file(folder / "f", 5000);
  std::vector<std::byte> buffer(4096);
  const Status status = (*file)->read_at(4096, buffer);
  EXPECT_THAT(status, fails_with(Code::kIo, HasSubstr("ended at byte 5000")));
  EXPECT_EQ(status.offset(), 5000u);
}

TEST(ReadFile, DirectReadsTakeAnUnalignedTail) {
  testing::TemporaryFolder folder;
  const auto bytes = bytes_of(4096 + 100);
  ASSERT_THAT(write(folder / "f", bytes), is_ok());
  auto file = ReadFile::open(folder / "f", ReadFile::Mode::kDirect);
  if (!file.ok()) GTEST_SKIP() << file.status().to_string();
  auto* buffer = static_cast<std::byte*>(std::aligned_alloc(4096, 8192));
  EXPECT_THAT((*file)->read_at(0, {buffer, 8192}), is_ok());
  EXPECT_EQ(std::memcmp(buffer, bytes.data(), bytes.size()), 0);
  std::free(buffer);
}

TEST(ReadFile, RefusesAPipeWithoutWaitingForItsOtherEnd) {
  testing::TemporaryFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(ReadFile::open(folder / "pipe"),
              fails_with(Code::kInvalidArgument, HasSubstr("regular file")));
}

TEST(ReadFile, HasTheSameIdentityUntilTheFileIsAnother) {
  testing::TemporaryFolder folder;
  ASSERT_THAT(write(folder / "f", bytes_of(100)), is_ok());
  const auto identity = [&] { return (*ReadFile::open(folder / "f"))->identity(); };
  const FileIdentity first = identity();
  EXPECT_EQ(first, identity());
  ASSERT_THAT(write(folder / "f", bytes_of(100)), is_ok());
  EXPECT_FALSE(first == identity());
}

}  // namespace
}  // namespace tandem

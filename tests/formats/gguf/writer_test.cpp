#include "formats/gguf/writer.h"

#include <sys/mount.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>

#include "formats/gguf/gguf.h"
#include "status_matchers.h"

namespace tandem {
namespace {

using namespace testing;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::byte> ramp(size_t n) {
  std::vector<std::byte> bytes(n);
  for (size_t i = 0; i < n; ++i) bytes[i] = static_cast<std::byte>(i * 13 + 1);
  return bytes;
}

class GgufWriterTest : public ::testing::Test {
 protected:
  Status add_tensor(GgufWriter& writer, std::string_view name, DType type,
                    std::vector<uint64_t> dims) {
    return writer.add_tensor(name, type, dims);
  }
  size_t files_in_folder() {
    return static_cast<size_t>(
        std::distance(std::filesystem::directory_iterator(folder_.path()), {}));
  }

  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "m.gguf";
};

TEST_F(GgufWriterTest, TheReaderFindsEverythingAgain) {
  const auto weights = ramp(3 * 34 + 20);  // a tensor of odd size, then one of 20 bytes
  GgufWriter writer(path_);
  writer.add_string("general.architecture", "llama");
  writer.add_bool("b", true);
  writer.add_u32("u", 7);
  writer.add_f32("f", 0.5f);
  writer.add_strings("s", std::vector<std::string>{"", "x"});
  writer.add_i32s("i", std::vector<int32_t>{-1, 2});
  writer.add_f32s("fs", std::vector<float>{1.5f});
  ASSERT_THAT(add_tensor(writer, "q", DType::kQ8_0, {32, 3}), is_ok());
  ASSERT_THAT(add_tensor(writer, "w", DType::kF32, {5}), is_ok());
  ASSERT_THAT(writer.begin(), is_ok());
  // In pieces that cross from one tensor to the next.
  for (size_t at = 0; at < weights.size(); at += 50) {
    ASSERT_THAT(
        writer.append(std::span(weights).subspan(at, std::min<size_t>(50, weights.size() - at))),
        is_ok());
  }
  const uint64_t announced = writer.file_bytes();
  ASSERT_THAT(writer.finish(), is_ok());

  auto file = GgufFile::open(path_);
  ASSERT_THAT(file, is_ok());
  EXPECT_EQ(file->file_bytes(), announced);
  EXPECT_EQ(*file->get_string("general.architecture"), "llama");
  EXPECT_TRUE(*file->get_bool("b"));
  EXPECT_EQ(*file->get_uint("u"), 7u);
  EXPECT_EQ(*file->get_float("f"), 0.5);
  EXPECT_THAT(*file->get_string_array("s"), ElementsAre("", "x"));
  EXPECT_THAT(*file->get_int_array("i"), ElementsAre(-1, 2));
  EXPECT_THAT(*file->get_float_array("fs"), ElementsAre(1.5f));
  std::ifstream stream(path_, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(stream), {}};
  const TensorInfo* q = file->find_tensor("q");
  const TensorInfo* w = file->find_tensor("w");
  EXPECT_EQ(std::memcmp(bytes.data() + q->extent.offset, weights.data(), 102), 0);
  EXPECT_EQ(std::memcmp(bytes.data() + w->extent.offset, weights.data() + 102, 20), 0);
  EXPECT_EQ(files_in_folder(), 1u);
}

TEST_F(GgufWriterTest, RefusesWhatTheReaderWouldRefuse) {
  GgufWriter writer(path_);
  EXPECT_THAT(add_tensor(writer, "w", DType::kQ4_K, {255}),
              fails_with(Code::kInvalidArgument, HasSubstr("q4_k")));
  EXPECT_FALSE(add_tensor(writer, "w", DType::kF32, {}).ok());
  EXPECT_FALSE(add_tensor(writer, "w", DType::kF32, {4, 0}).ok());
  EXPECT_FALSE(add_tensor(writer, "w", DType::kF32, {1, 1, 1, 1, 1}).ok());
  EXPECT_FALSE(add_tensor(writer, "w", DType::kF32, {UINT64_MAX, UINT64_MAX}).ok());
  EXPECT_THAT(add_tensor(writer, "w", DType::kF32, {4}), is_ok());
  EXPECT_THAT(add_tensor(writer, "w", DType::kF32, {4}),
              fails_with(Code::kInvalidArgument, HasSubstr("taken")));
}

TEST_F(GgufWriterTest, LeavesNothingWhenItIsGivenUp) {
  {
    GgufWriter writer(path_);
    ASSERT_THAT(add_tensor(writer, "w", DType::kF32, {64}), is_ok());
    ASSERT_THAT(writer.begin(), is_ok());
    EXPECT_EQ(files_in_folder(), 1u);
  }
  EXPECT_EQ(files_in_folder(), 0u);
}

TEST_F(GgufWriterTest, KeepsTheOldFileUntilTheNewOneIsWhole) {
  std::ofstream(path_) << "old";
  {
    GgufWriter writer(path_);
    ASSERT_THAT(add_tensor(writer, "w", DType::kF32, {64}), is_ok());
    ASSERT_THAT(writer.begin(), is_ok());
    EXPECT_THAT(writer.finish(), fails_with(Code::kInvalidArgument, HasSubstr("missing")));
  }
  std::string text;
  std::ifstream(path_) >> text;
  EXPECT_EQ(text, "old");
  EXPECT_EQ(files_in_folder(), 1u);
}

TEST_F(GgufWriterTest, RefusesMoreWeightsThanDeclared) {
  GgufWriter writer(path_);
  ASSERT_THAT(add_tensor(writer, "w", DType::kF32, {4}), is_ok());
  ASSERT_THAT(writer.begin(), is_ok());
  EXPECT_THAT(writer.append(ramp(17)),
              fails_with(Code::kInvalidArgument, HasSubstr("more weights")));
  EXPECT_THAT(writer.finish(), fails_with(Code::kInvalidArgument, HasSubstr("more weights")));
  EXPECT_EQ(files_in_folder(), 0u);
}

TEST_F(GgufWriterTest, SaysBeforehandThatTheDriveIsTooSmall) {
  GgufWriter writer(path_);
  ASSERT_THAT(add_tensor(writer, "w", DType::kF32, {uint64_t{1} << 58}), is_ok());
  const Status status = writer.begin();
  EXPECT_THAT(status, fails_with(Code::kIo, HasSubstr("are free on this drive")));
  EXPECT_GT(status.bytes_needed(), uint64_t{1} << 60);
  EXPECT_EQ(files_in_folder(), 0u);
}

TEST_F(GgufWriterTest, ADriveThatFillsUpIsAnErrorAndLeavesNothing) {
  if (::mount("none", folder_.path().c_str(), "tmpfs", 0, "size=256k") != 0)
    GTEST_SKIP() << "no right to mount";
  const std::vector<std::byte> filler(200 << 10);
  GgufWriter writer(path_);
  Status status = add_tensor(writer, "w", DType::kF32, {32 << 10});
  if (status.ok()) status = writer.begin();
  {
    std::ofstream other(folder_ / "other");  // takes the space after it was counted
    other.write(reinterpret_cast<const char*>(filler.data()),
                static_cast<std::streamsize>(filler.size()));
  }
  if (status.ok()) status = writer.append(ramp(128 << 10));
  const size_t n_files = files_in_folder();
  ::umount2(folder_.path().c_str(), MNT_DETACH);
  EXPECT_THAT(status, fails_with(Code::kIo, HasSubstr("No space left")));
  EXPECT_EQ(status.bytes_needed(), writer.file_bytes());
  EXPECT_EQ(n_files, 1u);
}

TEST_F(GgufWriterTest, AFileThatMayNotGrowIsAnErrorAndLeavesNothing) {
  rlimit before = {};
  ASSERT_EQ(0, ::getrlimit(RLIMIT_FSIZE, &before));
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small = {4096, before.rlim_max};
  ASSERT_EQ(0, ::setrlimit(RLIMIT_FSIZE, &small));
  GgufWriter writer(path_);
  Status status = add_tensor(writer, "w", DType::kF32, {8192});
  if (status.ok()) status = writer.begin();
  if (status.ok()) status = writer.append(ramp(32768));
  ASSERT_EQ(0, ::setrlimit(RLIMIT_FSIZE, &before));
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(status, fails_with(Code::kIo, HasSubstr(path_.string())));
  EXPECT_EQ(files_in_folder(), 0u);
}

TEST_F(GgufWriterTest, NamesAFolderThatIsNotThere) {
  GgufWriter writer(folder_ / "no" / "m.gguf");
  EXPECT_THAT(writer.begin(), fails_with(Code::kNotFound, HasSubstr("no/m.gguf")));
}

}  // namespace
}  // namespace tandem

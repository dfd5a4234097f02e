#include "formats/gguf/gguf.h"
#include "gguf_bytes.h"
#include "status_matchers.h"

namespace tandem {
namespace {

using namespace testing;
using ::testing::HasSubstr;

Bytes part(uint16_t number, uint16_t count, int32_t tensors, const std::string& tensor) {
  std::vector<Bytes> metadata = {entry<uint16_t>("split.no", 2, number),
                                 entry<uint16_t>("split.count", 2, count),
                                 entry<int32_t>("split.tensors.count", 5, tensors)};
  if (number == 0) metadata.push_back(string_entry("general.architecture", "llama"));
  return gguf(metadata, {tensor_entry(tensor, {32}, 0, 0)}, 128);
}

class GgufSplit : public ::testing::Test {
 protected:
  void SetUp() override {
    for (uint16_t i = 0; i < 3; ++i)
      write(i + 1, part(i, 3, 3, std::string(1, static_cast<char>('a' + i))));
  }
  std::filesystem::path path(int number) {
    return folder_ / ("m-0000" + std::to_string(number) + "-of-00003.gguf");
  }
  void write(int number, const Bytes& bytes) {
    ASSERT_THAT(write_file(path(number), bytes), is_ok());
  }

  TemporaryFolder folder_;
};

TEST_F(GgufSplit, AnyPartOpensAll) {
  for (int number : {1, 2, 3}) {
    auto file = GgufFile::open(path(number));
    ASSERT_THAT(file, is_ok());
    EXPECT_EQ(file->paths().size(), 3u);
    EXPECT_EQ(file->paths()[2], path(3).string());
    EXPECT_EQ(*file->get_string("general.architecture"), "llama");
    EXPECT_EQ(file->find_tensor("b")->extent.file_index, 1u);
    EXPECT_EQ(file->file_bytes(), std::filesystem::file_size(path(1)) +
                                      std::filesystem::file_size(path(2)) +
                                      std::filesystem::file_size(path(3)));
  }
}

TEST_F(GgufSplit, NamesAMissingPart) {
  std::filesystem::remove(path(2));
  EXPECT_THAT(GgufFile::open(path(1)), fails_with(Code::kNotFound, HasSubstr("part 2 of 3")));
}

TEST_F(GgufSplit, RefusesAPartThatStandsTwice) {
  std::filesystem::copy_file(path(1), path(2), std::filesystem::copy_options::overwrite_existing);
  EXPECT_THAT(
      GgufFile::open(path(1)),
      fails_with(Code::kCorrupt, HasSubstr("expected 1 as in the file's name, found u16 0")));
}

TEST_F(GgufSplit, RefusesPartsInTheWrongOrder) {
  write(2, part(2, 3, 3, "c"));
  write(3, part(1, 3, 3, "b"));
  EXPECT_THAT(GgufFile::open(path(1)), fails_with(Code::kCorrupt, HasSubstr("split.no")));
}

TEST_F(GgufSplit, RefusesPartsWithDifferentCounts) {
  write(3, part(2, 4, 3, "c"));
  EXPECT_THAT(GgufFile::open(path(1)), fails_with(Code::kCorrupt, HasSubstr("split.count")));
}

TEST_F(GgufSplit, RefusesAWrongTensorCount) {
  write(1, part(0, 3, 4, "a"));
  EXPECT_THAT(GgufFile::open(path(2)),
              fails_with(Code::kCorrupt, HasSubstr("split.tensors.count")));
}

TEST_F(GgufSplit, RefusesATensorInTwoParts) {
  write(3, part(2, 3, 3, "a"));
  EXPECT_THAT(GgufFile::open(path(1)), fails_with(Code::kCorrupt, HasSubstr("stands twice")));
}

TEST_F(GgufSplit, RefusesAPartThatIsAWholeModel) {
  write(2, gguf({}, {tensor_entry("b", {32}, 0, 0)}, 128));
  EXPECT_THAT(GgufFile::open(path(1)), fails_with(Code::kCorrupt, HasSubstr("no part of a split")));
}

TEST_F(GgufSplit, RefusesAPartUnderAnotherName) {
  std::filesystem::copy_file(path(1), folder_ / "m.gguf");
  EXPECT_THAT(GgufFile::open(folder_ / "m.gguf"),
              fails_with(Code::kInvalidArgument, HasSubstr("one of 3 parts")));
}

TEST_F(GgufSplit, RefusesKeysOfTheWrongType) {
  write(1, gguf({string_entry("split.count", "3")}, {}, 0));
  EXPECT_THAT(GgufFile::open(path(1)), fails_with(Code::kCorrupt, HasSubstr("split.count")));
  write(1, gguf({entry<int32_t>("split.count", 5, -1)}, {}, 0));
  EXPECT_THAT(GgufFile::open(path(1)), fails_with(Code::kCorrupt, HasSubstr("found i32 -1")));
  write(1, gguf({entry<uint64_t>("split.count", 10, UINT64_MAX)}, {}, 0));
  EXPECT_THAT(GgufFile::open(path(1)), fails_with(Code::kCorrupt, HasSubstr("split.count")));
}

TEST_F(GgufSplit, AWholeModelMayHaveAPartsName) {
  write(1, gguf({}, {tensor_entry("a", {32}, 0, 0)}, 128));
  auto file = GgufFile::open(path(1));
  ASSERT_THAT(file, is_ok());
  EXPECT_EQ(file->paths().size(), 1u);
}

TEST_F(GgufSplit, PartsAreNotParsedFromMemory) {
  EXPECT_THAT(parse_exact(part(0, 3, 3, "a")), fails_with(Code::kUnsupported, HasSubstr("parts")));
}

}  // namespace
}  // namespace tandem

// Files made to hurt: every one must end in an error that names the field and the byte.
#include "formats/gguf/gguf.h"
#include "gguf_bytes.h"
#include "status_matchers.h"

namespace tandem {
namespace {

using namespace testing;
using ::testing::HasSubstr;

constexpr uint64_t kExtremes[] = {uint64_t{1} << 31, uint64_t{1} << 32, uint64_t{1} << 60,
                                  uint64_t{1} << 63, UINT64_MAX - 31,   UINT64_MAX};

auto refused(const std::string& field) { return fails_with(Code::kCorrupt, HasSubstr(field)); }

Bytes with_metadata(const Bytes& metadata) { return gguf({metadata}, {}, 0); }
Bytes with_tensor(const Bytes& tensor, size_t weight_bytes = 4096) {
  return gguf({}, {tensor}, weight_bytes);
}

TEST(GgufHostile, EveryTruncationIsRefusedWithAnOffset) {
  const Bytes whole = rich_file();
  ASSERT_THAT(parse_exact(whole), is_ok());
  for (size_t n = 0; n < whole.size(); ++n) {
    const auto file = parse_exact(std::span(whole.data()).first(n));
    ASSERT_FALSE(file.ok()) << n;
    ASSERT_EQ(file.status().code(), Code::kCorrupt) << n << ' ' << file.status().to_string();
    ASSERT_LE(file.status().offset(), n) << file.status().to_string();
    ASSERT_EQ(file.status().file(), "m.gguf");
  }
}

TEST(GgufHostile, SaysThatADownloadIsIncomplete) {
  const Bytes whole = rich_file();
  const auto file = parse_exact(std::span(whole.data()).first(whole.size() - 100));
  EXPECT_THAT(file, refused("m.gguf: tensor c.weight ends at byte " + std::to_string(whole.size()) +
                            ", the file has " + std::to_string(whole.size() - 100) +
                            ". The download is incomplete."));
  EXPECT_EQ(file.status().tensor(), "c.weight");
  EXPECT_EQ(file.status().bytes_needed(), whole.size());
}

TEST(GgufHostile, Magic) {
  EXPECT_THAT(parse_exact({}), refused("empty"));
  EXPECT_THAT(parse_exact(Bytes().raw("GGML").zeros(40)), refused("magic at byte 0"));
  const auto pointer = parse_exact(Bytes().raw("version https://git-lfs.github.com/spec/v1"));
  EXPECT_THAT(pointer.status().suggestion(), HasSubstr("LFS"));
}

TEST(GgufHostile, Version) {
  for (uint32_t version : {0u, 1u, 4u, 0x7fffffffu}) {
    EXPECT_THAT(parse_exact(gguf_start(version, 0, 0)),
                fails_with(Code::kUnsupported, HasSubstr("version " + std::to_string(version))));
  }
  EXPECT_THAT(parse_exact(gguf_start(0x03000000, 0, 0)),
              fails_with(Code::kUnsupported, HasSubstr("big-endian")));
}

TEST(GgufHostile, Counts) {
  for (uint64_t count : kExtremes) {
    EXPECT_THAT(parse_exact(gguf_start(3, count, 0).zeros(4096)),
                refused("tensor count at byte 8"));
    EXPECT_THAT(parse_exact(gguf_start(3, 0, count).zeros(4096)),
                refused("metadata count at byte 16"));
  }
  EXPECT_THAT(parse_exact(gguf_start(3, 1, 0).zeros(10)), refused("tensor count"));
}

TEST(GgufHostile, CountsOfZeroAreAnEmptyModel) {
  EXPECT_THAT(parse_exact(gguf_start(3, 0, 0)), is_ok());
}

TEST(GgufHostile, Keys) {
  const auto with_key = [](std::string_view k) { return with_metadata(entry<uint32_t>(k, 4, 1)); };
  EXPECT_THAT(parse_exact(with_key("ok")), is_ok());
  EXPECT_THAT(parse_exact(with_key("")), refused("key at byte 24: is empty"));
  EXPECT_THAT(parse_exact(with_key(std::string_view("a\0b", 3))), refused("\\x00"));
  EXPECT_THAT(parse_exact(with_key("a\nb")), refused("control"));
  for (const char* bad :
       {"\xff", "\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe0\x80\x80"}) {
    EXPECT_THAT(parse_exact(with_key(bad)), refused("UTF-8"));
  }
  EXPECT_THAT(parse_exact(with_key("sch\xc3\xb6n")), is_ok());
  EXPECT_THAT(parse_exact(with_key(std::string(65536, 'k'))), refused("at most 65535"));
  EXPECT_THAT(parse_exact(gguf({entry<uint32_t>("k", 4, 1), entry<uint32_t>("k", 4, 2)}, {}, 0)),
              refused("stands twice"));
}

TEST(GgufHostile, StringLengths) {
  for (uint64_t length : kExtremes) {
    EXPECT_THAT(parse_exact(gguf_start(3, 0, 1).put(length).zeros(100)), refused("key at byte 24"));
    EXPECT_THAT(parse_exact(with_metadata(key("s", 8).put(length).zeros(100))),
                refused("'s', string"));
  }
}

TEST(GgufHostile, ArrayLengths) {
  for (uint64_t count : kExtremes) {
    for (uint32_t type = 0; type <= 12; ++type) {
      EXPECT_THAT(parse_exact(with_metadata(key("a", 9).put(type).put(count).zeros(100))),
                  refused("'a', array length"))
          << type;
    }
  }
}

TEST(GgufHostile, ArraysOfArrays) {
  Bytes nested = key("deep", 9);
  for (int i = 0; i < 40; ++i) nested.put<uint32_t>(9).put<uint64_t>(1);
  EXPECT_THAT(parse_exact(with_metadata(nested.zeros(64))),
              fails_with(Code::kUnsupported, HasSubstr("nest deeper")));
  const Bytes bad_inner =
      key("inner", 9).put<uint32_t>(9).put<uint64_t>(2).put<uint32_t>(4).put(UINT64_MAX).zeros(64);
  EXPECT_THAT(parse_exact(with_metadata(bad_inner)), refused("'inner', array length"));
}

TEST(GgufHostile, ValueTypes) {
  for (uint32_t type : {13u, 255u, 0x80000000u, 0xffffffffu}) {
    EXPECT_THAT(parse_exact(with_metadata(key("k", type).zeros(64))), refused("value type"));
    EXPECT_THAT(parse_exact(with_metadata(key("k", 9).put(type).put<uint64_t>(0))),
                refused("element type"));
  }
}

TEST(GgufHostile, Bools) {
  EXPECT_THAT(parse_exact(with_metadata(entry<uint8_t>("b", 7, 2))), refused("0 or 1, found 2"));
  EXPECT_THAT(parse_exact(with_metadata(array_entry<uint8_t>("b", 7, {0, 1, 255}))),
              refused("found 255"));
}

TEST(GgufHostile, Alignment) {
  const auto aligned = [](const Bytes& e) { return parse_exact(gguf({e}, {}, 0)); };
  const std::string k = "general.alignment";
  EXPECT_THAT(aligned(entry<uint32_t>(k, 4, 64)), is_ok());
  for (uint32_t value : {0u, 3u, 48u, 1u << 31}) {
    EXPECT_THAT(aligned(entry<uint32_t>(k, 4, value)), refused("power of two"));
  }
  EXPECT_THAT(aligned(entry<int32_t>(k, 5, -32)), refused("-32"));
  EXPECT_THAT(aligned(entry<uint64_t>(k, 10, uint64_t{1} << 63)), refused("power of two"));
  EXPECT_THAT(aligned(entry<float>(k, 6, 32.0f)), refused("f32"));
  EXPECT_THAT(aligned(string_entry(k, "32")), refused("string"));
  EXPECT_THAT(aligned(array_entry<uint32_t>(k, 4, {32})), refused("array of 1 u32"));
}

TEST(GgufHostile, TensorNames) {
  EXPECT_THAT(parse_exact(with_tensor(tensor_entry("", {4}, 0, 0))), refused("is empty"));
  EXPECT_THAT(parse_exact(with_tensor(tensor_entry(std::string_view("w\0", 2), {4}, 0, 0))),
              refused("control"));
  EXPECT_THAT(parse_exact(with_tensor(tensor_entry(std::string(256, 'w'), {4}, 0, 0))),
              refused("at most 255"));
  EXPECT_THAT(
      parse_exact(gguf({}, {tensor_entry("w", {4}, 0, 0), tensor_entry("w", {4}, 0, 32)}, 64)),
      refused("stands twice"));
}

TEST(GgufHostile, NumberOfDimensions) {
  for (uint32_t n : {0u, 5u, 8u, 9u, 1u << 31, 0xffffffffu}) {
    EXPECT_THAT(parse_exact(with_tensor(Bytes().text("w").put(n).zeros(100))),
                refused("number of dimensions"));
  }
}

TEST(GgufHostile, Dimensions) {
  const auto shape = [](std::vector<uint64_t> dims) {
    return parse_exact(with_tensor(tensor_entry("w", std::move(dims), 0, 0)));
  };
  EXPECT_THAT(shape({0}), refused("dimension"));
  EXPECT_THAT(shape({4, 0}), refused("is 0"));
  EXPECT_THAT(shape({static_cast<uint64_t>(INT64_MAX), 2}), refused("overflows"));
  EXPECT_THAT(shape({static_cast<uint64_t>(INT64_MAX), 2, 1, 1}), refused("overflows"));
  EXPECT_THAT(shape({uint64_t{1} << 32, uint64_t{1} << 32}), refused("overflows"));
  EXPECT_THAT(shape({UINT64_MAX}), refused("overflows"));
  EXPECT_THAT(shape({uint64_t{1} << 62}), refused("size in bytes overflows"));
  EXPECT_THAT(shape({uint64_t{1} << 61}), refused("overflow"));
  EXPECT_THAT(shape({uint64_t{1} << 60}), refused("incomplete"));
}

TEST(GgufHostile, RowsMustBeWholeBlocks) {
  EXPECT_THAT(parse_exact(with_tensor(tensor_entry("w", {255}, 12, 0))), refused("blocks of 256"));
  EXPECT_THAT(parse_exact(with_tensor(tensor_entry("w", {16, 2}, 8, 0))), refused("blocks of 32"));
}

TEST(GgufHostile, NumberFormats) {
  for (uint32_t id : {4u, 5u, 31u, 32u, 33u, 36u, 37u, 38u, 1000u, 0xffffffffu}) {
    EXPECT_THAT(parse_exact(with_tensor(tensor_entry("w", {256}, id, 0))),
                refused("number format at byte"));
  }
}

TEST(GgufHostile, Offsets) {
  const auto at = [](uint64_t offset) {
    return parse_exact(with_tensor(tensor_entry("w", {32}, 0, offset), 256));
  };
  EXPECT_THAT(at(128), is_ok());
  EXPECT_THAT(at(1), refused("multiple of the alignment"));
  EXPECT_THAT(at(160), refused("incomplete"));
  EXPECT_THAT(at(uint64_t{1} << 31), refused("incomplete"));
  EXPECT_THAT(at(UINT64_MAX - 31), refused("overflow"));
  EXPECT_THAT(at(UINT64_MAX - 127), refused("overflow"));
  EXPECT_THAT(at(uint64_t{1} << 63), refused("incomplete"));
}

TEST(GgufHostile, Overlaps) {
  const auto two = [](uint64_t first, uint64_t second) {
    return parse_exact(
        gguf({}, {tensor_entry("a", {32}, 0, first), tensor_entry("b", {32}, 0, second)}, 512));
  };
  EXPECT_THAT(two(0, 128), is_ok());
  EXPECT_THAT(two(128, 0), is_ok()) << "the order in the file is free";
  EXPECT_THAT(two(0, 0), refused("inside tensor"));
  EXPECT_THAT(two(0, 96), refused("'b' at byte"));
  EXPECT_THAT(two(96, 0), refused("inside tensor 'b'"));
}

// Every u32 and u64 of a valid header, replaced by extremes: an error or a file, never a crash.
TEST(GgufHostile, AnyFieldAtItsExtremes) {
  const Bytes whole = rich_file();
  const size_t header = whole.size() - 704 - 6 * 34;
  for (size_t at = 0; at + 8 <= header; ++at) {
    for (uint64_t value : {uint64_t{0}, uint64_t{1} << 31, uint64_t{1} << 63, UINT64_MAX}) {
      Bytes bytes = whole;
      std::memcpy(bytes.data().data() + at, &value, 8);
      const auto file = parse_exact(bytes);
      ASSERT_TRUE(file.ok() || !file.status().message().empty());
    }
  }
}

}  // namespace
}  // namespace tandem

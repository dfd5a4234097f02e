// The header of a GGUF model: metadata and where each tensor lies.
//
// A file, little-endian throughout (source: the GGUF specification, ggml docs/gguf.md):
//
//   "GGUF"  version u32  tensor count u64  metadata count u64
//   metadata:  key string, value type u32, value                  (count times)
//   tensors:   name string, dimensions u32, u64 each, number format u32, offset u64   (count times)
//   padding to general.alignment (32 when the key is absent)
//   weights: each tensor at its offset from here, offsets being multiples of the alignment
//
//   string = length u64, bytes without a terminator; array = element type u32, count u64, elements.
//
// A model may be split: name-00001-of-00003.gguf and so on, each a file as above with its own
// tensors; split.no counts from 0, split.count and split.tensors.count are those of the whole, and
// the other metadata stand in the first part.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/file.h"
#include "base/result.h"
#include "formats/extent.h"

namespace tandem {

struct TensorInfo {
  std::string_view name;
  DTypeInfo type;                               // also formats that are recognised but not computed
  std::array<uint64_t, 4> dims = {1, 1, 1, 1};  // dims[0] is the length of a row; unused ones are 1
  uint32_t n_dims = 0;
  uint64_t bytes = 0;
  Extent extent;

  uint64_t row_length() const { return dims[0]; }
  uint64_t rows() const { return dims[1] * dims[2] * dims[3]; }
};

// Numbered as in the file.
enum class MetadataType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// "u32", "string", "array".
std::string_view metadata_type_name(MetadataType type);

struct MetadataEntry {
  std::string_view key;
  MetadataType type = MetadataType::kU8;
  MetadataType element_type = MetadataType::kU8;  // of an array
  uint64_t array_length = 0;                      // of an array
  uint64_t byte_offset = 0;                       // of the value in the first file
  std::span<const std::byte> bytes;  // the value as in the file; of an array, its elements

  // "u32", "array of 3 string".
  std::string type_text() const;
  // The value as people read it, one line, at most about `max_bytes` long; arrays show their first
  // elements, and what is not printable is escaped.
  std::string printable(size_t max_bytes = 80) const;
};

// The header or headers of one model, all parts of a split file.  Holds no weights.
//
// Threading: const methods may be called from any thread at once.
// Ownership: owns its tables; every view it returns dies with it (moving it keeps them alive).
// Errors: open() gives kNotFound, kIo, kUnsupported (version, byte order, sizes beyond the limits
// in part.h) or kCorrupt, naming the first bad field and its byte offset.  What the file claims
// allocates nothing: tables grow with the bytes really present.  Getters give kNotFound for an
// absent key, and kCorrupt with key, byte offset and found type for a value of another kind.
class GgufFile {
 public:
  // Any part of a split model opens all of them.
  static Result<GgufFile> open(const std::filesystem::path& path,
                               const OpenReadFile& open_file = ReadFile::open);
  // One file that lies in memory; parts of split models are refused.  Copies what it keeps.
  static Result<GgufFile> parse(std::span<const std::byte> file, std::string name = "memory");

  uint32_t version() const { return version_; }
  const std::vector<std::string>& paths() const { return paths_; }
  // Of the paths, when they were read; whoever opens them again compares.
  const std::vector<FileIdentity>& identities() const { return identities_; }
  uint64_t file_bytes() const { return file_bytes_; }  // of all parts

  std::span<const TensorInfo> tensors() const { return tensors_; }  // in the order of the files
  const TensorInfo* find_tensor(std::string_view name) const;       // null when absent
  // The one whose weights include this byte of the file_index-th file; null when none does.
  const TensorInfo* tensor_at(uint32_t file_index, uint64_t offset) const;

  std::span<const MetadataEntry> metadata() const { return metadata_; }  // in the order of the file
  const MetadataEntry* find(std::string_view key) const;                 // null when absent
  bool has(std::string_view key) const { return find(key) != nullptr; }

  Result<std::string_view> get_string(std::string_view key) const;
  Result<uint64_t> get_uint(std::string_view key) const;  // any integer type, not negative
  Result<int64_t> get_int(std::string_view key) const;    // any integer type
  Result<double> get_float(std::string_view key) const;   // any number
  Result<bool> get_bool(std::string_view key) const;
  Result<std::vector<std::string_view>> get_string_array(std::string_view key) const;
  Result<std::vector<float>> get_float_array(std::string_view key) const;  // of any number
  Result<std::vector<int64_t>> get_int_array(std::string_view key) const;  // of any integer type

  struct Builder;  // builder.h; for the reader

 private:
  GgufFile() = default;
  Result<const MetadataEntry*> entry(std::string_view key) const;
  Status wrong_type(const MetadataEntry& entry, std::string_view expected) const;

  uint32_t version_ = 0;
  uint64_t file_bytes_ = 0;
  std::vector<std::string> paths_;
  std::vector<FileIdentity> identities_;
  std::vector<std::unique_ptr<const std::byte[]>> headers_;  // what the views below point into
  std::vector<TensorInfo> tensors_;
  std::vector<MetadataEntry> metadata_;
  // Places in tensors_ and metadata_, ordered by name: searching stays fast for names chosen to
  // collide in a hash table.
  std::vector<uint32_t> tensors_by_name_;
  std::vector<uint32_t> metadata_by_key_;
};

}  // namespace tandem

// Writes a GGUF file of version 3 from front to back; the weights never have to be in memory at
// once.
//
//   GgufWriter writer("m.gguf");
//   writer.add_string("general.architecture", "llama");
//   TANDEM_RETURN_IF_ERROR(writer.add_tensor("output.weight", DType::kF32, {{2048, 32000}}));
//   TANDEM_RETURN_IF_ERROR(writer.begin());
//   while (...) TANDEM_RETURN_IF_ERROR(writer.append(bytes));   // all tensors, in the order added
//   return writer.finish();
//
// Threading: one thread at a time.
// Ownership: owns the file under its temporary name, and removes it when it dies before finish()
// succeeded.  Under the final name there is the old file or the whole new one, never a part.
// Errors: kIo naming the path, with bytes needed and free when the drive is full; the first error
// of begin() or append() is returned by every later call.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/atomic_file.h"
#include "base/dtype.h"
#include "base/status.h"
#include "formats/gguf/gguf.h"

namespace tandem {

class GgufWriter {
 public:
  static constexpr uint64_t kAlignment = 32;

  explicit GgufWriter(const std::filesystem::path& path) : path_(path.string()) {}
  GgufWriter(const GgufWriter&) = delete;
  GgufWriter& operator=(const GgufWriter&) = delete;

  // Metadata and tensors are added before begin().  A key or name is added once.
  void add_string(std::string_view key, std::string_view value);
  void add_bool(std::string_view key, bool value);
  void add_u32(std::string_view key, uint32_t value);
  void add_f32(std::string_view key, float value);
  void add_strings(std::string_view key, std::span<const std::string> values);
  void add_i32s(std::string_view key, std::span<const int32_t> values);
  void add_f32s(std::string_view key, std::span<const float> values);

  // dims[0] is the length of a row.  Errors: kInvalidArgument for a shape that the format or the
  // reader would refuse, and for a name that was added before.
  Status add_tensor(std::string_view name, DType type, std::span<const uint64_t> dims);

  // Of the whole file as declared so far.
  uint64_t file_bytes() const;

  // Compares file_bytes() with the drive's free space, creates the file and writes the header.
  Status begin();
  // The next bytes of the weights, in pieces of any size; padding between tensors is added here.
  // Errors: kInvalidArgument for more bytes than were declared.
  Status append(std::span<const std::byte> weights);
  // Syncs and renames.  Errors: kInvalidArgument when weights are missing.
  Status finish();

 private:
  struct Tensor {
    std::string name;
    DType type;
    std::vector<uint64_t> dims;
    uint64_t bytes;
    uint64_t offset;  // from the start of the weights
  };

  void add_key(std::string_view key, MetadataType type);
  std::string header() const;
  Status begin_unchecked();
  Status check_free_space() const;
  Status write(std::span<const std::byte> bytes);
  Status with_space(const Status& status) const;
  Status append_checked(std::span<const std::byte> weights);

  std::string path_;
  std::string metadata_;  // as in the file
  uint64_t n_metadata_ = 0;
  std::set<std::string, std::less<>> names_;
  std::vector<Tensor> tensors_;
  uint64_t weight_bytes_ = 0;  // with padding

  std::optional<AtomicFile> file_;  // between begin() and finish()
  size_t current_ = 0;              // tensor that append() writes
  uint64_t current_done_ = 0;       // bytes of it
  Status error_;
};

}  // namespace tandem

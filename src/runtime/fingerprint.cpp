#include "runtime/fingerprint.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace tandem {
namespace {

constexpr size_t kMaxSamples = 4096;
constexpr size_t kSampleBytes = 1024;

class Hash {
 public:
  // The length is part of it: "ab", "c" is not "a", "bc".
  void add(std::span<const std::byte> bytes) {
    add_number(bytes.size());
    for (const std::byte byte : bytes) mix(static_cast<uint64_t>(byte));
  }
  void add(std::string_view text) { add(std::as_bytes(std::span(text))); }
  void add_number(uint64_t number) {
    for (int shift = 0; shift < 64; shift += 8) mix(number >> shift & 0xFF);
  }
  uint64_t value() const { return value_; }

 private:
  void mix(uint64_t byte) { value_ = (value_ ^ byte) * 0x100000001B3u; }  // FNV-1a
  uint64_t value_ = 0xCBF29CE484222325u;
};

void add_header(const GgufFile& file, Hash& hash) {
  for (const FileIdentity& part : file.identities()) hash.add_number(part.size_bytes);
  for (const MetadataEntry& entry : file.metadata()) {
    hash.add(entry.key);
    hash.add_number(static_cast<uint64_t>(entry.type));
    hash.add(entry.bytes);
  }
  for (const TensorInfo& tensor : file.tensors()) {
    hash.add(tensor.name);
    hash.add_number(static_cast<uint64_t>(tensor.type.id));
    hash.add(std::as_bytes(std::span(tensor.dims)));
    hash.add_number(tensor.extent.file_index);
    hash.add_number(tensor.extent.offset);
  }
}

Status add_sample(const ReadFile& file, const Extent& extent, size_t index, Hash& hash) {
  std::vector<std::byte> sample(std::min<uint64_t>(kSampleBytes, extent.bytes));
  // Not always a tensor's start: the first rows of a vocabulary may be those of unused tokens.  Multiples of the golden
  // ratio spread over every tensor alike.
  const double place = std::fmod(static_cast<double>(index) * 0.6180339887498949, 1.0);
  const auto room = static_cast<double>(extent.bytes - sample.size());
  TANDEM_RETURN_IF_ERROR(file.read_at(extent.offset + static_cast<uint64_t>(room * place), sample));
  hash.add(sample);
  return ok_status();
}

}  // namespace

Result<uint64_t> fingerprint_of(const GgufFile& file, const OpenReadFile& open_file,
                                const CancelFlag& cancel) {
  Hash hash;
  add_header(file, hash);
  std::vector<std::unique_ptr<ReadFile>> parts;
  for (const std::string& path : file.paths()) {
    TANDEM_ASSIGN_OR_RETURN(std::unique_ptr<ReadFile> part,
                            open_file(path, ReadFile::Mode::kBuffered));
    parts.push_back(std::move(part));
  }
  const std::span<const TensorInfo> tensors = file.tensors();
  const size_t n_samples = std::min(tensors.size(), kMaxSamples);
  for (size_t i = 0; i < n_samples; ++i) {
    if (cancel.cancelled()) return cancelled("cancelled before the weights were read");
    const Extent& extent = tensors[tensors.size() * i / n_samples].extent;
    TANDEM_RETURN_IF_ERROR(add_sample(*parts[extent.file_index], extent, i, hash));
  }
  return hash.value();
}

}  // namespace tandem

// Writes GGUF files field by field, also wrong ones.  Independent of the library's writer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/atomic_file.h"
#include "base/file.h"
#include "formats/gguf/gguf.h"

namespace tandem::testing {

class Bytes {
 public:
  template <typename T>
  Bytes& put(T value) {
    const auto* raw = reinterpret_cast<const std::byte*>(&value);
    data_.insert(data_.end(), raw, raw + sizeof(T));
    return *this;
  }
  Bytes& text(std::string_view t) {
    put<uint64_t>(t.size());
    return raw(t);
  }
  Bytes& raw(std::string_view t) {
    const auto* bytes = reinterpret_cast<const std::byte*>(t.data());
    data_.insert(data_.end(), bytes, bytes + t.size());
    return *this;
  }
  Bytes& append(const Bytes& other) {
    data_.insert(data_.end(), other.data_.begin(), other.data_.end());
    return *this;
  }
  Bytes& pad_to(size_t alignment) {
    while (data_.size() % alignment != 0) data_.push_back(std::byte{0});
    return *this;
  }
  Bytes& zeros(size_t n) {
    data_.resize(data_.size() + n);
    return *this;
  }
  size_t size() const { return data_.size(); }
  const std::vector<std::byte>& data() const { return data_; }
  std::vector<std::byte>& data() { return data_; }
  operator std::span<const std::byte>() const { return data_; }

 private:
  std::vector<std::byte> data_;
};

// "GGUF", version, counts.
inline Bytes gguf_start(uint32_t version, uint64_t n_tensors, uint64_t n_metadata) {
  return Bytes().raw("GGUF").put(version).put(n_tensors).put(n_metadata);
}

inline Bytes key(std::string_view name, uint32_t type) { return Bytes().text(name).put(type); }

inline Bytes string_entry(std::string_view name, std::string_view value) {
  return key(name, 8).text(value);
}
template <typename T>
Bytes entry(std::string_view name, uint32_t type, T value) {
  return key(name, type).put(value);
}
template <typename T>
Bytes array_entry(std::string_view name, uint32_t element_type, const std::vector<T>& values) {
  Bytes bytes = key(name, 9).put(element_type).put<uint64_t>(values.size());
  for (const T& value : values) bytes.put(value);
  return bytes;
}
inline Bytes string_array_entry(std::string_view name, const std::vector<std::string>& values) {
  Bytes bytes = key(name, 9).put<uint32_t>(8).put<uint64_t>(values.size());
  for (const std::string& value : values) bytes.text(value);
  return bytes;
}

inline Bytes tensor_entry(std::string_view name, std::vector<uint64_t> dims, uint32_t type,
                          uint64_t offset) {
  Bytes bytes = Bytes().text(name).put(static_cast<uint32_t>(dims.size()));
  for (uint64_t dim : dims) bytes.put(dim);
  return bytes.put(type).put(offset);
}

// A whole file from its entries; the weights are zeros.
inline Bytes gguf(const std::vector<Bytes>& metadata, const std::vector<Bytes>& tensors,
                  size_t weight_bytes, uint32_t version = 3, size_t alignment = 32) {
  Bytes file = gguf_start(version, tensors.size(), metadata.size());
  for (const Bytes& m : metadata) file.append(m);
  for (const Bytes& t : tensors) file.append(t);
  if (weight_bytes > 0) file.pad_to(alignment).zeros(weight_bytes);
  return file;
}

// Every kind of value, three tensors.
inline Bytes rich_file(uint32_t version = 3) {
  const Bytes nested = key("t.nested", 9)
                           .put<uint32_t>(9)
                           .put<uint64_t>(2)
                           .put<uint32_t>(4)
                           .put<uint64_t>(2)
                           .put<uint32_t>(1)
                           .put<uint32_t>(2)
                           .put<uint32_t>(8)
                           .put<uint64_t>(1)
                           .text("inner");
  return gguf(
      {string_entry("general.architecture", "llama"), entry<uint8_t>("t.u8", 0, 200),
       entry<int8_t>("t.i8", 1, -3), entry<uint16_t>("t.u16", 2, 60000),
       entry<int16_t>("t.i16", 3, -300), entry<uint32_t>("t.u32", 4, 4000000000u),
       entry<int32_t>("t.i32", 5, -70000), entry<float>("t.f32", 6, 1.5f),
       entry<uint8_t>("t.bool", 7, 1), entry<uint64_t>("t.u64", 10, UINT64_MAX),
       entry<int64_t>("t.i64", 11, INT64_MIN), entry<double>("t.f64", 12, -2.25),
       entry<uint32_t>("general.alignment", 4, 64), nested,
       array_entry<float>("t.floats", 6, {0.5f, 1.0f, -2.0f}),
       array_entry<uint8_t>("t.bools", 7, {0, 1}), array_entry<int32_t>("t.ints", 5, {1, -2, 3}),
       string_array_entry("t.strings", {"", "a", "\xc3\xa9"})},
      {tensor_entry("a.weight", {64, 2}, 0, 0), tensor_entry("b.weight", {256}, 12, 512),
       tensor_entry("c.weight", {32, 2, 3}, 8, 704)},
      704 + 6 * 34, version, 64);
}

// Parses a copy in a buffer of exactly the file's size, so that a sanitizer sees every read past
// it.
inline Result<GgufFile> parse_exact(std::span<const std::byte> file) {
  auto exact = std::make_unique<std::byte[]>(file.size());
  if (!file.empty()) std::memcpy(exact.get(), file.data(), file.size());
  return GgufFile::parse({exact.get(), file.size()}, "m.gguf");
}

inline Status write_file(const std::filesystem::path& path, const Bytes& bytes) {
  const std::span<const std::byte> parts[] = {bytes};
  return write_file_atomically(path, parts);
}

}  // namespace tandem::testing

// Reads the fields of a header one after the other out of a buffer that grows with the file's
// bytes.
//
// Threading: one thread.
// Ownership: borrows the file; owns the buffer until take_header().
// Errors: kCorrupt naming context, field and byte offset when the file ends inside a field,
// kUnsupported for a header beyond kMaxHeaderBytes, and what the file itself reports.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "base/file.h"
#include "base/result.h"

namespace tandem {

// "'blk.0.w'" with unprintable bytes escaped and at most 80 of them, for messages.
std::string quoted(std::string_view text);

class HeaderReader {
 public:
  // The largest vocabularies (256 thousand tokens with merges) take some 20 MB.
  static constexpr uint64_t kMaxHeaderBytes = uint64_t{256} << 20;

  struct Text {
    uint64_t offset = 0, bytes = 0;
  };

  explicit HeaderReader(const ReadFile& file) : file_(file) {}

  // What the fields read next belong to: "metadata 'general.name'".  Stands in every error.
  void set_context(std::string context) { context_ = std::move(context); }

  uint64_t position() const { return position_; }
  uint64_t file_bytes() const { return file_.size_bytes(); }
  uint64_t remaining() const { return file_.size_bytes() - position_; }

  template <typename T>
  Result<T> read(std::string_view field) {
    TANDEM_RETURN_IF_ERROR(need(sizeof(T), field));
    T value;
    std::memcpy(&value, buffer_.get() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }
  Result<Text> read_text(std::string_view field, uint64_t max_bytes);
  Status skip(uint64_t bytes, std::string_view field);

  // Valid until the next read.
  std::string_view view(Text text) const {
    return {reinterpret_cast<const char*>(buffer_.get()) + text.offset, text.bytes};
  }
  const std::byte* at(uint64_t offset) const { return buffer_.get() + offset; }

  // "FILE: CONTEXT, FIELD at byte N: PROBLEM", carrying file and offset.
  Status failed(Code code, uint64_t offset, std::string_view field, std::string problem) const;
  Status bad(uint64_t offset, std::string_view field, std::string problem) const {
    return failed(Code::kCorrupt, offset, field, std::move(problem));
  }

  // A copy of exactly the bytes read so far.
  std::unique_ptr<const std::byte[]> take_header() const;

 private:
  Status need(uint64_t bytes, std::string_view field) {
    return bytes <= buffered_ - position_ ? ok_status() : fill(bytes, field);
  }
  Status fill(uint64_t bytes, std::string_view field);

  const ReadFile& file_;
  std::string context_;
  std::unique_ptr<std::byte[]> buffer_;
  uint64_t buffered_ = 0;  // bytes of the file in the buffer
  uint64_t position_ = 0;  // <= buffered_
};

}  // namespace tandem

#include "formats/gguf/header_reader.h"

#include <algorithm>
#include <cstdio>
#include <utility>

namespace tandem {
namespace {

constexpr uint64_t kFirstReadBytes = uint64_t{256} << 10;

}  // namespace

std::string quoted(std::string_view text) {
  constexpr size_t kMaxShown = 80;
  std::string out = "'";
  for (char c : text.substr(0, kMaxShown)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      out += c;
    } else {
      char escape[8];
      std::snprintf(escape, sizeof(escape), "\\x%02x", static_cast<unsigned>(byte));
      out += escape;
    }
  }
  return out + (text.size() > kMaxShown ? "...'" : "'");
}

Status HeaderReader::failed(Code code, uint64_t offset, std::string_view field,
                            std::string problem) const {
  std::string message = file_.path() + ": ";
  if (!context_.empty()) message += context_ + ", ";
  message.append(field);
  message += " at byte " + std::to_string(offset) + ": " + std::move(problem);
  return Status(code, std::move(message)).in_file(file_.path()).at_offset(offset);
}

Status HeaderReader::fill(uint64_t bytes, std::string_view field) {
  if (bytes > remaining()) {
    return bad(position_, field,
               "takes " + std::to_string(bytes) + " bytes, the file has " +
                   std::to_string(remaining()) + " more")
        .with_bytes(bytes, remaining());
  }
  const uint64_t end = position_ + bytes;
  if (end > kMaxHeaderBytes) {
    return failed(Code::kUnsupported, position_, field,
                  "the header passes " + std::to_string(kMaxHeaderBytes >> 20) + " MiB");
  }
  const uint64_t target = std::min(file_bytes(), std::max({end, 2 * buffered_, kFirstReadBytes}));
  auto grown = std::make_unique_for_overwrite<std::byte[]>(target);
  if (buffered_ > 0) std::memcpy(grown.get(), buffer_.get(), buffered_);
  TANDEM_RETURN_IF_ERROR(file_.read_at(buffered_, {grown.get() + buffered_, target - buffered_}));
  buffer_ = std::move(grown);
  buffered_ = target;
  return ok_status();
}

Result<HeaderReader::Text> HeaderReader::read_text(std::string_view field, uint64_t max_bytes) {
  const uint64_t start = position_;
  TANDEM_ASSIGN_OR_RETURN(const uint64_t bytes, read<uint64_t>(field));
  if (bytes > remaining()) {
    return bad(start, field,
               "length " + std::to_string(bytes) + ", the file has " + std::to_string(remaining()) +
                   " more bytes");
  }
  if (bytes > max_bytes) {
    return bad(start, field,
               "length " + std::to_string(bytes) + ", at most " + std::to_string(max_bytes) +
                   " are allowed");
  }
  TANDEM_RETURN_IF_ERROR(need(bytes, field));
  const Text text{position_, bytes};
  position_ += bytes;
  return text;
}

Status HeaderReader::skip(uint64_t bytes, std::string_view field) {
  TANDEM_RETURN_IF_ERROR(need(bytes, field));
  position_ += bytes;
  return ok_status();
}

std::unique_ptr<const std::byte[]> HeaderReader::take_header() const {
  auto exact = std::make_unique_for_overwrite<std::byte[]>(position_);
  if (position_ > 0) std::memcpy(exact.get(), buffer_.get(), position_);
  return exact;
}

}  // namespace tandem

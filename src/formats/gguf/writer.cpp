#include "formats/gguf/writer.h"

#include <algorithm>
#include <array>
#include <optional>
#include <system_error>
#include <utility>

#include "base/bytes.h"
#include "base/checked.h"

namespace tandem {
namespace {

template <typename T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

void put_text(std::string& out, std::string_view text) {
  put<uint64_t>(out, text.size());
  out.append(text);
}

template <typename T>
void put_array(std::string& out, MetadataType type, std::span<const T> values) {
  put(out, static_cast<uint32_t>(type));
  put<uint64_t>(out, values.size());
  out.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
}

uint64_t padding_behind(uint64_t bytes) { return align_up(bytes, GgufWriter::kAlignment) - bytes; }

std::optional<uint64_t> tensor_bytes(DType type, std::span<const uint64_t> dims) {
  const DTypeInfo& info = dtype_info(type);
  if (dims.empty() || dims.size() > 4 || dims[0] % info.block_weights != 0) return std::nullopt;
  std::optional<uint64_t> bytes = checked_mul(dims[0] / info.block_weights, info.block_bytes);
  for (size_t i = 1; i < dims.size() && bytes; ++i) bytes = checked_mul(*bytes, dims[i]);
  if (!bytes || *bytes == 0 || *bytes > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return bytes;
}

}  // namespace

void GgufWriter::add_key(std::string_view key, MetadataType type) {
  put_text(metadata_, key);
  put(metadata_, static_cast<uint32_t>(type));
  ++n_metadata_;
}

void GgufWriter::add_string(std::string_view key, std::string_view value) {
  add_key(key, MetadataType::kString);
  put_text(metadata_, value);
}

void GgufWriter::add_bool(std::string_view key, bool value) {
  add_key(key, MetadataType::kBool);
  put<uint8_t>(metadata_, value ? 1 : 0);
}

void GgufWriter::add_u32(std::string_view key, uint32_t value) {
  add_key(key, MetadataType::kU32);
  put(metadata_, value);
}

void GgufWriter::add_f32(std::string_view key, float value) {
  add_key(key, MetadataType::kF32);
  put(metadata_, value);
}

void GgufWriter::add_strings(std::string_view key, std::span<const std::string> values) {
  add_key(key, MetadataType::kArray);
  put(metadata_, static_cast<uint32_t>(MetadataType::kString));
  put<uint64_t>(metadata_, values.size());
  for (const std::string& value : values) put_text(metadata_, value);
}

void GgufWriter::add_i32s(std::string_view key, std::span<const int32_t> values) {
  add_key(key, MetadataType::kArray);
  put_array(metadata_, MetadataType::kI32, values);
}

void GgufWriter::add_f32s(std::string_view key, std::span<const float> values) {
  add_key(key, MetadataType::kArray);
  put_array(metadata_, MetadataType::kF32, values);
}

Status GgufWriter::add_tensor(std::string_view name, DType type, std::span<const uint64_t> dims) {
  const auto bytes = tensor_bytes(type, dims);
  const auto end = bytes ? checked_add(weight_bytes_, *bytes) : std::nullopt;
  if (!end || *end > static_cast<uint64_t>(INT64_MAX) / 2) {
    return invalid_argument("tensor " + std::string(name) + ": the shape does not suit " +
                            std::string(dtype_info(type).name))
        .in_tensor(std::string(name));
  }
  if (name.empty() || !names_.emplace(name).second) {
    return invalid_argument("tensor " + std::string(name) + ": the name is empty or taken")
        .in_tensor(std::string(name));
  }
  tensors_.push_back({std::string(name), type, {dims.begin(), dims.end()}, *bytes, weight_bytes_});
  weight_bytes_ = align_up(*end, kAlignment);
  return ok_status();
}

std::string GgufWriter::header() const {
  std::string out = "GGUF";
  put<uint32_t>(out, 3);
  put<uint64_t>(out, tensors_.size());
  put(out, n_metadata_);
  out += metadata_;
  for (const Tensor& tensor : tensors_) {
    put_text(out, tensor.name);
    put(out, static_cast<uint32_t>(tensor.dims.size()));
    for (uint64_t dim : tensor.dims) put(out, dim);
    put(out, static_cast<uint32_t>(tensor.type));
    put(out, tensor.offset);
  }
  out.append(padding_behind(out.size()), '\0');
  return out;
}

uint64_t GgufWriter::file_bytes() const { return header().size() + weight_bytes_; }

Status GgufWriter::check_free_space() const {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::path(path_).parent_path();
  const auto space = std::filesystem::space(folder.empty() ? "." : folder, error);
  const uint64_t needed = file_bytes();
  if (error || space.available >= needed)
    return ok_status();  // creating the file says what is wrong
  return io_error(path_ + ": needs " + std::to_string(needed) + " bytes (" + format_bytes(needed) +
                  "), " + format_bytes(space.available) + " are free on this drive")
      .in_file(path_)
      .with_bytes(needed, space.available);
}

// A full drive's error says what the whole file needs and what is free.
Status GgufWriter::with_space(const Status& status) const {
  if (status.ok() || !file_->drive_is_full()) return status;
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::path(path_).parent_path();
  const auto space = std::filesystem::space(folder.empty() ? "." : folder, error);
  return status.with_bytes(file_bytes(), error ? 0 : space.available);
}

Status GgufWriter::begin_unchecked() {
  TANDEM_RETURN_IF_ERROR(check_free_space());
  TANDEM_ASSIGN_OR_RETURN(file_, AtomicFile::create(path_));
  const std::string text = header();
  return write(std::as_bytes(std::span(text)));
}

Status GgufWriter::begin() {
  if (!error_.ok()) return error_;
  TANDEM_ASSERT(!file_);
  error_ = begin_unchecked();
  if (!error_.ok()) file_.reset();
  return error_;
}

Status GgufWriter::write(std::span<const std::byte> bytes) {
  return with_space(file_->write(bytes));
}

Status GgufWriter::append(std::span<const std::byte> weights) {
  if (!error_.ok()) return error_;
  error_ = append_checked(weights);
  if (!error_.ok()) file_.reset();
  return error_;
}

Status GgufWriter::append_checked(std::span<const std::byte> weights) {
  static constexpr std::array<std::byte, kAlignment> kZeros = {};
  while (!weights.empty()) {
    if (!file_ || current_ == tensors_.size()) {
      return invalid_argument(path_ + ": more weights than were declared").in_file(path_);
    }
    const Tensor& tensor = tensors_[current_];
    const uint64_t n = std::min<uint64_t>(weights.size(), tensor.bytes - current_done_);
    TANDEM_RETURN_IF_ERROR(write(weights.first(n)));
    weights = weights.subspan(n);
    current_done_ += n;
    if (current_done_ < tensor.bytes) continue;
    TANDEM_RETURN_IF_ERROR(write(std::span(kZeros).first(padding_behind(tensor.bytes))));
    ++current_;
    current_done_ = 0;
  }
  return ok_status();
}

Status GgufWriter::finish() {
  if (!error_.ok()) return error_;
  if (!file_ || current_ != tensors_.size()) {
    error_ = invalid_argument(path_ + ": weights of tensor " +
                              (current_ < tensors_.size() ? tensors_[current_].name : "") +
                              " are missing")
                 .in_file(path_);
  } else {
    error_ = with_space(file_->commit());
  }
  file_.reset();
  return error_;
}

}  // namespace tandem

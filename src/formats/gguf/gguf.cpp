#include "formats/gguf/gguf.h"

#include <algorithm>
#include <utility>

#include "formats/gguf/builder.h"
#include "formats/gguf/header_reader.h"
#include "formats/gguf/values.h"

namespace tandem {
namespace {

// Places 0..n-1 ordered by the name that name_of(place) gives; equal names by place.
template <typename NameOf>
std::vector<uint32_t> order_by_name(size_t n, NameOf name_of) {
  std::vector<uint32_t> order(n);
  for (uint32_t i = 0; i < n; ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return name_of(a) < name_of(b); });
  return order;
}

template <typename NameOf>
const uint32_t* find_by_name(const std::vector<uint32_t>& order, std::string_view name,
                             NameOf name_of) {
  const auto it = std::lower_bound(order.begin(), order.end(), name,
                                   [&](uint32_t i, std::string_view n) { return name_of(i) < n; });
  return it != order.end() && name_of(*it) == name ? &*it : nullptr;
}

}  // namespace

Result<GgufFile> GgufFile::Builder::join(std::vector<std::string> paths,
                                         std::vector<GgufPart> parts) {
  GgufFile file;
  file.version_ = parts.front().version;
  file.metadata_ = std::move(parts.front().metadata);
  for (uint32_t i = 0; i < parts.size(); ++i) {
    file.file_bytes_ += parts[i].file_bytes;
    file.identities_.push_back(parts[i].identity);
    file.headers_.push_back(std::move(parts[i].header));
    for (TensorInfo& tensor : parts[i].tensors) {
      tensor.extent.file_index = i;
      file.tensors_.push_back(tensor);
    }
  }
  file.paths_ = std::move(paths);
  const auto tensor_name = [&](uint32_t i) { return file.tensors_[i].name; };
  file.tensors_by_name_ = order_by_name(file.tensors_.size(), tensor_name);
  file.metadata_by_key_ =
      order_by_name(file.metadata_.size(), [&](uint32_t i) { return file.metadata_[i].key; });
  const auto& order = file.tensors_by_name_;
  for (size_t i = 1; i < order.size(); ++i) {
    if (tensor_name(order[i]) != tensor_name(order[i - 1])) continue;
    const TensorInfo& first = file.tensors_[order[i - 1]];
    const TensorInfo& second = file.tensors_[order[i]];
    const std::string& path = file.paths_[second.extent.file_index];
    return corrupt(path + ": tensor " + quoted(second.name) + " with weights at byte " +
                   std::to_string(second.extent.offset) +
                   ": the name stands twice; the first is in " +
                   file.paths_[first.extent.file_index] + " at byte " +
                   std::to_string(first.extent.offset))
        .in_file(path)
        .in_tensor(std::string(second.name))
        .at_offset(second.extent.offset);
  }
  return file;
}

const TensorInfo* GgufFile::find_tensor(std::string_view name) const {
  const uint32_t* place =
      find_by_name(tensors_by_name_, name, [&](uint32_t i) { return tensors_[i].name; });
  return place == nullptr ? nullptr : &tensors_[*place];
}

const TensorInfo* GgufFile::tensor_at(uint32_t file_index, uint64_t offset) const {
  for (const TensorInfo& tensor : tensors_) {
    const Extent& extent = tensor.extent;
    if (extent.file_index == file_index && offset >= extent.offset &&
        offset - extent.offset < extent.bytes) {
      return &tensor;
    }
  }
  return nullptr;
}

const MetadataEntry* GgufFile::find(std::string_view key) const {
  const uint32_t* place =
      find_by_name(metadata_by_key_, key, [&](uint32_t i) { return metadata_[i].key; });
  return place == nullptr ? nullptr : &metadata_[*place];
}

Result<const MetadataEntry*> GgufFile::entry(std::string_view key) const {
  const MetadataEntry* found = find(key);
  if (found != nullptr) return found;
  return not_found(paths_.front() + ": metadata key " + quoted(key) + " is missing")
      .in_file(paths_.front());
}

Status GgufFile::wrong_type(const MetadataEntry& entry, std::string_view expected) const {
  const bool scalar_number =
      entry.type != MetadataType::kArray && entry.type != MetadataType::kString;
  return corrupt(paths_.front() + ": metadata " + quoted(entry.key) + " at byte " +
                 std::to_string(entry.byte_offset) + ": expected " + std::string(expected) +
                 ", found " + entry.type_text() + (scalar_number ? " " + entry.printable() : ""))
      .in_file(paths_.front())
      .at_offset(entry.byte_offset);
}

Result<std::string_view> GgufFile::get_string(std::string_view key) const {
  TANDEM_ASSIGN_OR_RETURN(const MetadataEntry* found, entry(key));
  if (found->type != MetadataType::kString) return wrong_type(*found, "a string");
  return std::string_view(reinterpret_cast<const char*>(found->bytes.data()), found->bytes.size());
}

Result<uint64_t> GgufFile::get_uint(std::string_view key) const {
  TANDEM_ASSIGN_OR_RETURN(const MetadataEntry* found, entry(key));
  const auto value = load_uint(found->type, found->bytes.data());
  if (!value) return wrong_type(*found, "a non-negative integer");
  return *value;
}

Result<int64_t> GgufFile::get_int(std::string_view key) const {
  TANDEM_ASSIGN_OR_RETURN(const MetadataEntry* found, entry(key));
  const auto value = load_int(found->type, found->bytes.data());
  if (!value) return wrong_type(*found, "a 64-bit integer");
  return *value;
}

Result<double> GgufFile::get_float(std::string_view key) const {
  TANDEM_ASSIGN_OR_RETURN(const MetadataEntry* found, entry(key));
  if (!is_number(found->type)) return wrong_type(*found, "a number");
  return load_float(found->type, found->bytes.data());
}

Result<bool> GgufFile::get_bool(std::string_view key) const {
  TANDEM_ASSIGN_OR_RETURN(const MetadataEntry* found, entry(key));
  if (found->type != MetadataType::kBool) return wrong_type(*found, "a bool");
  return found->bytes[0] != std::byte{0};
}

Result<std::vector<std::string_view>> GgufFile::get_string_array(std::string_view key) const {
  TANDEM_ASSIGN_OR_RETURN(const MetadataEntry* found, entry(key));
  if (found->type != MetadataType::kArray || found->element_type != MetadataType::kString) {
    return wrong_type(*found, "an array of strings");
  }
  std::vector<std::string_view> strings;
  strings.reserve(found->array_length);  // every element is at least 8 bytes that were read
  const std::byte* cursor = found->bytes.data();
  for (uint64_t i = 0; i < found->array_length; ++i) {
    const auto bytes = load_le<uint64_t>(cursor);
    strings.emplace_back(reinterpret_cast<const char*>(cursor) + 8, bytes);
    cursor += 8 + bytes;
  }
  return strings;
}

Result<std::vector<float>> GgufFile::get_float_array(std::string_view key) const {
  TANDEM_ASSIGN_OR_RETURN(const MetadataEntry* found, entry(key));
  if (found->type != MetadataType::kArray || !is_number(found->element_type)) {
    return wrong_type(*found, "an array of numbers");
  }
  std::vector<float> values(found->array_length);
  const uint64_t stride = metadata_type_bytes(found->element_type);
  for (uint64_t i = 0; i < values.size(); ++i) {
    values[i] =
        static_cast<float>(load_float(found->element_type, found->bytes.data() + i * stride));
  }
  return values;
}

Result<std::vector<int64_t>> GgufFile::get_int_array(std::string_view key) const {
  TANDEM_ASSIGN_OR_RETURN(const MetadataEntry* found, entry(key));
  if (found->type != MetadataType::kArray || !is_integer(found->element_type)) {
    return wrong_type(*found, "an array of integers");
  }
  std::vector<int64_t> values(found->array_length);
  const uint64_t stride = metadata_type_bytes(found->element_type);
  for (uint64_t i = 0; i < values.size(); ++i) {
    const auto value = load_int(found->element_type, found->bytes.data() + i * stride);
    if (!value) return wrong_type(*found, "an array of 64-bit integers");
    values[i] = *value;
  }
  return values;
}

}  // namespace tandem

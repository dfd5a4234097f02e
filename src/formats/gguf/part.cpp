#include "formats/gguf/part.h"

#include <algorithm>
#include <bit>
#include <string>
#include <utility>

#include "base/checked.h"
#include "base/utf8.h"
#include "formats/gguf/header_reader.h"
#include "formats/gguf/values.h"

namespace tandem {
namespace {

// The fewest bytes that one entry can take: what a count is compared with before it is believed.
constexpr uint64_t kMinMetadataBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;
constexpr uint64_t kDefaultAlignment = 32;

// While the buffer still moves, entries are kept as offsets.
struct RawEntry {
  HeaderReader::Text key;
  MetadataType type, element_type;
  uint64_t array_length, value_offset, bytes_offset, bytes;
};
struct RawTensor {
  HeaderReader::Text name;
  uint64_t info_offset;    // of the entry in the header
  uint64_t weight_offset;  // from the start of the weights
  TensorInfo info;
};

// UTF-8 without control characters.
bool is_clean_utf8(std::string_view text) {
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  return std::none_of(text.begin(), text.end(), is_control) && utf8::is_valid(text);
}

class PartReader {
 public:
  explicit PartReader(const ReadFile& file) : file_(file), reader_(file) {}

  Result<GgufPart> read() {
    TANDEM_RETURN_IF_ERROR(read_start());
    for (uint64_t i = 0; i < n_metadata_; ++i) TANDEM_RETURN_IF_ERROR(read_entry(i));
    for (uint64_t i = 0; i < n_tensors_; ++i) TANDEM_RETURN_IF_ERROR(read_tensor(i));
    reader_.set_context("");
    resolve();
    TANDEM_RETURN_IF_ERROR(check_keys());
    TANDEM_ASSIGN_OR_RETURN(const uint64_t alignment, read_alignment());
    TANDEM_RETURN_IF_ERROR(place_tensors(alignment));
    TANDEM_RETURN_IF_ERROR(check_overlaps());
    return std::move(part_);
  }

 private:
  Status read_start() {
    if (file_.size_bytes() == 0) {
      return corrupt(file_.path() + ": the file is empty").in_file(file_.path()).at_offset(0);
    }
    TANDEM_RETURN_IF_ERROR(read_magic());
    TANDEM_RETURN_IF_ERROR(read_version());
    TANDEM_ASSIGN_OR_RETURN(n_tensors_, read_count("tensor count", kMinTensorBytes, kMaxTensors));
    TANDEM_ASSIGN_OR_RETURN(n_metadata_,
                            read_count("metadata count", kMinMetadataBytes, kMaxMetadataEntries));
    return ok_status();
  }

  Status read_magic() {
    TANDEM_RETURN_IF_ERROR(reader_.skip(4, "magic"));
    const std::string_view magic = reader_.view({0, 4});
    if (magic == "GGUF") return ok_status();
    Status status = reader_.bad(0, "magic", "expected 'GGUF', found " + quoted(magic));
    if (magic == "vers")
      return status.suggest("this looks like a Git LFS pointer: fetch the file itself");
    if (magic == "<!DO" || magic == "<htm") {
      return status.suggest("this looks like a web page: download the file itself");
    }
    return status;
  }

  Status read_version() {
    TANDEM_ASSIGN_OR_RETURN(part_.version, reader_.read<uint32_t>("version"));
    if (part_.version == 2 || part_.version == 3) return ok_status();
    if ((part_.version & 0xffff) == 0 && part_.version != 0) {
      return reader_.failed(Code::kUnsupported, 4, "version",
                            "the file is big-endian; only little-endian files are read");
    }
    return reader_
        .failed(Code::kUnsupported, 4, "version",
                "GGUF version " + std::to_string(part_.version) + "; versions 2 and 3 are read")
        .suggest(part_.version == 1 ? "convert the model again with a current converter" : "");
  }

  Result<uint64_t> read_count(std::string_view field, uint64_t min_bytes_each, uint64_t limit) {
    const uint64_t offset = reader_.position();
    TANDEM_ASSIGN_OR_RETURN(const uint64_t count, reader_.read<uint64_t>(field));
    if (count > reader_.remaining() / min_bytes_each) {
      return reader_.bad(offset, field,
                         std::to_string(count) + " entries do not fit into the " +
                             std::to_string(reader_.remaining()) + " bytes that follow");
    }
    if (count > limit) {
      return reader_.failed(
          Code::kUnsupported, offset, field,
          std::to_string(count) + ", at most " + std::to_string(limit) + " are read");
    }
    return count;
  }

  Result<HeaderReader::Text> read_name(std::string_view field, uint64_t max_bytes) {
    const uint64_t offset = reader_.position();
    TANDEM_ASSIGN_OR_RETURN(const HeaderReader::Text text, reader_.read_text(field, max_bytes));
    if (text.bytes == 0) return reader_.bad(offset, field, "is empty");
    if (!is_clean_utf8(reader_.view(text))) {
      return reader_.bad(text.offset, field,
                         "holds control characters or is not UTF-8: " + quoted(reader_.view(text)));
    }
    return text;
  }

  Result<MetadataType> read_type(std::string_view field) {
    const uint64_t offset = reader_.position();
    TANDEM_ASSIGN_OR_RETURN(const uint32_t id, reader_.read<uint32_t>(field));
    const auto type = metadata_type(id);
    if (!type) return reader_.bad(offset, field, std::to_string(id) + " is no known type");
    return *type;
  }

  Status read_entry(uint64_t index) {
    reader_.set_context("metadata entry " + std::to_string(index));
    RawEntry entry = {};
    TANDEM_ASSIGN_OR_RETURN(entry.key, read_name("key", kMaxKeyBytes));
    reader_.set_context("metadata " + quoted(reader_.view(entry.key)));
    TANDEM_ASSIGN_OR_RETURN(entry.type, read_type("value type"));
    entry.value_offset = reader_.position();
    if (entry.type == MetadataType::kArray) {
      TANDEM_ASSIGN_OR_RETURN(entry.element_type, read_type("element type"));
      TANDEM_ASSIGN_OR_RETURN(entry.array_length, read_array_length(entry.element_type));
      entry.bytes_offset = reader_.position();
      TANDEM_RETURN_IF_ERROR(skip_elements(entry.element_type, entry.array_length, 1));
    } else {
      if (entry.type == MetadataType::kString) entry.bytes_offset = 8;  // behind the length
      entry.bytes_offset += reader_.position();
      TANDEM_RETURN_IF_ERROR(skip_elements(entry.type, 1, 0));
    }
    entry.bytes = reader_.position() - entry.bytes_offset;
    raw_entries_.push_back(entry);
    return ok_status();
  }

  Result<uint64_t> read_array_length(MetadataType element_type) {
    const uint64_t offset = reader_.position();
    TANDEM_ASSIGN_OR_RETURN(const uint64_t count, reader_.read<uint64_t>("array length"));
    uint64_t min_bytes = metadata_type_bytes(element_type);
    if (element_type == MetadataType::kString) min_bytes = 8;
    if (element_type == MetadataType::kArray) min_bytes = 12;
    if (count > reader_.remaining() / min_bytes) {
      return reader_.bad(offset, "array length",
                         std::to_string(count) + " elements, the file has " +
                             std::to_string(reader_.remaining()) + " more bytes");
    }
    return count;
  }

  // Requires: count was checked by read_array_length, so that count times the size cannot overflow.
  Status skip_elements(MetadataType type, uint64_t count, int depth) {
    switch (type) {
      case MetadataType::kString:
        for (uint64_t i = 0; i < count; ++i) {
          TANDEM_RETURN_IF_ERROR(reader_.read_text("string", UINT64_MAX).status());
        }
        return ok_status();
      case MetadataType::kArray:
        return skip_arrays(count, depth);
      case MetadataType::kBool:
        return skip_bools(count);
      default:
        return reader_.skip(count * metadata_type_bytes(type), "value");
    }
  }

  Status skip_arrays(uint64_t count, int depth) {
    if (depth >= kMaxArrayDepth) {
      return reader_.failed(Code::kUnsupported, reader_.position(), "array",
                            "arrays nest deeper than " + std::to_string(kMaxArrayDepth));
    }
    for (uint64_t i = 0; i < count; ++i) {
      TANDEM_ASSIGN_OR_RETURN(const MetadataType type, read_type("element type"));
      TANDEM_ASSIGN_OR_RETURN(const uint64_t length, read_array_length(type));
      TANDEM_RETURN_IF_ERROR(skip_elements(type, length, depth + 1));
    }
    return ok_status();
  }

  Status skip_bools(uint64_t count) {
    const uint64_t start = reader_.position();
    TANDEM_RETURN_IF_ERROR(reader_.skip(count, "value"));
    for (uint64_t i = 0; i < count; ++i) {
      const auto value = static_cast<unsigned>(*reader_.at(start + i));
      if (value > 1) {
        return reader_.bad(start + i, "value", "a bool is 0 or 1, found " + std::to_string(value));
      }
    }
    return ok_status();
  }

  Status read_tensor(uint64_t index) {
    reader_.set_context("tensor " + std::to_string(index));
    RawTensor tensor = {};
    tensor.info_offset = reader_.position();
    TANDEM_ASSIGN_OR_RETURN(tensor.name, read_name("name", kMaxTensorNameBytes));
    reader_.set_context("tensor " + quoted(reader_.view(tensor.name)));
    TANDEM_RETURN_IF_ERROR(read_shape(tensor.info));
    tensor.weight_offset = 0;
    TANDEM_RETURN_IF_ERROR(read_format(tensor.info));
    TANDEM_ASSIGN_OR_RETURN(tensor.weight_offset, reader_.read<uint64_t>("offset"));
    raw_tensors_.push_back(tensor);
    return ok_status();
  }

  Status read_shape(TensorInfo& info) {
    const uint64_t offset = reader_.position();
    TANDEM_ASSIGN_OR_RETURN(info.n_dims, reader_.read<uint32_t>("number of dimensions"));
    if (info.n_dims < 1 || info.n_dims > 4) {
      return reader_.bad(offset, "number of dimensions",
                         "1 to 4 are possible, found " + std::to_string(info.n_dims));
    }
    uint64_t weights = 1;
    for (uint32_t i = 0; i < info.n_dims; ++i) {
      const uint64_t dim_offset = reader_.position();
      TANDEM_ASSIGN_OR_RETURN(info.dims[i], reader_.read<uint64_t>("dimension"));
      const auto product = checked_mul(weights, info.dims[i]);
      if (info.dims[i] == 0 || !product || *product > static_cast<uint64_t>(INT64_MAX)) {
        return reader_.bad(dim_offset, "dimension",
                           info.dims[i] == 0 ? "is 0"
                                             : "with " + std::to_string(info.dims[i]) +
                                                   " the number of weights overflows");
      }
      weights = *product;
    }
    return ok_status();
  }

  Status read_format(TensorInfo& info) {
    const uint64_t offset = reader_.position();
    TANDEM_ASSIGN_OR_RETURN(const uint32_t id, reader_.read<uint32_t>("number format"));
    const auto type = dtype_info(id);
    if (!type) {
      return reader_.bad(offset, "number format",
                         std::to_string(id) + " is unknown or was retired from the format");
    }
    info.type = *type;
    if (info.dims[0] % type->block_weights != 0) {
      return reader_.bad(offset, "number format",
                         std::string(type->name) + " needs rows of whole blocks of " +
                             std::to_string(type->block_weights) + ", a row has " +
                             std::to_string(info.dims[0]));
    }
    const auto bytes =
        checked_mul(info.dims[0] / type->block_weights * info.rows(), type->block_bytes);
    if (!bytes || *bytes > static_cast<uint64_t>(INT64_MAX)) {
      return reader_.bad(offset, "number format", "the size in bytes overflows");
    }
    info.bytes = *bytes;
    return ok_status();
  }

  // From offsets to views into the final copy of the header.
  void resolve() {
    part_.file_bytes = file_.size_bytes();
    part_.identity = file_.identity();
    part_.header = reader_.take_header();
    const std::byte* base = part_.header.get();
    const auto text = [base](HeaderReader::Text t) {
      return std::string_view(reinterpret_cast<const char*>(base) + t.offset, t.bytes);
    };
    part_.metadata.reserve(raw_entries_.size());
    for (const RawEntry& raw : raw_entries_) {
      part_.metadata.push_back(MetadataEntry{text(raw.key),
                                             raw.type,
                                             raw.element_type,
                                             raw.array_length,
                                             raw.value_offset,
                                             {base + raw.bytes_offset, raw.bytes}});
    }
    part_.tensors.reserve(raw_tensors_.size());
    for (const RawTensor& raw : raw_tensors_) {
      part_.tensors.push_back(raw.info);
      part_.tensors.back().name = text(raw.name);
    }
  }

  Status check_keys() {
    std::vector<const MetadataEntry*> sorted;
    for (const MetadataEntry& entry : part_.metadata) sorted.push_back(&entry);
    std::sort(sorted.begin(), sorted.end(), [](const MetadataEntry* a, const MetadataEntry* b) {
      return a->key != b->key ? a->key < b->key : a->byte_offset < b->byte_offset;
    });
    for (size_t i = 1; i < sorted.size(); ++i) {
      if (sorted[i]->key != sorted[i - 1]->key) continue;
      return reader_.bad(sorted[i]->byte_offset, "metadata " + quoted(sorted[i]->key),
                         "the key stands twice; its first value is at byte " +
                             std::to_string(sorted[i - 1]->byte_offset));
    }
    return ok_status();
  }

  Result<uint64_t> read_alignment() {
    const MetadataEntry* entry = part_.find("general.alignment");
    if (entry == nullptr) return kDefaultAlignment;
    const auto value = load_uint(entry->type, entry->bytes.data());
    if (!value || !std::has_single_bit(*value) || *value > kMaxAlignment) {
      return reader_.bad(entry->byte_offset, "metadata 'general.alignment'",
                         "expected a power of two up to " + std::to_string(kMaxAlignment) +
                             ", found " + entry->type_text() + " " + entry->printable(40));
    }
    return *value;
  }

  Status place_tensors(uint64_t alignment) {
    if (raw_tensors_.empty()) return ok_status();
    const auto weights_start = checked_align_up(reader_.position(), alignment);
    for (size_t i = 0; i < raw_tensors_.size(); ++i) {
      TensorInfo& tensor = part_.tensors[i];
      const RawTensor& raw = raw_tensors_[i];
      const auto problem = [&](std::string text) {
        return reader_.bad(raw.info_offset, "tensor " + quoted(tensor.name), std::move(text))
            .in_tensor(std::string(tensor.name));
      };
      if (raw.weight_offset % alignment != 0) {
        return problem("offset " + std::to_string(raw.weight_offset) +
                       " is not a multiple of the alignment " + std::to_string(alignment));
      }
      const auto start = checked_add(*weights_start, raw.weight_offset);
      const auto end = start ? checked_add(*start, tensor.bytes) : std::nullopt;
      if (!end) {
        return problem("offset " + std::to_string(raw.weight_offset) + " and size " +
                       std::to_string(tensor.bytes) + " overflow");
      }
      if (*end > part_.file_bytes) return cut_short(tensor, *end);
      tensor.extent = Extent{0, *start, tensor.bytes};
    }
    return ok_status();
  }

  Status cut_short(const TensorInfo& tensor, uint64_t end) const {
    return corrupt(file_.path() + ": tensor " + std::string(tensor.name) + " ends at byte " +
                   std::to_string(end) + ", the file has " + std::to_string(part_.file_bytes) +
                   ". The download is incomplete.")
        .in_file(file_.path())
        .in_tensor(std::string(tensor.name))
        .at_offset(part_.file_bytes)
        .with_bytes(end, part_.file_bytes)
        .suggest("continue or repeat the download");
  }

  Status check_overlaps() {
    std::vector<uint32_t> order(part_.tensors.size());
    for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
      return part_.tensors[a].extent.offset < part_.tensors[b].extent.offset;
    });
    for (size_t i = 1; i < order.size(); ++i) {
      const TensorInfo& before = part_.tensors[order[i - 1]];
      const TensorInfo& after = part_.tensors[order[i]];
      if (before.extent.offset + before.bytes <= after.extent.offset) continue;
      return reader_
          .bad(raw_tensors_[order[i]].info_offset, "tensor " + quoted(after.name),
               "starts at byte " + std::to_string(after.extent.offset) + ", inside tensor " +
                   quoted(before.name))
          .in_tensor(std::string(after.name));
    }
    return ok_status();
  }

  const ReadFile& file_;
  HeaderReader reader_;
  uint64_t n_tensors_ = 0, n_metadata_ = 0;
  std::vector<RawEntry> raw_entries_;
  std::vector<RawTensor> raw_tensors_;
  GgufPart part_;
};

}  // namespace

const MetadataEntry* GgufPart::find(std::string_view key) const {
  for (const MetadataEntry& entry : metadata) {
    if (entry.key == key) return &entry;
  }
  return nullptr;
}

Result<GgufPart> read_gguf_part(const ReadFile& file) { return PartReader(file).read(); }

}  // namespace tandem

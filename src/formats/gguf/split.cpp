// Opening a model: one file, or all parts of a split one.
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <optional>
#include <utility>

#include "formats/gguf/builder.h"
#include "formats/gguf/header_reader.h"
#include "formats/gguf/values.h"

namespace tandem {
namespace {

constexpr uint32_t kMaxParts = 99999;  // five digits

// "<stem>-00002-of-00005.gguf"
struct PartName {
  std::string stem;  // with its folder
  uint32_t number = 0, count = 0;

  std::string path_of(uint32_t part) const {
    char suffix[32];
    std::snprintf(suffix, sizeof(suffix), "-%05u-of-%05u.gguf", part, count);
    return stem + suffix;
  }
};

std::optional<PartName> part_name(const std::string& path) {
  constexpr std::string_view kPattern = "-00000-of-00000.gguf";
  if (path.size() <= kPattern.size()) return std::nullopt;
  const std::string_view suffix = std::string_view(path).substr(path.size() - kPattern.size());
  for (size_t i = 0; i < kPattern.size(); ++i) {
    const bool digit = suffix[i] >= '0' && suffix[i] <= '9';
    if (kPattern[i] == '0' ? !digit : suffix[i] != kPattern[i]) return std::nullopt;
  }
  PartName name{path.substr(0, path.size() - kPattern.size())};
  std::from_chars(suffix.data() + 1, suffix.data() + 6, name.number);
  std::from_chars(suffix.data() + 10, suffix.data() + 15, name.count);
  return name;
}

// A bad value of one of the split.* keys.
Status bad_split(const std::string& path, const MetadataEntry& entry, const std::string& expected) {
  return corrupt(path + ": metadata " + quoted(entry.key) + " at byte " +
                 std::to_string(entry.byte_offset) + ": expected " + expected + ", found " +
                 entry.type_text() + " " + entry.printable(40))
      .in_file(path)
      .at_offset(entry.byte_offset);
}

// 1 for a file that is whole.
Result<uint32_t> part_count(const std::string& path, const GgufPart& part) {
  const MetadataEntry* entry = part.find("split.count");
  if (entry == nullptr) return 1u;
  const auto count = load_uint(entry->type, entry->bytes.data());
  if (!count || *count > kMaxParts) return bad_split(path, *entry, "a number of files");
  return std::max(1u, static_cast<uint32_t>(*count));
}

Status check_part(const std::string& path, const GgufPart& part, uint32_t index, uint32_t count) {
  const MetadataEntry* count_entry = part.find("split.count");
  const MetadataEntry* number_entry = part.find("split.no");
  if (count_entry == nullptr || number_entry == nullptr) {
    return corrupt(path + ": is no part of a split model: split.no or split.count is missing")
        .in_file(path);
  }
  TANDEM_ASSIGN_OR_RETURN(const uint32_t found_count, part_count(path, part));
  if (found_count != count) {
    return bad_split(path, *count_entry, std::to_string(count) + " as in the file's name");
  }
  const auto number = load_uint(number_entry->type, number_entry->bytes.data());
  if (number != index) {
    return bad_split(path, *number_entry, std::to_string(index) + " as in the file's name");
  }
  return ok_status();
}

Status check_total(const std::string& path, const std::vector<GgufPart>& parts) {
  const MetadataEntry* entry = parts.front().find("split.tensors.count");
  if (entry == nullptr) return ok_status();
  uint64_t found = 0;
  for (const GgufPart& part : parts) found += part.tensors.size();
  if (load_uint(entry->type, entry->bytes.data()) == found) return ok_status();
  return bad_split(path, *entry, std::to_string(found) + ", the number of tensors in all parts");
}

Result<GgufPart> open_part(const std::string& path, const OpenReadFile& open_file) {
  TANDEM_ASSIGN_OR_RETURN(const std::unique_ptr<ReadFile> file,
                          open_file(path, ReadFile::Mode::kBuffered));
  return read_gguf_part(*file);
}

Result<GgufFile> open_parts(const PartName& name, const OpenReadFile& open_file) {
  std::vector<std::string> paths;
  std::vector<GgufPart> parts;
  for (uint32_t i = 0; i < name.count; ++i) {
    paths.push_back(name.path_of(i + 1));
    Result<GgufPart> part = open_part(paths.back(), open_file);
    if (part.status().code() == Code::kNotFound) {
      return not_found(paths.back() + ": part " + std::to_string(i + 1) + " of " +
                       std::to_string(name.count) + " of this model is missing")
          .in_file(paths.back())
          .suggest("download the missing part into the same folder");
    }
    if (!part.ok()) return part.status();
    TANDEM_RETURN_IF_ERROR(check_part(paths.back(), *part, i, name.count));
    parts.push_back(std::move(part).value());
  }
  TANDEM_RETURN_IF_ERROR(check_total(paths.front(), parts));
  return GgufFile::Builder::join(std::move(paths), std::move(parts));
}

// A file that lies in memory, for GgufFile::parse.
class MemoryFile final : public ReadFile {
 public:
  MemoryFile(std::string name, std::span<const std::byte> bytes)
      : ReadFile(std::move(name), bytes.size(), Mode::kBuffered, 1), bytes_(bytes) {}

  Status read_at(uint64_t offset, std::span<std::byte> buffer) const override {
    TANDEM_ASSERT(offset <= bytes_.size() && buffer.size() <= bytes_.size() - offset);
    std::memcpy(buffer.data(), bytes_.data() + offset, buffer.size());
    return ok_status();
  }
  double cached_share() const override { return 1.0; }

 private:
  std::span<const std::byte> bytes_;
};

template <typename T>
std::vector<T> list_of_one(T value) {
  std::vector<T> list;
  list.push_back(std::move(value));
  return list;
}

}  // namespace

Result<GgufFile> GgufFile::open(const std::filesystem::path& path, const OpenReadFile& open_file) {
  const std::string text = path.string();
  TANDEM_ASSIGN_OR_RETURN(GgufPart part, open_part(text, open_file));
  TANDEM_ASSIGN_OR_RETURN(const uint32_t count, part_count(text, part));
  if (count == 1) return Builder::join({text}, list_of_one(std::move(part)));
  const auto name = part_name(text);
  if (!name || name->number < 1 || name->number > name->count || name->count != count) {
    return invalid_argument(text + ": is one of " + std::to_string(count) +
                            " parts, but its name does not say which")
        .in_file(text)
        .suggest("restore the name, which ends in " + PartName{"", 0, count}.path_of(1));
  }
  return open_parts(*name, open_file);
}

Result<GgufFile> GgufFile::parse(std::span<const std::byte> file, std::string name) {
  const MemoryFile memory(name, file);
  TANDEM_ASSIGN_OR_RETURN(GgufPart part, read_gguf_part(memory));
  TANDEM_ASSIGN_OR_RETURN(const uint32_t count, part_count(name, part));
  if (count > 1) {
    return unsupported(name + ": is one of " + std::to_string(count) + " parts").in_file(name);
  }
  return Builder::join({std::move(name)}, list_of_one(std::move(part)));
}

}  // namespace tandem

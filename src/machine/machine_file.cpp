// Machine files: Machine::to_json and Machine::from_json.  The format is written out in
// docs/machine-file.md.  Files come from strangers: size, depth, types and ranges are checked.

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/bytes.h"
#include "machine/machine.h"

namespace tandem {
namespace {

// Written in the order of the page; read into sorted objects, because in an ordered one each of a stranger's keys is
// compared with all before it.
using Json = nlohmann::ordered_json;
using ReadJson = nlohmann::json;

constexpr size_t kMaxTextBytes = 4 << 20;
constexpr int kMaxDepth = 16;
constexpr size_t kMaxItems = 4096;
constexpr size_t kMaxStringBytes = 1024;
constexpr uint64_t kMaxBytes = uint64_t{1} << 60;
constexpr uint64_t kMaxId = 65535;

constexpr std::array<const char*, 3> kCoreKinds = {"uniform", "performance", "efficiency"};
constexpr std::array<const char*, 4> kTransparent = {"unknown", "never", "madvise", "always"};

// ---------------------------------------------------------------- writing

Json json_of(const Core& core) {
  return {{"package", core.package},
          {"numa_node", core.numa_node},
          {"kind", kCoreKinds[static_cast<size_t>(core.kind)]},
          {"threads", core.threads}};
}

Json json_of(const Cache& cache) {
  return {{"level", cache.level},
          {"bytes", cache.bytes},
          {"reported_bytes", cache.reported_bytes},
          {"count", cache.count},
          {"cores_sharing", cache.cores_sharing}};
}

Json json_of(const NumaNode& node) {
  return {{"id", node.id}, {"bytes", node.bytes}, {"has_cores", node.has_cores}};
}

Json json_of(const Drive& drive) {
  return {{"name", drive.name},
          {"model", drive.model},
          {"bytes", drive.bytes},
          {"rotational", drive.rotational},
          {"mount_points", drive.mount_points}};
}

Json json_of(const Machine::Limits& limits) {
  Json json = {{"allowed_threads", limits.allowed_threads}};
  if (limits.cpu_quota) json["cpu_quota"] = *limits.cpu_quota;
  if (limits.memory_limit_bytes) json["memory_limit_bytes"] = *limits.memory_limit_bytes;
  return json;
}

template <typename T>
Json list_of(const std::vector<T>& items) {
  Json list = Json::array();
  for (const T& item : items) list.push_back(json_of(item));
  return list;
}

// ---------------------------------------------------------------- reading

// One value with its place in the file, and the first error anywhere below it.  After an error every
// getter returns zero or nothing, so that a reader is a plain list of fields.
class Field {
 public:
  Field(const ReadJson* json, std::string path, Status* error)
      : json_(json), path_(std::move(path)), error_(error) {}

  bool present() const { return json_ != nullptr && !json_->is_null(); }

  // A member that may be missing.
  Field operator[](const char* name) const {
    const std::string path = path_.empty() ? name : path_ + "." + name;
    if (!present()) return Field(nullptr, path, error_);
    if (!json_->is_object()) {
      fail("an object");
      return Field(nullptr, path, error_);
    }
    const auto found = json_->find(name);
    return Field(found == json_->end() ? nullptr : &*found, path, error_);
  }

  uint64_t number(uint64_t least, uint64_t most) const {
    if (present() && json_->is_number_unsigned()) {
      const auto value = json_->get<uint64_t>();
      if (value >= least && value <= most) return value;
    }
    fail("an integer from " + std::to_string(least) + " to " + std::to_string(most));
    return least;
  }
  unsigned small(uint64_t least, uint64_t most) const {
    return static_cast<unsigned>(number(least, most));
  }
  double real(double most) const {
    const double value = present() && json_->is_number() ? json_->get<double>() : -1;
    if (std::isfinite(value) && value > 0 && value <= most) return value;
    fail("a number above 0, at most " + std::to_string(most));
    return 0;
  }
  bool boolean() const {
    if (present() && json_->is_boolean()) return json_->get<bool>();
    fail("true or false");
    return false;
  }
  std::string text() const {
    if (present() && json_->is_string()) {
      const auto& value = json_->get_ref<const std::string&>();
      if (value.size() <= kMaxStringBytes) return value;
    }
    fail("a text of at most " + std::to_string(kMaxStringBytes) + " bytes");
    return "";
  }
  // The position of a text in a list of names.
  template <size_t N>
  size_t one_of(const std::array<const char*, N>& names) const {
    const std::string value = text();
    for (size_t i = 0; i < N; ++i) {
      if (value == names[i]) return i;
    }
    std::string expected = "one of";
    for (const char* name : names) expected += " " + std::string(name);
    fail(expected);
    return 0;
  }
  std::vector<Field> list() const {
    std::vector<Field> items;
    if (!present() || !json_->is_array() || json_->size() > kMaxItems) {
      fail("a list of at most " + std::to_string(kMaxItems));
      return items;
    }
    for (size_t i = 0; i < json_->size(); ++i) {
      items.emplace_back(&(*json_)[i], path_ + "[" + std::to_string(i) + "]", error_);
    }
    return items;
  }

  void fail(const std::string& expected) const {
    if (!error_->ok()) return;
    const std::string found = json_ == nullptr
                                  ? "nothing"
                                  : json_->dump(-1, ' ', true, ReadJson::error_handler_t::replace);
    *error_ = corrupt("machine file: " + path_ + ": expected " + expected + ", found " +
                      found.substr(0, 40));
  }

 private:
  const ReadJson* json_;
  std::string path_;
  Status* error_;
};

std::vector<unsigned> read_ids(const Field& field) {
  std::vector<unsigned> ids;
  for (const Field& item : field.list()) ids.push_back(item.small(0, kMaxId));
  return ids;
}

std::vector<std::string> read_texts(const Field& field) {
  std::vector<std::string> texts;
  for (const Field& item : field.list()) texts.push_back(item.text());
  return texts;
}

Core read_core(const Field& field) {
  Core core;
  core.package = field["package"].small(0, kMaxId);
  core.numa_node = field["numa_node"].small(0, kMaxId);
  core.kind = static_cast<CoreKind>(field["kind"].one_of(kCoreKinds));
  core.threads = read_ids(field["threads"]);
  if (core.threads.empty()) field["threads"].fail("at least one thread");
  return core;
}

Cache read_cache(const Field& field) {
  Cache cache;
  cache.level = field["level"].small(1, 4);
  cache.bytes = field["bytes"].number(1, kMaxBytes);
  cache.reported_bytes = field["reported_bytes"].number(cache.bytes, kMaxBytes);
  cache.count = field["count"].small(1, kMaxId);
  cache.cores_sharing = field["cores_sharing"].small(1, kMaxId);
  return cache;
}

NumaNode read_numa_node(const Field& field) {
  return {field["id"].small(0, kMaxId), field["bytes"].number(0, kMaxBytes),
          field["has_cores"].boolean()};
}

Drive read_drive(const Field& field) {
  Drive drive;
  drive.name = field["name"].text();
  drive.model = field["model"].text();
  drive.bytes = field["bytes"].number(0, kMaxBytes);
  drive.rotational = field["rotational"].boolean();
  drive.mount_points = read_texts(field["mount_points"]);
  return drive;
}

Topology read_topology(const Field& file) {
  Topology topology;
  for (const Field& item : file["cores"].list()) topology.cores.push_back(read_core(item));
  if (topology.cores.empty()) file["cores"].fail("at least one core");
  for (const Field& item : file["caches"].list()) topology.caches.push_back(read_cache(item));
  for (const Field& item : file["numa_nodes"].list()) {
    topology.numa_nodes.push_back(read_numa_node(item));
  }
  std::set<unsigned> seen;
  for (size_t i = 0; i < topology.cores.size(); ++i) {
    for (unsigned thread : topology.cores[i].threads) {
      if (!seen.insert(thread).second) {
        file["cores"].list()[i].fail("threads of no other core");
        return topology;
      }
    }
  }
  return topology;
}

Machine::Limits read_limits(const Field& field) {
  Machine::Limits limits;
  if (!field.present()) return limits;
  if (field["allowed_threads"].present()) {
    limits.allowed_threads = read_ids(field["allowed_threads"]);
    std::sort(limits.allowed_threads.begin(), limits.allowed_threads.end());
  }
  if (field["cpu_quota"].present()) limits.cpu_quota = field["cpu_quota"].real(65536);
  if (field["memory_limit_bytes"].present()) {
    limits.memory_limit_bytes = field["memory_limit_bytes"].number(0, kMaxBytes);
  }
  return limits;
}

Machine read_machine(const Field& file) {
  Machine machine;
  machine.cpu.model = file["cpu"]["model"].text();
  machine.cpu.vendor = file["cpu"]["vendor"].text();
  machine.cpu.instruction_sets = read_texts(file["cpu"]["instruction_sets"]);
  machine.cpu.hypervisor = file["cpu"]["hypervisor"].boolean();
  machine.topology = read_topology(file);
  machine.memory_bytes = file["memory_bytes"].number(0, kMaxBytes);
  machine.free_memory_bytes = file["free_memory_bytes"].number(
      0, machine.memory_bytes > 0 ? machine.memory_bytes : kMaxBytes);
  const Field pages = file["huge_pages"];
  machine.huge_pages.transparent =
      static_cast<HugePages::Transparent>(pages["transparent"].one_of(kTransparent));
  machine.huge_pages.page_bytes = pages["page_bytes"].number(0, kMaxBytes);
  machine.huge_pages.reserved_pages = pages["reserved_pages"].number(0, kMaxBytes);
  machine.huge_pages.free_pages = pages["free_pages"].number(0, kMaxBytes);
  for (const Field& item : file["drives"].list()) machine.drives.push_back(read_drive(item));
  machine.limits = read_limits(file["limits"]);
  if (file["notes"].present()) machine.notes = read_texts(file["notes"]);
  return machine;
}

Result<ReadJson> parse(std::string_view text) {
  if (text.size() > kMaxTextBytes) {
    return corrupt("machine file: " + format_bytes(text.size()) + ", at most " +
                   format_bytes(kMaxTextBytes) + " are read");
  }
  bool too_deep = false;
  const auto limit_depth = [&](int depth, ReadJson::parse_event_t, ReadJson&) {
    too_deep = too_deep || depth > kMaxDepth;
    return !too_deep;
  };
  try {
    ReadJson json = ReadJson::parse(text, limit_depth);
    if (too_deep) return corrupt("machine file: nested deeper than " + std::to_string(kMaxDepth));
    return json;
  } catch (const ReadJson::parse_error& error) {
    const uint64_t offset = error.byte == 0 ? 0 : error.byte - 1;
    return corrupt("machine file: not JSON at byte " + std::to_string(offset)).at_offset(offset);
  } catch (const ReadJson::exception&) {
    return corrupt("machine file: a number is out of range");
  }
}

}  // namespace

std::string Machine::to_json() const {
  const Json json = {
      {"tandem_machine", kFileVersion},
      {"cpu",
       {{"model", cpu.model},
        {"vendor", cpu.vendor},
        {"instruction_sets", cpu.instruction_sets},
        {"hypervisor", cpu.hypervisor}}},
      {"cores", list_of(topology.cores)},
      {"caches", list_of(topology.caches)},
      {"numa_nodes", list_of(topology.numa_nodes)},
      {"memory_bytes", memory_bytes},
      {"free_memory_bytes", free_memory_bytes},
      {"huge_pages",
       {{"transparent", kTransparent[static_cast<size_t>(huge_pages.transparent)]},
        {"page_bytes", huge_pages.page_bytes},
        {"reserved_pages", huge_pages.reserved_pages},
        {"free_pages", huge_pages.free_pages}}},
      {"drives", list_of(drives)},
      {"limits", json_of(limits)},
      {"notes", notes},
  };
  // Names that drives and mounts give themselves need not be UTF-8.
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<Machine> Machine::from_json(std::string_view text) {
  TANDEM_ASSIGN_OR_RETURN(const ReadJson json, parse(text));
  Status error;
  const Field file(&json, "", &error);
  if (!json.is_object()) return corrupt("machine file: the outermost value is not an object");
  const unsigned version = file["tandem_machine"].small(1, kMaxId);
  if (error.ok() && version > kFileVersion) {
    return unsupported("machine file: version " + std::to_string(version) + ", this tandem reads " +
                       std::to_string(kFileVersion));
  }
  if (!error.ok()) return error;
  Machine machine = read_machine(file);
  if (!error.ok()) return error;
  return machine;
}

}  // namespace tandem

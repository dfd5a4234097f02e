#include "machine/cgroup.h"

#include <algorithm>

#include "machine/system_files.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

// v1 writes "no limit" as the largest multiple of the page size below 2^63.
constexpr uint64_t kUnlimitedV1 = uint64_t{1} << 62;

template <typename T>
void tighten(std::optional<T>& limit, T value) {
  limit = limit ? std::min(*limit, value) : value;
}

// A limit file: a number, or nothing for "max", for a missing file, and with a note for garbage.
std::optional<uint64_t> read_limit(const fs::path& path, std::vector<std::string>& notes) {
  const auto text = read_system_text(path);
  if (!text || *text == "max") return std::nullopt;
  const auto value = parse_number(*text);
  if (!value) notes.push_back(path.string() + ": not a number, ignored");
  return value;
}

uint64_t file_cache_bytes(const fs::path& stat_path, const char* active, const char* inactive) {
  const std::string text = read_system_text(stat_path).value_or("");
  return number_after_key(text, active).value_or(0) + number_after_key(text, inactive).value_or(0);
}

void apply_memory(CgroupLimits& limits, uint64_t limit, std::optional<uint64_t> used,
                  uint64_t cache) {
  tighten(limits.memory_limit_bytes, limit);
  if (!used) return;
  const uint64_t held = *used - std::min(*used, cache);
  tighten(limits.memory_free_bytes, limit - std::min(limit, held));
}

void apply_memory_v2(CgroupLimits& limits, const fs::path& group) {
  auto limit = read_limit(group / "memory.max", limits.notes);
  const auto high = read_limit(group / "memory.high", limits.notes);
  if (high) tighten(limit, *high);
  if (!limit) return;
  apply_memory(limits, *limit, read_system_number(group / "memory.current"),
               file_cache_bytes(group / "memory.stat", "active_file", "inactive_file"));
}

void apply_memory_v1(CgroupLimits& limits, const fs::path& group) {
  const auto limit = read_limit(group / "memory.limit_in_bytes", limits.notes);
  if (!limit || *limit >= kUnlimitedV1) return;
  apply_memory(limits, *limit, read_system_number(group / "memory.usage_in_bytes"),
               file_cache_bytes(group / "memory.stat", "total_active_file", "total_inactive_file"));
}

void apply_quota(CgroupLimits& limits, std::optional<uint64_t> quota_us,
                 std::optional<uint64_t> period_us, const fs::path& where) {
  if (!quota_us || !period_us || *quota_us == 0 || *period_us == 0) {
    limits.notes.push_back(where.string() + ": not a processor quota, ignored");
    return;
  }
  tighten(limits.cpu_quota, static_cast<double>(*quota_us) / static_cast<double>(*period_us));
}

void apply_cpu_v2(CgroupLimits& limits, const fs::path& group) {
  const auto text = read_system_text(group / "cpu.max");  // "max 100000" or "150000 100000"
  if (!text) return;
  const std::vector<std::string_view> words = split(*text, ' ');
  if (!words.empty() && words[0] == "max") return;
  if (words.size() == 2) {
    apply_quota(limits, parse_number(words[0]), parse_number(words[1]), group / "cpu.max");
  } else {
    apply_quota(limits, std::nullopt, std::nullopt, group / "cpu.max");
  }
}

void apply_cpu_v1(CgroupLimits& limits, const fs::path& group) {
  const auto quota = read_system_text(group / "cpu.cfs_quota_us");  // "-1": none
  if (!quota || *quota == "-1") return;
  apply_quota(limits, parse_number(*quota), read_system_number(group / "cpu.cfs_period_us"),
              group / "cpu.cfs_quota_us");
}

bool lists(std::string_view comma_separated, std::string_view word) {
  const auto words = split(comma_separated, ',');
  return std::find(words.begin(), words.end(), word) != words.end();
}

// The group's path in a "hierarchy:controllers:path" file; "" controllers for v2.
std::optional<std::string> group_path(std::string_view text, std::string_view controller) {
  for (std::string_view line : split(text, '\n')) {
    const size_t first = line.find(':');
    const size_t second = first == line.npos ? line.npos : line.find(':', first + 1);
    if (second == line.npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const bool match = controller.empty() ? controllers.empty() : lists(controllers, controller);
    if (match) return std::string(line.substr(second + 1));
  }
  return std::nullopt;
}

// The process's group as a path below the mount.  A container that sees the host's paths has its own
// group mounted as the root: that part is taken off.  Parent steps lead out of the view: the root.
fs::path below_mount(const std::string& group, const std::string& mounted_root) {
  std::string path = group;
  const bool below = path == mounted_root || path.starts_with(mounted_root + "/");
  if (below) path.erase(0, mounted_root.size());
  const fs::path relative = fs::path(path).relative_path();
  for (const fs::path& part : relative) {
    if (part == "..") return {};
  }
  return relative;
}

// The group and its parents, up to the mount point.
std::vector<fs::path> groups_upwards(const fs::path& mount_point, const fs::path& relative) {
  std::vector<fs::path> groups = {mount_point};
  fs::path group = mount_point;
  for (const fs::path& part : relative) {
    group /= part;
    groups.push_back(group);
  }
  return groups;
}

}  // namespace

CgroupLimits read_cgroup_limits(const fs::path& root) {
  CgroupLimits limits;
  const std::string membership = read_system_text(root / "proc/self/cgroup").value_or("");
  const auto apply = [&](const Mount& mount, std::string_view controller, auto apply_group) {
    const auto group = group_path(membership, controller);
    if (!group) return;
    const fs::path mount_point = root / fs::path(mount.mount_point).relative_path();
    for (const fs::path& path : groups_upwards(mount_point, below_mount(*group, mount.root))) {
      apply_group(limits, path);
    }
  };
  for (const Mount& mount : read_mounts(root)) {
    if (mount.type == "cgroup2") {
      apply(mount, "", apply_memory_v2);
      apply(mount, "", apply_cpu_v2);
    } else if (mount.type == "cgroup") {
      if (lists(mount.options, "memory")) apply(mount, "memory", apply_memory_v1);
      if (lists(mount.options, "cpu")) apply(mount, "cpu", apply_cpu_v1);
    }
  }
  return limits;
}

}  // namespace tandem

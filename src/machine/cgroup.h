// What the control groups of this process, v1 or v2, allow it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace tandem {

struct CgroupLimits {
  // The tightest limit on the way up from the process's group (memory.max and memory.high).
  std::optional<uint64_t> memory_limit_bytes;
  // The least room any group on the way has left.  File cache counts as room: the kernel gives it
  // back before a limit hurts.  Not always the group with the tightest limit, as others share it.
  std::optional<uint64_t> memory_free_bytes;
  // Processors' worth of time, 1.5 for 150 ms per 100 ms.
  std::optional<double> cpu_quota;
  // What was there and could not be understood; such a limit is not applied.
  std::vector<std::string> notes;
};

// Reads <root>/proc/self/{cgroup,mountinfo} and the trees mounted below root.  Never fails: what is
// missing sets no limit.  Any thread.
CgroupLimits read_cgroup_limits(const std::filesystem::path& root = "/");

}  // namespace tandem

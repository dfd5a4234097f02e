// Drives with mounted file systems.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace tandem {

struct Drive {
  std::string name;   // "nvme0n1"
  std::string model;  // empty when it tells none
  uint64_t bytes = 0;
  bool rotational = false;
  std::vector<std::string> mount_points;

  bool operator==(const Drive&) const = default;
};

// From <root>/proc/self/mountinfo and <root>/sys/dev/block, without touching the drives.  Mounts
// without a drive of their own (tmpfs, overlay, network) are left out.
std::vector<Drive> read_drives(const std::filesystem::path& root = "/");

}  // namespace tandem

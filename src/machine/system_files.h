// Small text files of /proc and /sys.  Everything below takes the root they hang under, so that tests
// bring their own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

// At most the first MiB; nothing when it cannot be read.  Trailing white space is cut off.
std::optional<std::string> read_system_text(const std::filesystem::path& path);
// The whole text must be one decimal number.
std::optional<uint64_t> parse_number(std::string_view text);
std::optional<uint64_t> read_system_number(const std::filesystem::path& path);
// The number after `key` in lines such as "MemTotal:  24684084 kB" or "file 4096", unit ignored.
std::optional<uint64_t> number_after_key(std::string_view text, std::string_view key);

// Pieces between separators; empty pieces are left out.
std::vector<std::string_view> split(std::string_view text, char separator);

// One line of /proc/self/mountinfo.
struct Mount {
  std::string device_number;  // "259:2"
  std::string root;           // the part of the file system that is mounted
  std::string mount_point;
  std::string type;     // "ext4", "cgroup2"
  std::string source;   // "/dev/nvme0n1p2"
  std::string options;  // of the file system; for cgroup v1 the controllers
};
std::vector<Mount> read_mounts(const std::filesystem::path& root);

}  // namespace tandem

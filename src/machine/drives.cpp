#include "machine/drives.h"

#include <algorithm>
#include <optional>

#include "machine/system_files.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

// The folder of the whole drive that a mount lies on, in /sys.  File systems over several devices
// (btrfs) mount under a number of their own; their source still names one.
std::optional<fs::path> drive_folder(const fs::path& root, const Mount& mount) {
  std::error_code error;
  fs::path folder = fs::canonical(root / "sys/dev/block" / mount.device_number, error);
  if (error && mount.source.starts_with("/dev/")) {
    folder = fs::canonical(root / "sys/class/block" / fs::path(mount.source).filename(), error);
  }
  if (error) return std::nullopt;
  if (fs::exists(folder / "partition", error)) folder = folder.parent_path();
  return folder;
}

Drive read_drive(const fs::path& folder) {
  constexpr uint64_t kSectorBytes = 512;  // unit of "size", whatever the drive's own sectors are
  Drive drive;
  drive.name = folder.filename().string();
  drive.model = read_system_text(folder / "device/model").value_or("");
  drive.bytes = read_system_number(folder / "size").value_or(0) * kSectorBytes;
  drive.rotational = read_system_number(folder / "queue/rotational").value_or(0) != 0;
  return drive;
}

}  // namespace

std::vector<Drive> read_drives(const fs::path& root) {
  std::vector<Drive> drives;
  for (const Mount& mount : read_mounts(root)) {
    const auto folder = drive_folder(root, mount);
    if (!folder) continue;
    const std::string name = folder->filename().string();
    auto drive = std::find_if(drives.begin(), drives.end(),
                              [&](const Drive& other) { return other.name == name; });
    if (drive == drives.end()) drive = drives.insert(drives.end(), read_drive(*folder));
    auto& points = drive->mount_points;
    if (std::find(points.begin(), points.end(), mount.mount_point) == points.end()) {
      points.push_back(mount.mount_point);
    }
  }
  return drives;
}

}  // namespace tandem

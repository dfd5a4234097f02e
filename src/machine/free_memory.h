// How much memory this process may still take, now.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>

namespace tandem {

struct FreeMemory {
  uint64_t total_bytes = 0;      // of the machine; 0 when unknown
  uint64_t available_bytes = 0;  // MemAvailable: free, and file cache the kernel would give back
  std::optional<uint64_t> cgroup_limit_bytes;
  std::optional<uint64_t> cgroup_free_bytes;
  std::optional<uint64_t> process_free_bytes;  // RLIMIT_AS (ulimit -v) less what is mapped already

  bool known() const { return total_bytes > 0 || cgroup_free_bytes.has_value(); }
  bool limited_by_cgroup() const {
    return cgroup_free_bytes && (total_bytes == 0 || *cgroup_free_bytes < available_bytes);
  }
  uint64_t bytes() const {
    const uint64_t system = limited_by_cgroup() ? *cgroup_free_bytes : available_bytes;
    return std::min(system, process_free_bytes.value_or(system));
  }
};

// A few small files are read, about 0.1 ms.  Any thread.  Zeros where /proc is missing.
FreeMemory free_memory(const std::filesystem::path& root = "/");

// Whether the kernel hands out huge pages.
struct HugePages {
  enum class Transparent { kUnknown, kNever, kMadvise, kAlways };
  Transparent transparent = Transparent::kUnknown;
  uint64_t page_bytes = 0;      // of the reserved pages below; 0: the kernel has none
  uint64_t reserved_pages = 0;  // vm.nr_hugepages of the default size
  uint64_t free_pages = 0;

  bool operator==(const HugePages&) const = default;
};
HugePages read_huge_pages(const std::filesystem::path& root = "/");

}  // namespace tandem

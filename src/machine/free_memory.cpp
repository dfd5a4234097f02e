#include "machine/free_memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "machine/cgroup.h"
#include "machine/system_files.h"

namespace tandem {
namespace {

HugePages::Transparent parse_transparent(std::string_view text) {
  if (text.find("[always]") != text.npos) return HugePages::Transparent::kAlways;
  if (text.find("[madvise]") != text.npos) return HugePages::Transparent::kMadvise;
  if (text.find("[never]") != text.npos) return HugePages::Transparent::kNever;
  return HugePages::Transparent::kUnknown;
}

// The first number of statm is what the process has mapped, in pages.
std::optional<uint64_t> process_free_bytes(const std::filesystem::path& root) {
  rlimit limit = {};
  if (::getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return std::nullopt;
  const std::string statm = read_system_text(root / "proc/self/statm").value_or("");
  const auto pages = parse_number(std::string_view(statm).substr(0, statm.find(' ')));
  if (!pages) return std::nullopt;
  const uint64_t mapped = *pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  return limit.rlim_cur - std::min<uint64_t>(limit.rlim_cur, mapped);
}

}  // namespace

FreeMemory free_memory(const std::filesystem::path& root) {
  const std::string text = read_system_text(root / "proc/meminfo").value_or("");
  const CgroupLimits limits = read_cgroup_limits(root);
  FreeMemory memory;
  memory.total_bytes = number_after_key(text, "MemTotal:").value_or(0) * kKiB;
  memory.available_bytes = number_after_key(text, "MemAvailable:").value_or(0) * kKiB;
  memory.cgroup_limit_bytes = limits.memory_limit_bytes;
  memory.cgroup_free_bytes = limits.memory_free_bytes;
  memory.process_free_bytes = process_free_bytes(root);
  return memory;
}

HugePages read_huge_pages(const std::filesystem::path& root) {
  const std::string text = read_system_text(root / "proc/meminfo").value_or("");
  const auto enabled = read_system_text(root / "sys/kernel/mm/transparent_hugepage/enabled");
  HugePages pages;
  pages.transparent = parse_transparent(enabled.value_or(""));
  pages.page_bytes = number_after_key(text, "Hugepagesize:").value_or(0) * kKiB;
  pages.reserved_pages = number_after_key(text, "HugePages_Total:").value_or(0);
  pages.free_pages = number_after_key(text, "HugePages_Free:").value_or(0);
  return pages;
}

}  // namespace tandem

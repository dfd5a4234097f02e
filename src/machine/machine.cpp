#include "machine/machine.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/bytes.h"
#include "base/checked.h"
#include "machine/cgroup.h"

namespace tandem {
namespace {

std::vector<unsigned> affinity_mask() {
  std::vector<unsigned> threads;
  cpu_set_t mask;
  CPU_ZERO(&mask);
  // More than CPU_SETSIZE processors: the call fails, the mask stays empty, which means all.
  if (::sched_getaffinity(0, sizeof(mask), &mask) != 0) return threads;
  for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &mask)) threads.push_back(cpu);
  }
  return threads;
}

void note_disbelieved_caches(Machine& machine) {
  for (const Cache& cache : machine.topology.caches) {
    if (cache.bytes == cache.reported_bytes) continue;
    machine.notes.push_back("level " + std::to_string(cache.level) + " cache reported as " +
                            format_bytes(cache.reported_bytes) + ", counted as " +
                            format_bytes(cache.bytes));
  }
}

bool allowed(const Machine::Limits& limits, unsigned thread) {
  return limits.allowed_threads.empty() ||
         std::binary_search(limits.allowed_threads.begin(), limits.allowed_threads.end(), thread);
}

}  // namespace

Result<Machine> Machine::discover(const std::filesystem::path& root) {
  Machine machine;
  machine.cpu = read_cpu_features();
  TANDEM_ASSIGN_OR_RETURN(machine.topology, read_topology(machine.cpu.hypervisor));
  const CgroupLimits cgroup = read_cgroup_limits(root);
  const FreeMemory memory = free_memory(root);
  machine.memory_bytes = memory.total_bytes;
  machine.free_memory_bytes = memory.bytes();
  if (memory.total_bytes == 0) machine.notes.emplace_back("/proc/meminfo cannot be read");
  machine.huge_pages = read_huge_pages(root);
  machine.drives = read_drives(root);
  machine.limits.allowed_threads = affinity_mask();
  machine.limits.cpu_quota = cgroup.cpu_quota;
  machine.limits.memory_limit_bytes = cgroup.memory_limit_bytes;
  machine.notes.insert(machine.notes.end(), cgroup.notes.begin(), cgroup.notes.end());
  note_disbelieved_caches(machine);
  return machine;
}

unsigned Machine::usable_threads() const {
  size_t n_threads = 0;
  for (const Core& core : topology.cores) {
    n_threads += static_cast<size_t>(
        std::count_if(core.threads.begin(), core.threads.end(),
                      [&](unsigned thread) { return allowed(limits, thread); }));
  }
  if (limits.cpu_quota) {
    n_threads = std::min(n_threads, static_cast<size_t>(std::ceil(*limits.cpu_quota)));
  }
  return static_cast<unsigned>(std::max<size_t>(n_threads, 1));
}

std::vector<int> Machine::compute_cpus() const {
  std::vector<int> performance, efficiency;
  for (const Core& core : topology.cores) {
    const auto thread =
        std::find_if(core.threads.begin(), core.threads.end(),
                     [&](unsigned candidate) { return allowed(limits, candidate); });
    if (thread == core.threads.end()) continue;
    auto& cpus = core.kind == CoreKind::kEfficiency ? efficiency : performance;
    cpus.push_back(static_cast<int>(*thread));
  }
  std::vector<int> cpus = performance.empty() ? efficiency : performance;
  if (cpus.empty()) cpus.push_back(0);
  cpus.resize(std::min<size_t>(cpus.size(), usable_threads()));
  return cpus;
}

uint64_t Machine::largest_reported_caches_bytes() const {
  std::array<uint64_t, 5> of_level = {};
  for (const Cache& cache : topology.caches) {
    uint64_t& sum = of_level[std::min<size_t>(cache.level, of_level.size() - 1)];
    const auto bytes = checked_mul(cache.reported_bytes, cache.count);
    sum = bytes ? checked_add(sum, *bytes).value_or(UINT64_MAX) : UINT64_MAX;
  }
  return *std::max_element(of_level.begin(), of_level.end());
}

}  // namespace tandem

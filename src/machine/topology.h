// Cores, caches and NUMA nodes as hwloc reports them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

struct hwloc_topology;

namespace tandem {

// kUniform where cores are all alike or nothing tells them apart.  Favoured cores that merely clock
// higher are not a kind.
enum class CoreKind { kUniform, kPerformance, kEfficiency };

struct Core {
  unsigned package = 0;
  unsigned numa_node = 0;  // operating system's number of the nearest node with this core
  CoreKind kind = CoreKind::kUniform;
  std::vector<unsigned> threads;  // operating system's numbers; at least one

  bool operator==(const Core&) const = default;
};

// Alike caches counted together.
struct Cache {
  unsigned level = 0;           // 1 to 4; data or unified
  uint64_t bytes = 0;           // of one, as far as it is believed
  uint64_t reported_bytes = 0;  // what the machine claims
  unsigned count = 0;
  unsigned cores_sharing = 0;

  bool operator==(const Cache&) const = default;
};

struct NumaNode {
  unsigned id = 0;
  uint64_t bytes = 0;
  bool has_cores = false;  // false: memory alone, such as a CXL expander

  bool operator==(const NumaNode&) const = default;
};

struct Topology {
  std::vector<Core> cores;
  std::vector<Cache> caches;
  std::vector<NumaNode> numa_nodes;

  bool operator==(const Topology&) const = default;
};

// Of this machine, without changing any thread's binding.  Tens of milliseconds; any thread.
// Errors: kUnsupported when hwloc cannot look at it.
Result<Topology> read_topology(bool hypervisor);
// Of a loaded topology.
Result<Topology> read_topology(hwloc_topology* topology, bool hypervisor);

// The believable part of a claimed cache size.  Virtual machines show the whole cache of a host they
// share: at most 8 MiB per core there.  No known processor has more than 64 MiB for one core.
uint64_t believable_cache_bytes(uint64_t reported_bytes, unsigned level, unsigned cores_sharing,
                                bool hypervisor);

}  // namespace tandem

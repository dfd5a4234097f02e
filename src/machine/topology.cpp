#include "machine/topology.h"

#include <hwloc.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string_view>

#include "base/bytes.h"

namespace tandem {
namespace {

struct DestroyTopology {
  void operator()(hwloc_topology* topology) const { hwloc_topology_destroy(topology); }
};
using OwnedTopology = std::unique_ptr<hwloc_topology, DestroyTopology>;

std::vector<unsigned> set_bits(hwloc_const_bitmap_t set) {
  std::vector<unsigned> bits;
  for (int i = hwloc_bitmap_first(set); i >= 0; i = hwloc_bitmap_next(set, i)) {
    bits.push_back(static_cast<unsigned>(i));
  }
  return bits;
}

CoreKind kind_of(hwloc_topology_t topology, hwloc_const_cpuset_t cpus) {
  const int kind = hwloc_cpukinds_get_by_cpuset(topology, cpus, 0);
  if (kind < 0 || hwloc_cpukinds_get_nr(topology, 0) < 2) return CoreKind::kUniform;
  unsigned n_infos = 0;
  hwloc_info_s* infos = nullptr;
  if (hwloc_cpukinds_get_info(topology, static_cast<unsigned>(kind), nullptr, nullptr, &n_infos,
                              &infos, 0) != 0) {
    return CoreKind::kUniform;
  }
  for (unsigned i = 0; i < n_infos; ++i) {
    if (std::string_view(infos[i].name) != "CoreType") continue;
    const std::string_view type = infos[i].value;
    if (type == "IntelAtom") return CoreKind::kEfficiency;
    if (type == "IntelCore") return CoreKind::kPerformance;
  }
  return CoreKind::kUniform;
}

unsigned package_of(hwloc_topology_t topology, hwloc_obj_t object) {
  const hwloc_obj_t package = hwloc_get_ancestor_obj_by_type(topology, HWLOC_OBJ_PACKAGE, object);
  return package == nullptr ? 0 : package->logical_index;
}

std::vector<Core> read_cores(hwloc_topology_t topology) {
  // Machines that do not tell cores from threads: every thread counts as a core.
  const bool has_cores = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE) > 0;
  const hwloc_obj_type_t type = has_cores ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
  std::vector<Core> cores;
  hwloc_obj_t object = nullptr;
  while ((object = hwloc_get_next_obj_by_type(topology, type, object)) != nullptr) {
    Core core;
    core.package = package_of(topology, object);
    const int node = hwloc_bitmap_first(object->nodeset);
    core.numa_node = node < 0 ? 0 : static_cast<unsigned>(node);
    core.kind = kind_of(topology, object->cpuset);
    core.threads = set_bits(object->cpuset);
    if (!core.threads.empty()) cores.push_back(std::move(core));
  }
  return cores;
}

unsigned cores_below(hwloc_topology_t topology, hwloc_obj_t object) {
  const int cores =
      hwloc_get_nbobjs_inside_cpuset_by_type(topology, object->cpuset, HWLOC_OBJ_CORE);
  return static_cast<unsigned>(std::max(cores, 1));
}

std::vector<Cache> read_caches(hwloc_topology_t topology, bool hypervisor) {
  std::vector<Cache> caches;
  for (hwloc_obj_type_t type :
       {HWLOC_OBJ_L1CACHE, HWLOC_OBJ_L2CACHE, HWLOC_OBJ_L3CACHE, HWLOC_OBJ_L4CACHE}) {
    hwloc_obj_t object = nullptr;
    while ((object = hwloc_get_next_obj_by_type(topology, type, object)) != nullptr) {
      Cache cache;
      cache.level = object->attr->cache.depth;
      cache.reported_bytes = object->attr->cache.size;
      cache.cores_sharing = cores_below(topology, object);
      cache.count = 1;
      cache.bytes = believable_cache_bytes(cache.reported_bytes, cache.level, cache.cores_sharing,
                                           hypervisor);
      if (cache.bytes == 0) continue;
      const auto same = std::find_if(caches.begin(), caches.end(), [&](const Cache& other) {
        return other.level == cache.level && other.reported_bytes == cache.reported_bytes &&
               other.cores_sharing == cache.cores_sharing;
      });
      if (same == caches.end()) {
        caches.push_back(cache);
      } else {
        ++same->count;
      }
    }
  }
  return caches;
}

std::vector<NumaNode> read_numa_nodes(hwloc_topology_t topology, const std::vector<Core>& cores) {
  std::vector<NumaNode> nodes;
  hwloc_obj_t object = nullptr;
  while ((object = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, object)) != nullptr) {
    NumaNode node;
    node.id = object->os_index;
    node.bytes = object->attr->numanode.local_memory;
    // Memory-only nodes share their neighbours' cpuset in hwloc; the cores' nearest node decides.
    node.has_cores = std::any_of(cores.begin(), cores.end(),
                                 [&](const Core& core) { return core.numa_node == node.id; });
    nodes.push_back(node);
  }
  return nodes;
}

}  // namespace

Result<Topology> read_topology(bool hypervisor) {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return out_of_memory("hwloc has no memory for the topology");
  const OwnedTopology topology(raw);
  hwloc_topology_set_flags(raw, HWLOC_TOPOLOGY_FLAG_DONT_CHANGE_BINDING);
  // Where /sys is not mounted, as in a bare chroot, that part of hwloc prints; the others do without.
  if (::access("/sys/devices/system/cpu", F_OK) != 0) {
    hwloc_topology_set_components(raw, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, "linux");
  }
  if (hwloc_topology_load(raw) != 0)
    return unsupported("hwloc cannot read this machine's topology");
  return read_topology(raw, hypervisor);
}

Result<Topology> read_topology(hwloc_topology* topology, bool hypervisor) {
  Topology result;
  result.cores = read_cores(topology);
  if (result.cores.empty()) return unsupported("hwloc reports no processor");
  result.caches = read_caches(topology, hypervisor);
  result.numa_nodes = read_numa_nodes(topology, result.cores);
  return result;
}

uint64_t believable_cache_bytes(uint64_t reported_bytes, unsigned level, unsigned cores_sharing,
                                bool hypervisor) {
  if (level < 3) return std::min(reported_bytes, level == 1 ? kMiB : 64 * kMiB);
  return std::min(reported_bytes, (hypervisor ? 8 : 64) * kMiB * std::max(cores_sharing, 1u));
}

}  // namespace tandem

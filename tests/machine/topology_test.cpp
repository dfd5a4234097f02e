#include "machine/topology.h"

#include <hwloc.h>

#include <memory>

#include "base/bytes.h"
#include "status_matchers.h"

namespace tandem {
namespace {

using ::testing::ElementsAre;
using testing::is_ok;

class SyntheticTopology {
 public:
  explicit SyntheticTopology(const char* description) {
    hwloc_topology_init(&topology_);
    EXPECT_EQ(hwloc_topology_set_synthetic(topology_, description), 0) << description;
    EXPECT_EQ(hwloc_topology_load(topology_), 0);
  }
  ~SyntheticTopology() { hwloc_topology_destroy(topology_); }
  SyntheticTopology(const SyntheticTopology&) = delete;
  SyntheticTopology& operator=(const SyntheticTopology&) = delete;

  void set_core_type(unsigned first, unsigned last, const char* type) {
    hwloc_bitmap_t cpus = hwloc_bitmap_alloc();
    hwloc_bitmap_set_range(cpus, first, static_cast<int>(last));
    hwloc_info_s info = {const_cast<char*>("CoreType"), const_cast<char*>(type)};
    EXPECT_EQ(hwloc_cpukinds_register(topology_, cpus, -1, 1, &info, 0), 0);
    hwloc_bitmap_free(cpus);
  }
  Topology read(bool hypervisor = false) {
    auto topology = read_topology(topology_, hypervisor);
    EXPECT_THAT(topology, is_ok());
    return topology.ok() ? *topology : Topology();
  }

 private:
  hwloc_topology_t topology_ = nullptr;
};

TEST(Topology, ListsCoresWithTheirThreads) {
  SyntheticTopology synthetic("pack:2 core:4 pu:2");
  const Topology topology = synthetic.read();
  ASSERT_EQ(topology.cores.size(), 8u);
  EXPECT_EQ(topology.cores[5].package, 1u);
  EXPECT_THAT(topology.cores[5].threads, ElementsAre(10u, 11u));
  EXPECT_EQ(topology.cores[5].kind, CoreKind::kUniform);
}

TEST(Topology, TellsPerformanceFromEfficiencyCores) {
  SyntheticTopology synthetic("pack:1 core:4 pu:1");
  synthetic.set_core_type(0, 1, "IntelCore");
  synthetic.set_core_type(2, 3, "IntelAtom");
  const Topology topology = synthetic.read();
  EXPECT_EQ(topology.cores[0].kind, CoreKind::kPerformance);
  EXPECT_EQ(topology.cores[3].kind, CoreKind::kEfficiency);
}

TEST(Topology, CountsAlikeCachesTogether) {
  SyntheticTopology synthetic("pack:1 l3:2(size=33554432) l2:4(size=1048576) core:1 pu:2");
  const Topology topology = synthetic.read();
  ASSERT_EQ(topology.caches.size(), 2u);
  EXPECT_EQ(topology.caches[0], (Cache{2, kMiB, kMiB, 8, 1}));
  EXPECT_EQ(topology.caches[1], (Cache{3, 32 * kMiB, 32 * kMiB, 2, 4}));
}

TEST(Topology, DoesNotBelieveTheCacheOfAWholeHost) {
  SyntheticTopology synthetic("pack:1 l3:1(size=503316480) core:2 pu:1");
  const Cache cache = synthetic.read(/*hypervisor=*/true).caches.at(0);
  EXPECT_EQ(cache.bytes, 16 * kMiB);
  EXPECT_EQ(cache.reported_bytes, 480 * kMiB);
}

TEST(Topology, BelievesLargeCachesOfRealProcessors) {
  EXPECT_EQ(believable_cache_bytes(96 * kMiB, 3, 8, false), 96 * kMiB);
  EXPECT_EQ(believable_cache_bytes(32 * kMiB, 3, 1, false), 32 * kMiB);
  EXPECT_EQ(believable_cache_bytes(uint64_t{1} << 50, 3, 8, false), 512 * kMiB);
  EXPECT_EQ(believable_cache_bytes(uint64_t{1} << 50, 1, 1, false), kMiB);
}

TEST(Topology, ListsNumaNodesWithAndWithoutCores) {
  SyntheticTopology synthetic("[numa(memory=1073741824)] pack:2 [numa(memory=4096)] core:2 pu:1");
  const Topology topology = synthetic.read();
  ASSERT_EQ(topology.numa_nodes.size(), 3u);
  unsigned with_cores = 0;
  for (const NumaNode& node : topology.numa_nodes) with_cores += node.has_cores ? 1u : 0u;
  EXPECT_GE(with_cores, 1u);
  EXPECT_LT(with_cores, 3u) << "the machine-wide memory has no cores of its own";
}

TEST(Topology, OfThisMachineHasACoreAndANode) {
  auto topology = read_topology(false);
  ASSERT_THAT(topology, is_ok());
  EXPECT_FALSE(topology->cores.empty());
  EXPECT_FALSE(topology->numa_nodes.empty());
}

}  // namespace
}  // namespace tandem

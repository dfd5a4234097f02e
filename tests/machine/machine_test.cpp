#include "machine/machine.h"

#include "base/bytes.h"
#include "machine/synthetic_root.h"

namespace tandem {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::is_ok;

// A hybrid processor: two performance cores with two threads each, four efficiency cores.
Machine hybrid() {
  Machine machine;
  for (unsigned i = 0; i < 2; ++i) {
    machine.topology.cores.push_back({0, 0, CoreKind::kPerformance, {2 * i, 2 * i + 1}});
  }
  for (unsigned i = 4; i < 8; ++i) {
    machine.topology.cores.push_back({0, 0, CoreKind::kEfficiency, {i}});
  }
  return machine;
}

TEST(Machine, ComputesOnOneThreadOfEachPerformanceCore) {
  EXPECT_THAT(hybrid().compute_cpus(), ElementsAre(0, 2));
  EXPECT_EQ(hybrid().usable_threads(), 8u);
}

TEST(Machine, ComputesOnlyWhereTheMaskAllows) {
  Machine machine = hybrid();
  machine.limits.allowed_threads = {1, 5, 6};
  EXPECT_EQ(machine.usable_threads(), 3u);
  EXPECT_THAT(machine.compute_cpus(), ElementsAre(1));
  machine.limits.allowed_threads = {5, 6};
  EXPECT_THAT(machine.compute_cpus(), ElementsAre(5, 6));
}

TEST(Machine, RoundsTheQuotaUp) {
  Machine machine = hybrid();
  machine.limits.cpu_quota = 2.25;
  EXPECT_EQ(machine.usable_threads(), 3u);
  machine.limits.cpu_quota = 0.1;
  EXPECT_EQ(machine.usable_threads(), 1u);
  EXPECT_THAT(machine.compute_cpus(), ElementsAre(0));
}

TEST(Machine, CountsAllCachesOfTheLevelThatHoldsMost) {
  Machine machine;
  EXPECT_EQ(machine.largest_reported_caches_bytes(), 0u);
  // Many small level-3 caches beside the private ones; half of each is not believed but may be
  // there.
  machine.topology.caches = {{2, kMiB, kMiB, 96, 1}, {3, 16 * kMiB, 32 * kMiB, 12, 8}};
  EXPECT_EQ(machine.largest_reported_caches_bytes(), 384 * kMiB);
  // Where kinds of cores differ, one level is listed twice.
  machine.topology.caches.push_back({2, 2 * kMiB, 2 * kMiB, 200, 1});
  EXPECT_EQ(machine.largest_reported_caches_bytes(), 496 * kMiB);
  machine.topology.caches.push_back({4, kMiB, UINT64_MAX, 2, 8});
  EXPECT_EQ(machine.largest_reported_caches_bytes(), UINT64_MAX);
}

TEST(Machine, IsDiscoveredHere) {
  const auto machine = Machine::discover();
  ASSERT_THAT(machine, is_ok());
  EXPECT_FALSE((*machine).cpu.vendor.empty());
  EXPECT_GT((*machine).memory_bytes, 64 * kMiB);
  EXPECT_GT((*machine).free_memory_bytes, 0u);
  EXPECT_LE((*machine).free_memory_bytes, (*machine).memory_bytes);
  EXPECT_GE((*machine).default_compute_threads(), 1u);
  EXPECT_LE((*machine).default_compute_threads(), (*machine).usable_threads());
}

TEST(Machine, WithoutProcSaysThatMemoryIsNotKnownAndStillRoundTrips) {
  const testing::TemporaryFolder empty;
  const auto machine = Machine::discover(empty.path());
  ASSERT_THAT(machine, testing::is_ok());
  EXPECT_EQ(0u, machine->memory_bytes);
  EXPECT_THAT(machine->notes, ::testing::Contains("/proc/meminfo cannot be read"));
  EXPECT_THAT(Machine::from_json(machine->to_json()), testing::is_ok());

  testing::SyntheticRoot limited;  // no /proc/meminfo, but a limit of the group
  limited.mount("/sys/fs/cgroup", "cgroup2", "rw");
  limited.write("proc/self/cgroup", "0::/");
  limited.write("sys/fs/cgroup/memory.max", "8589934592");
  limited.write("sys/fs/cgroup/memory.current", "1073741824");
  const auto in_group = Machine::discover(limited.path());
  ASSERT_THAT(in_group, testing::is_ok());
  EXPECT_EQ(7516192768u, in_group->free_memory_bytes);
  EXPECT_THAT(Machine::from_json(in_group->to_json()), testing::is_ok());
}

TEST(Machine, TakesLimitsFromTheGivenRoot) {
  testing::SyntheticRoot root;
  root.mount("/sys/fs/cgroup", "cgroup2", "rw");
  root.write("proc/self/cgroup", "0::/");
  root.write("proc/meminfo", "MemTotal: 4000 kB\nMemAvailable: 3000 kB");
  root.write("sys/fs/cgroup/memory.max", "1000000");
  root.write("sys/fs/cgroup/memory.current", "400000");
  root.write("sys/fs/cgroup/cpu.max", "100000 100000");
  const auto machine = Machine::discover(root.path());
  ASSERT_THAT(machine, is_ok());
  EXPECT_EQ((*machine).free_memory_bytes, 600000u);
  EXPECT_EQ((*machine).limits.memory_limit_bytes, 1000000u);
  EXPECT_EQ((*machine).usable_threads(), 1u);
}

TEST(Drives, FollowPartitionsToTheirDrive) {
  testing::SyntheticRoot root;
  const std::string device = "sys/devices/pci/nvme0n1/";
  root.write(device + "size", "2000");
  root.write(device + "queue/rotational", "0");
  root.write(device + "device/model", "FAST DISK 1TB      ");
  root.write(device + "nvme0n1p2/partition", "2");
  std::filesystem::create_directories(root.path() / "sys/dev/block");
  std::filesystem::create_symlink("../../devices/pci/nvme0n1/nvme0n1p2",
                                  root.path() / "sys/dev/block/259:2");
  root.write("proc/self/mountinfo",
             "20 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw\n"
             "21 1 259:2 /home /home\\040dir rw shared:1 - ext4 /dev/nvme0n1p2 rw\n"
             "22 1 0:31 / /tmp rw - tmpfs tmpfs rw");
  const std::vector<Drive> drives = read_drives(root.path());
  ASSERT_EQ(drives.size(), 1u);
  EXPECT_EQ(drives[0], (Drive{"nvme0n1", "FAST DISK 1TB", 1024000, false, {"/", "/home dir"}}));
}

}  // namespace
}  // namespace tandem

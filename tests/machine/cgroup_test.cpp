#include "machine/cgroup.h"

#include <sys/resource.h>
#include <unistd.h>

#include "machine/free_memory.h"
#include "machine/synthetic_root.h"

namespace tandem {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class CgroupV2 : public ::testing::Test {
 protected:
  CgroupV2() {
    root_.mount("/sys/fs/cgroup", "cgroup2", "rw,nsdelegate");
    root_.write("proc/self/cgroup", "0::/user/app");
    root_.write("sys/fs/cgroup/cgroup.controllers", "cpu memory");
  }
  void group(const std::string& name, const std::string& file, const std::string& text) {
    root_.write("sys/fs/cgroup/" + name + "/" + file, text);
  }
  CgroupLimits read() { return read_cgroup_limits(root_.path()); }

  testing::SyntheticRoot root_;
};

TEST_F(CgroupV2, HasNoLimitsWhereFilesAreMissing) {
  const CgroupLimits limits = read();
  EXPECT_FALSE(limits.memory_limit_bytes);
  EXPECT_FALSE(limits.memory_free_bytes);
  EXPECT_FALSE(limits.cpu_quota);
  EXPECT_THAT(limits.notes, IsEmpty());
}

TEST_F(CgroupV2, MaxIsNoLimit) {
  group("user/app", "memory.max", "max");
  group("user/app", "cpu.max", "max 100000");
  EXPECT_FALSE(read().memory_limit_bytes);
  EXPECT_FALSE(read().cpu_quota);
  EXPECT_THAT(read().notes, IsEmpty());
}

TEST_F(CgroupV2, FileCacheCountsAsFree) {
  group("user/app", "memory.max", "1000000");
  group("user/app", "memory.current", "700000");
  group("user/app", "memory.stat",
        "anon 400000\nfile 300000\ninactive_file 200000\nactive_file 90000");
  EXPECT_EQ(read().memory_limit_bytes, 1000000u);
  EXPECT_EQ(read().memory_free_bytes, 590000u);
}

TEST_F(CgroupV2, TakesTheTightestOfMaxAndHigh) {
  group("user/app", "memory.max", "1000000");
  group("user/app", "memory.high", "800000");
  EXPECT_EQ(read().memory_limit_bytes, 800000u);
}

TEST_F(CgroupV2, ParentsLimitToo) {
  group("user", "memory.max", "500000");
  group("user", "memory.current", "490000");
  group("user/app", "memory.max", "400000");
  group("user/app", "memory.current", "100000");
  EXPECT_EQ(read().memory_limit_bytes, 400000u);
  EXPECT_EQ(read().memory_free_bytes, 10000u) << "the parent's other children have filled it";
}

TEST_F(CgroupV2, GroupsBesideTheProcessDoNotLimit) {
  group("other", "memory.max", "1");
  group("user/app/child", "memory.max", "1");
  EXPECT_FALSE(read().memory_limit_bytes);
}

TEST_F(CgroupV2, UseAboveTheLimitLeavesNothing) {
  group("user/app", "memory.max", "1000");
  group("user/app", "memory.current", "5000");
  EXPECT_EQ(read().memory_free_bytes, 0u);
}

TEST_F(CgroupV2, ReadsTheTightestQuotaOnTheWayUp) {
  group("user", "cpu.max", "150000 100000");
  group("user/app", "cpu.max", "400000 100000");
  EXPECT_DOUBLE_EQ(read().cpu_quota.value(), 1.5);
}

TEST_F(CgroupV2, IgnoresGarbageAndSaysSo) {
  for (const char* text : {"", "-5", "12 apples", "99999999999999999999999999", "0x10"}) {
    group("user/app", "memory.max", text);
    EXPECT_FALSE(read().memory_limit_bytes) << text;
    EXPECT_THAT(read().notes, ElementsAre(HasSubstr("memory.max"))) << text;
  }
  group("user/app", "memory.max", "max");
  for (const char* text : {"", "1", "0 100000", "100000 0", "a b", "1 2 3"}) {
    group("user/app", "cpu.max", text);
    EXPECT_FALSE(read().cpu_quota) << text;
    EXPECT_THAT(read().notes, ElementsAre(HasSubstr("cpu.max"))) << text;
  }
}

TEST_F(CgroupV2, FindsTheGroupInAContainerThatSeesHostPaths) {
  testing::SyntheticRoot root;
  root.mount("/sys/fs/cgroup", "cgroup2", "rw", "/docker/abc");
  root.write("proc/self/cgroup", "0::/docker/abc/inner");
  root.write("sys/fs/cgroup/inner/memory.max", "12345");
  EXPECT_EQ(read_cgroup_limits(root.path()).memory_limit_bytes, 12345u);
}

TEST_F(CgroupV2, AGroupWhoseNameStartsLikeTheMountedOneIsNotBelowIt) {
  testing::SyntheticRoot root;
  root.mount("/sys/fs/cgroup", "cgroup2", "rw", "/docker/ab");
  root.write("proc/self/cgroup", "0::/docker/abc");
  root.write("sys/fs/cgroup/c/memory.max", "12345");
  EXPECT_FALSE(read_cgroup_limits(root.path()).memory_limit_bytes.has_value());
}

TEST_F(CgroupV2, AGroupOutsideTheViewIsTheRoot) {
  root_.write("proc/self/cgroup", "0::/../../etc");
  root_.write("sys/fs/cgroup/memory.max", "777");
  root_.write("sys/etc/memory.max", "1");
  EXPECT_EQ(read().memory_limit_bytes, 777u);
}

TEST(CgroupV1, ReadsMemoryAndQuotaFromTheirOwnTrees) {
  testing::SyntheticRoot root;
  root.mount("/sys/fs/cgroup/memory", "cgroup", "rw,memory");
  root.mount("/sys/fs/cgroup/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct");
  root.write("proc/self/cgroup", "4:memory:/app\n2:cpuacct,cpu:/job");
  root.write("sys/fs/cgroup/memory/app/memory.limit_in_bytes", "1000");
  root.write("sys/fs/cgroup/memory/app/memory.usage_in_bytes", "600");
  root.write("sys/fs/cgroup/memory/app/memory.stat",
             "total_inactive_file 50\ntotal_active_file 60");
  root.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
  root.write("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "50000");
  root.write("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000");
  const CgroupLimits limits = read_cgroup_limits(root.path());
  EXPECT_EQ(limits.memory_limit_bytes, 1000u);
  EXPECT_EQ(limits.memory_free_bytes, 510u);
  EXPECT_DOUBLE_EQ(limits.cpu_quota.value(), 0.5);
}

TEST(CgroupV1, UnlimitedIsNoLimit) {
  testing::SyntheticRoot root;
  root.mount("/sys/fs/cgroup/memory", "cgroup", "rw,memory");
  root.mount("/sys/fs/cgroup/cpu", "cgroup", "rw,cpu");
  root.write("proc/self/cgroup", "4:memory:/\n2:cpu:/");
  root.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
  root.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1");
  const CgroupLimits limits = read_cgroup_limits(root.path());
  EXPECT_FALSE(limits.memory_limit_bytes);
  EXPECT_FALSE(limits.cpu_quota);
}

TEST(Cgroup, ReadsNothingFromAnEmptyRootOrGarbage) {
  testing::SyntheticRoot root;
  EXPECT_FALSE(read_cgroup_limits(root.path()).memory_limit_bytes);
  root.write("proc/self/mountinfo", "1 2 3\n- - -\n\n30 24 0:27 / / rw -\n\\777 \\");
  root.write("proc/self/cgroup", ":\n::\nx\n0:");
  EXPECT_FALSE(read_cgroup_limits(root.path()).memory_limit_bytes);
}

TEST(FreeMemory, IsTheLesserOfMachineAndGroup) {
  testing::SyntheticRoot root;
  root.write("proc/meminfo", "MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    800 kB");
  EXPECT_EQ(free_memory(root.path()).bytes(), 800u * 1024);
  EXPECT_EQ(free_memory(root.path()).total_bytes, 1000u * 1024);
  root.mount("/sys/fs/cgroup", "cgroup2", "rw");
  root.write("proc/self/cgroup", "0::/");
  root.write("sys/fs/cgroup/memory.max", "5000");
  root.write("sys/fs/cgroup/memory.current", "1000");
  EXPECT_EQ(free_memory(root.path()).bytes(), 4000u);
  EXPECT_TRUE(free_memory(root.path()).limited_by_cgroup());
}

TEST(FreeMemory, IsNoMoreThanTheProcessMayMap) {
  testing::SyntheticRoot root;
  root.write("proc/meminfo", "MemTotal:       1000 kB\nMemAvailable:    800 kB");
  rlimit old = {};
  ASSERT_EQ(0, ::getrlimit(RLIMIT_AS, &old));
  // More than sanitizers map; what is mapped is read from the root.
  const uint64_t most = std::min<uint64_t>(old.rlim_max, uint64_t{1} << 47);
  const auto page_bytes = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  root.write("proc/self/statm", std::to_string(most / page_bytes - 10) + " 5 1 1 0 1 0\n");
  const rlimit limited = {most, old.rlim_max};
  ASSERT_EQ(0, ::setrlimit(RLIMIT_AS, &limited));
  const uint64_t bytes = free_memory(root.path()).bytes();
  ASSERT_EQ(0, ::setrlimit(RLIMIT_AS, &old));
  EXPECT_EQ(bytes, 10 * page_bytes);
  if (old.rlim_cur == RLIM_INFINITY) {
    EXPECT_EQ(free_memory(root.path()).bytes(), 800u * 1024);
  }
}

TEST(HugePagesState, IsReadFromTheKernel) {
  testing::SyntheticRoot root;
  EXPECT_EQ(read_huge_pages(root.path()), HugePages());
  root.write("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never");
  root.write("proc/meminfo", "HugePages_Total:    4\nHugePages_Free:  3\nHugepagesize:  2048 kB");
  const HugePages pages = read_huge_pages(root.path());
  EXPECT_EQ(pages.transparent, HugePages::Transparent::kMadvise);
  EXPECT_EQ(pages.page_bytes, 2048u * 1024);
  EXPECT_EQ(pages.reserved_pages, 4u);
  EXPECT_EQ(pages.free_pages, 3u);
}

}  // namespace
}  // namespace tandem

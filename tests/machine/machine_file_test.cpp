#include <chrono>
#include <string>

#include "machine/machine.h"
#include "status_matchers.h"

namespace tandem {
namespace {

using testing::fails_with;
using ::testing::HasSubstr;
using testing::is_ok;

Machine full_machine() {
  Machine machine;
  machine.cpu = {"Some CPU \"9\" ü", "GenuineIntel", {"avx2", "avx512f"}, true};
  machine.topology.cores = {{0, 0, CoreKind::kPerformance, {0, 1}},
                            {1, 2, CoreKind::kEfficiency, {2}}};
  machine.topology.caches = {{3, 1 << 20, 1 << 21, 2, 4}};
  machine.topology.numa_nodes = {{0, 1000, true}, {2, uint64_t{1} << 59, false}};
  machine.memory_bytes = uint64_t{1} << 40;
  machine.free_memory_bytes = 12345;
  machine.huge_pages = {HugePages::Transparent::kMadvise, 2 << 20, 3, 1};
  machine.drives = {{"nvme0n1", "DISK", 1000, false, {"/", "/home"}}};
  machine.limits.allowed_threads = {0, 2};
  machine.limits.cpu_quota = 1.5;
  machine.limits.memory_limit_bytes = 99;
  machine.notes = {"a note"};
  return machine;
}

std::string changed(const std::string& from, const std::string& to) {
  std::string text = full_machine().to_json();
  const size_t at = text.find(from);
  EXPECT_NE(at, text.npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(MachineFile, RoundTrips) {
  const auto read = Machine::from_json(full_machine().to_json());
  ASSERT_THAT(read, is_ok());
  EXPECT_EQ(*read, full_machine());
}

TEST(MachineFile, RoundTripsThisMachine) {
  const auto here = Machine::discover();
  ASSERT_THAT(here, is_ok());
  const auto read = Machine::from_json((*here).to_json());
  ASSERT_THAT(read, is_ok());
  EXPECT_EQ((*read).to_json(), (*here).to_json());
}

TEST(MachineFile, WritesNamesThatAreNotUtf8) {
  Machine machine = full_machine();
  machine.drives[0].model = "bad \xff name";
  EXPECT_THAT(Machine::from_json(machine.to_json()), is_ok());
}

TEST(MachineFile, EveryTruncationIsAnError) {
  const std::string text = full_machine().to_json();
  for (size_t n = 0; n + 2 < text.size(); ++n) {
    const std::string part(text.data(), n);
    EXPECT_FALSE(Machine::from_json(part).ok()) << n;
  }
}

TEST(MachineFile, NamesTheByteWhereJsonEnds) {
  EXPECT_THAT(Machine::from_json("{\"a\": }"), fails_with(Code::kCorrupt, HasSubstr("byte 6")));
}

TEST(MachineFile, NamesTheFieldThatIsWrong) {
  const struct {
    const char *from, *to, *field;
  } kCases[] = {
      {"\"memory_bytes\": 1099511627776", "\"memory_bytes\": -1", "memory_bytes"},
      {"\"memory_bytes\": 1099511627776", "\"memory_bytes\": 1e12", "memory_bytes"},
      {"\"memory_bytes\": 1099511627776", "\"memory_bytes\": 18446744073709551615", "memory_bytes"},
      {"\"memory_bytes\": 1099511627776", "\"memory_bytes\": [1]", "memory_bytes"},
      {"\"free_memory_bytes\": 12345", "\"free_memory_bytes\": 1099511627777", "free_memory_bytes"},
      {"\"kind\": \"performance\"", "\"kind\": \"fast\"", "cores[0].kind"},
      {"\"kind\": \"efficiency\"", "\"kind\": 3", "cores[1].kind"},
      {"\"level\": 3", "\"level\": 5", "caches[0].level"},
      {"\"cpu_quota\": 1.5", "\"cpu_quota\": -1.5", "limits.cpu_quota"},
      {"\"cpu_quota\": 1.5", "\"cpu_quota\": \"all\"", "limits.cpu_quota"},
      {"\"has_cores\": false", "\"has_cores\": 0", "numa_nodes[1].has_cores"},
      {"\"name\": \"nvme0n1\"", "\"nome\": \"nvme0n1\"", "drives[0].name"},
      {"\"tandem_machine\": 1", "\"tandem_machine\": \"1\"", "tandem_machine"},
      {"\"package\": 1", "\"package\": 65536", "cores[1].package"},
  };
  for (const auto& c : kCases) {
    EXPECT_THAT(Machine::from_json(changed(c.from, c.to)),
                fails_with(Code::kCorrupt, HasSubstr(std::string(c.field) + ": expected")))
        << c.to;
  }
}

TEST(MachineFile, RefusesAThreadThatTwoCoresClaim) {
  Machine machine = full_machine();
  machine.topology.cores[1].threads = {1};
  EXPECT_THAT(Machine::from_json(machine.to_json()),
              fails_with(Code::kCorrupt, HasSubstr("cores[1]: expected threads of no other core")));
}

TEST(MachineFile, RefusesCoresWithoutThreadsAndMachinesWithoutCores) {
  Machine machine = full_machine();
  machine.topology.cores[0].threads.clear();
  EXPECT_THAT(Machine::from_json(machine.to_json()),
              fails_with(Code::kCorrupt, HasSubstr("cores[0].threads")));
  machine.topology.cores.clear();
  EXPECT_THAT(Machine::from_json(machine.to_json()),
              fails_with(Code::kCorrupt, HasSubstr("cores")));
}

TEST(MachineFile, RefusesANewerVersionByNumber) {
  EXPECT_THAT(Machine::from_json(changed("\"tandem_machine\": 1", "\"tandem_machine\": 2")),
              fails_with(Code::kUnsupported, HasSubstr("version 2")));
}

TEST(MachineFile, RefusesOtherOutermostValues) {
  for (const char* text : {"1", "null", "[]", "\"x\"", "{}", "true"}) {
    EXPECT_THAT(Machine::from_json(text), fails_with(Code::kCorrupt, HasSubstr("machine file")));
  }
}

TEST(MachineFile, SurvivesDeepNesting) {
  const std::string deep(200'000, '[');
  EXPECT_FALSE(Machine::from_json(deep).ok());
  const std::string closed = deep + std::string(deep.size(), ']');
  EXPECT_THAT(Machine::from_json(closed), fails_with(Code::kCorrupt, HasSubstr("nested deeper")));
}

TEST(MachineFile, TensOfThousandsOfKeysTakeNoTime) {
  std::string text = "{";
  for (int i = 0; i < 80'000; ++i)
    text += "\"a shared beginning of the key " + std::to_string(i) + "\":0,";
  text += "\"tandem_machine\":1}";
  ASSERT_LT(text.size(), size_t{4} << 20);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(Machine::from_json(text).ok());
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 3);
}

TEST(MachineFile, RefusesHugeTextsAndLongLists) {
  EXPECT_THAT(Machine::from_json(std::string(5 << 20, ' ')),
              fails_with(Code::kCorrupt, HasSubstr("at most")));
  Machine machine = full_machine();
  machine.notes.assign(5000, "x");
  EXPECT_THAT(Machine::from_json(machine.to_json()),
              fails_with(Code::kCorrupt, HasSubstr("notes")));
}

}  // namespace
}  // namespace tandem

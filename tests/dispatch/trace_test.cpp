#include "dispatch/trace.h"

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "device/operation.h"
#include "status_matchers.h"

namespace tandem {
namespace {

using Json = nlohmann::json;
using ::testing::DoubleNear;
using testing::fails_with;
using ::testing::HasSubstr;
using testing::is_ok;
using testing::TemporaryFolder;

constexpr int64_t kMs = 1'000'000;

TraceRecord record_of(std::string_view name, int64_t begin_ms, int64_t end_ms,
                      double predicted_ms = 0) {
  TraceRecord record;
  record.name = name;
  record.begin_ns = begin_ms * kMs;
  record.end_ns = end_ms * kMs;
  record.predicted_seconds = predicted_ms * 1e-3;
  return record;
}

std::string perfetto(const Trace& trace) {
  std::string text;
  EXPECT_THAT(trace.write_perfetto([&](std::string_view piece) {
    text += piece;
    return ok_status();
  }),
              is_ok());
  return text;
}

TEST(Trace, AFullRingKeepsTheNewest) {
  Trace trace(4);
  for (int64_t i = 0; i < 10; ++i) trace.write(TraceLane::kCpu, record_of("a", i, i + 1));
  ASSERT_EQ(trace.n_records(TraceLane::kCpu), 4u);
  EXPECT_EQ(trace.record(TraceLane::kCpu, 0).begin_ns, 6 * kMs);
  EXPECT_EQ(trace.record(TraceLane::kCpu, 3).begin_ns, 9 * kMs);
  EXPECT_EQ(trace.n_records(TraceLane::kDevice), 0u);
  EXPECT_EQ(trace.summarize().n_dropped, 6u);
  trace.clear();
  EXPECT_EQ(trace.n_records(TraceLane::kCpu), 0u);
}

TEST(Trace, PerfettoHasLanesAndWhatWasPredicted) {
  Trace trace(16);
  TraceRecord record = record_of("matmul", 5, 7, 1.5);
  record.begin_ns += 123;
  record.layer = 3;
  record.bytes = 4096;
  trace.write(TraceLane::kDevice, record);
  trace.write(TraceLane::kCpu, record_of("no\"rm\n", 4, 5));
  const Json json = Json::parse(perfetto(trace));
  const Json& events = json.at("traceEvents");
  std::map<int, std::string> lanes;
  std::vector<Json> complete;
  for (const Json& event : events) {
    EXPECT_EQ(event.at("pid"), 1);
    if (event.at("ph") == "X") {
      complete.push_back(event);
    } else if (event.at("name") == "thread_name") {
      lanes[event.at("tid")] = event.at("args").at("name");
    }
  }
  ASSERT_EQ(complete.size(), 2u);
  EXPECT_EQ(lanes.size(), 2u);
  EXPECT_EQ(lanes[complete[0].at("tid")], "cpu");
  EXPECT_EQ(complete[0].at("name"), "no\"rm");
  EXPECT_EQ(complete[0].at("ts"), 0.0);
  EXPECT_FALSE(complete[0].at("args").contains("predicted_us"));
  EXPECT_FALSE(complete[0].at("args").contains("layer"));
  const Json& device = complete[1];
  EXPECT_EQ(lanes[device.at("tid")], "device");
  EXPECT_DOUBLE_EQ(device.at("ts"), 1000.123);
  EXPECT_DOUBLE_EQ(device.at("dur"), 1999.877);
  EXPECT_DOUBLE_EQ(device.at("args").at("measured_us"), 1999.877);
  EXPECT_DOUBLE_EQ(device.at("args").at("predicted_us"), 1500);
  EXPECT_EQ(device.at("args").at("layer"), 3);
  EXPECT_EQ(device.at("args").at("bytes"), 4096);
}

TEST(Trace, EventsOfALaneNestInPerfetto) {
  Trace trace(4096);
  // Enclosing records end, and so are written, after what they enclose; the next begins where one ended.
  for (int64_t i = 0; i < 1000; ++i) {
    trace.write(TraceLane::kCpu, record_of("inner", 10 * i, 10 * i + 4));
    trace.write(TraceLane::kCpu, record_of("inner", 10 * i + 4, 10 * i + 10));
    trace.write(TraceLane::kCpu, record_of("outer", 10 * i, 10 * i + 10));
  }
  const Json json = Json::parse(perfetto(trace));
  std::vector<double> open;  // ends
  double last = 0;
  size_t n = 0;
  for (const Json& event : json.at("traceEvents")) {
    if (event.at("ph") != "X") continue;
    const double begin = event.at("ts"), end = begin + event.at("dur").get<double>();
    ASSERT_GE(begin, last);
    last = begin;
    while (!open.empty() && open.back() <= begin) open.pop_back();
    ASSERT_TRUE(open.empty() || end <= open.back()) << event;
    ASSERT_EQ(open.size(), event.at("name") == "inner" ? 1u : 0u);
    open.push_back(end);
    ++n;
  }
  EXPECT_EQ(n, 3000u);
}

TEST(Trace, AnEmptyTraceIsStillJson) {
  const Trace trace(4);
  EXPECT_EQ(Json::parse(perfetto(trace)).at("traceEvents").size(), 1u);
  EXPECT_EQ(to_text(trace.summarize()), "no records\n");
}

TEST(Trace, WritesAFileOrSaysWhyNot) {
  const TemporaryFolder folder;
  Trace trace(4);
  trace.write(TraceLane::kCpu, record_of("a", 0, 1));
  ASSERT_THAT(trace.write_perfetto(folder.path() / "t.json"), is_ok());
  std::ifstream file(folder.path() / "t.json");
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_EQ(text.str(), perfetto(trace));
  EXPECT_FALSE(trace.write_perfetto(folder.path() / "none" / "t.json").ok());
  EXPECT_THAT(trace.write_perfetto([](std::string_view) { return io_error("full"); }),
              fails_with(Code::kIo, "full"));
}

TEST(TraceSummary, CountsWhatIsCoveredOnce) {
  Trace trace(16);
  trace.write(TraceLane::kStep, record_of("step", 0, 10));
  trace.write(TraceLane::kCpu, record_of("a", 0, 2));
  trace.write(TraceLane::kCpu, record_of("within", 1, 2));
  trace.write(TraceLane::kCpu, record_of("b", 4, 6));
  trace.write(TraceLane::kDevice, record_of("a", 1, 9));
  const TraceSummary summary = trace.summarize();
  EXPECT_DOUBLE_EQ(summary.seconds, 10e-3);
  EXPECT_EQ(summary.critical, TraceLane::kDevice);
  const auto& cpu = summary.lanes[static_cast<size_t>(TraceLane::kCpu)];
  EXPECT_DOUBLE_EQ(cpu.busy_seconds, 4e-3);
  EXPECT_DOUBLE_EQ(cpu.busy_share, 0.4);
  EXPECT_DOUBLE_EQ(cpu.idle_share, 0.6);
  EXPECT_EQ(cpu.n_records, 3u);
  EXPECT_DOUBLE_EQ(summary.lanes[static_cast<size_t>(TraceLane::kDevice)].busy_share, 0.8);
}

TEST(TraceSummary, LooksOnlyAsFarBackAsEveryLaneReaches) {
  Trace trace(2);
  trace.write(TraceLane::kDevice, record_of("old", 0, 1));
  trace.write(TraceLane::kDevice, record_of("new", 20, 30));
  for (int64_t i = 0; i < 30; ++i) trace.write(TraceLane::kCpu, record_of("a", i, i + 1));
  const TraceSummary summary = trace.summarize();
  // The CPU's ring reaches back to 28: the device's record that began before is left out too.
  EXPECT_DOUBLE_EQ(summary.seconds, 2e-3);
  EXPECT_EQ(summary.critical, TraceLane::kCpu);
  EXPECT_EQ(summary.lanes[static_cast<size_t>(TraceLane::kDevice)].n_records, 0u);
}

TEST(TraceSummary, NamesTheWorstPredictionsOfEachKindAndLane) {
  Trace trace(64);
  for (int64_t i = 0; i < 4; ++i) {
    trace.write(TraceLane::kCpu, record_of("matmul", 10 * i, 10 * i + 3, 2));     // 1.5
    trace.write(TraceLane::kDevice, record_of("matmul", 10 * i, 10 * i + 2, 8));  // 0.25
    trace.write(TraceLane::kLinkUp, record_of("copy", 10 * i, 10 * i + 1, 1));    // 1
    trace.write(TraceLane::kCpu, record_of("unpredicted", 10 * i + 4, 10 * i + 9));
  }
  TraceRecord rare = record_of("rare", 50, 50, 1);
  rare.end_ns += 1000;  // a microsecond: 1000 times less than predicted, and of no weight
  trace.write(TraceLane::kCpu, rare);
  const TraceSummary summary = trace.summarize();
  ASSERT_EQ(summary.predictions.size(), 3u);
  EXPECT_EQ(summary.predictions[0].lane, TraceLane::kDevice);
  EXPECT_THAT(summary.predictions[0].ratio(), DoubleNear(0.25, 1e-9));
  EXPECT_EQ(summary.predictions[0].count, 4u);
  EXPECT_THAT(summary.predictions[1].ratio(), DoubleNear(1.5, 1e-9));
  EXPECT_EQ(summary.predictions[2].name, "copy");
  const std::string text = to_text(summary, 0.714);
  EXPECT_THAT(text, HasSubstr("critical lane cpu"));
  EXPECT_THAT(text, HasSubstr("hit 71 %"));
  EXPECT_THAT(text, HasSubstr("matmul           device     0.25  of 4"));
  EXPECT_EQ(text.find("step"), text.npos);
}

TEST(Trace, LanesAreWrittenByTheirThreadsAtOnce) {
  Trace trace(128);
  std::vector<std::thread> threads;
  for (size_t l = 0; l < kTraceLanes; ++l) {
    threads.emplace_back([&trace, l] {
      for (int64_t i = 0; i < 10000; ++i) {
        TraceRecord record = record_of(operation_name(OpKind::kMatmul), i, i + 1);
        record.layer = static_cast<int32_t>(l);
        trace.write(static_cast<TraceLane>(l), record);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t l = 0; l < kTraceLanes; ++l) {
    const auto lane = static_cast<TraceLane>(l);
    ASSERT_EQ(trace.n_records(lane), 128u);
    for (size_t i = 0; i < 128; ++i) {
      ASSERT_EQ(trace.record(lane, i).begin_ns, (10000 - 128 + static_cast<int64_t>(i)) * kMs);
      ASSERT_EQ(trace.record(lane, i).layer, static_cast<int32_t>(l));
    }
  }
}

}  // namespace
}  // namespace tandem

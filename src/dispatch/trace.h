// What each lane did and when, beside what was predicted: the newest records of each, in rings that are allocated once.
//
// Threading: one thread at a time writes a lane, different lanes at once; write() neither locks nor allocates.  Everything
// that reads (n_records and below) needs the writers quiet, and their last writes before it in time: after a step.
// Ownership: owns its rings; names are not copied and must outlive it (literals, operation_name()).
// Errors: those of writing a file.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace tandem {

enum class TraceLane : uint8_t { kStep, kCpu, kDevice, kLinkUp, kLinkDown };
inline constexpr size_t kTraceLanes = 5;
std::string_view lane_name(TraceLane lane);

// On one lane, records follow each other or lie within each other.
struct TraceRecord {
  std::string_view name;
  int32_t layer = -1;            // -1: of none
  int64_t begin_ns = 0;          // as Trace::ns()
  int64_t end_ns = 0;            // >= begin_ns
  double predicted_seconds = 0;  // 0: nothing was predicted
  uint64_t bytes = 0;            // read or copied; 0: not said
};

struct TraceSummary {
  struct Lane {
    uint64_t n_records = 0;
    double busy_seconds = 0;  // what records cover, once
    double busy_share = 0;    // of the window
    double idle_share = 0;
  };
  struct Prediction {
    std::string_view name;
    TraceLane lane = TraceLane::kCpu;
    uint64_t count = 0;
    double predicted_seconds = 0, measured_seconds = 0;
    double ratio() const { return measured_seconds / predicted_seconds; }
  };
  double seconds = 0;  // the window: as far back as every lane's records reach
  std::array<Lane, kTraceLanes> lanes = {};
  std::optional<TraceLane> critical;  // the busiest but kStep; nothing without records
  uint64_t n_dropped = 0;             // older records that newer ones replaced
  // Worst ratio first, either way; only what takes 1 % or more of all that was predicted.
  std::vector<Prediction> predictions;
};

class Trace {
 public:
  // Memory: 64 bytes per record, taken at once.
  explicit Trace(size_t records_per_lane);

  static int64_t ns(Clock::time_point time) {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
  }
  static int64_t now_ns() { return ns(Clock::now()); }

  // A full ring forgets its oldest record.
  void write(TraceLane lane, const TraceRecord& record) {
    Ring& ring = rings_[static_cast<size_t>(lane)];
    const uint64_t n = ring.n_written.load(std::memory_order_relaxed);
    ring.records[n % ring.records.size()] = record;
    ring.n_written.store(n + 1, std::memory_order_release);
  }

  // Kept ones.
  size_t n_records(TraceLane lane) const;
  // Oldest first.  Requires: i < n_records(lane).
  const TraceRecord& record(TraceLane lane, size_t i) const;
  void clear();

  TraceSummary summarize() const;

  // The trace-event JSON that Perfetto and Chrome read, in pieces of a few KiB.
  Status write_perfetto(const std::function<Status(std::string_view)>& write) const;
  Status write_perfetto(const std::filesystem::path& path) const;

 private:
  struct alignas(64) Ring {  // lanes share no cache line
    std::vector<TraceRecord> records;
    std::atomic<uint64_t> n_written{0};
  };
  // As far back as every lane that forgot something still reaches.
  int64_t window_begin() const;
  std::vector<TraceRecord> nested(TraceLane lane) const;

  std::array<Ring, kTraceLanes> rings_;
};

// A few lines for people.  `hit_rate`: of the expert cache, where there is one.
std::string to_text(const TraceSummary& summary, std::optional<double> hit_rate = std::nullopt,
                    size_t n_predictions = 5);

}  // namespace tandem

#include "dispatch/trace.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>

#include "base/atomic_file.h"

namespace tandem {

static_assert(sizeof(TraceRecord) <= 64);

std::string_view lane_name(TraceLane lane) {
  constexpr std::array<std::string_view, kTraceLanes> names = {"step", "cpu", "device", "link up",
                                                               "link down"};
  return names[static_cast<size_t>(lane)];
}

Trace::Trace(size_t records_per_lane) {
  for (Ring& ring : rings_) ring.records.resize(std::max<size_t>(records_per_lane, 1));
}

size_t Trace::n_records(TraceLane lane) const {
  const Ring& ring = rings_[static_cast<size_t>(lane)];
  const uint64_t n = ring.n_written.load(std::memory_order_acquire);
  return static_cast<size_t>(std::min<uint64_t>(n, ring.records.size()));
}

const TraceRecord& Trace::record(TraceLane lane, size_t i) const {
  const Ring& ring = rings_[static_cast<size_t>(lane)];
  const uint64_t n = ring.n_written.load(std::memory_order_acquire);
  const uint64_t first = n < ring.records.size() ? 0 : n - ring.records.size();
  return ring.records[(first + i) % ring.records.size()];
}

void Trace::clear() {
  for (Ring& ring : rings_) ring.n_written.store(0, std::memory_order_release);
}

int64_t Trace::window_begin() const {
  int64_t begin = std::numeric_limits<int64_t>::min();
  for (size_t l = 0; l < kTraceLanes; ++l) {
    const Ring& ring = rings_[l];
    if (ring.n_written.load(std::memory_order_acquire) <= ring.records.size()) continue;
    begin = std::max(begin, record(static_cast<TraceLane>(l), 0).begin_ns);
  }
  return begin;
}

// By begin, enclosing ones before what they enclose.
std::vector<TraceRecord> Trace::nested(TraceLane lane) const {
  std::vector<TraceRecord> records;
  for (size_t i = 0; i < n_records(lane); ++i) records.push_back(record(lane, i));
  std::stable_sort(records.begin(), records.end(), [](const TraceRecord& a, const TraceRecord& b) {
    return a.begin_ns != b.begin_ns ? a.begin_ns < b.begin_ns : a.end_ns > b.end_ns;
  });
  return records;
}

// ---------------------------------------------------------------- Perfetto

namespace {

// Microseconds with three places, whatever the locale.
void append_us(std::string& out, int64_t ns) {
  char text[32];
  const char* sign = ns < 0 ? "-" : "";
  const uint64_t n = ns < 0 ? 0 - static_cast<uint64_t>(ns) : static_cast<uint64_t>(ns);
  std::snprintf(text, sizeof(text), "%s%llu.%03llu", sign,
                static_cast<unsigned long long>(n / 1000),
                static_cast<unsigned long long>(n % 1000));
  out += text;
}

void append_quoted(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) >= 0x20) out += c;
  }
  out += '"';
}

int64_t to_ns(double seconds) {
  return static_cast<int64_t>(std::llround(std::clamp(seconds, 0.0, 1e9) * 1e9));
}

void append_lane(std::string& out, TraceLane lane) {
  const std::string tid = std::to_string(static_cast<int>(lane) + 1);
  out += R"({"ph":"M","pid":1,"tid":)" + tid + R"(,"name":"thread_name","args":{"name":)";
  append_quoted(out, lane_name(lane));
  out += R"(}},
{"ph":"M","pid":1,"tid":)" +
         tid + R"(,"name":"thread_sort_index","args":{"sort_index":)" + tid + "}}";
}

void append_event(std::string& out, TraceLane lane, const TraceRecord& record, int64_t zero) {
  out += R"({"ph":"X","pid":1,"tid":)" + std::to_string(static_cast<int>(lane) + 1) + R"(,"cat":)";
  append_quoted(out, lane_name(lane));
  out += R"(,"name":)";
  append_quoted(out, record.name);
  out += R"(,"ts":)";
  append_us(out, record.begin_ns - zero);
  out += R"(,"dur":)";
  append_us(out, record.end_ns - record.begin_ns);
  out += R"(,"args":{"measured_us":)";
  append_us(out, record.end_ns - record.begin_ns);
  if (record.predicted_seconds > 0) {
    out += R"(,"predicted_us":)";
    append_us(out, to_ns(record.predicted_seconds));
  }
  if (record.layer >= 0) out += R"(,"layer":)" + std::to_string(record.layer);
  if (record.bytes > 0) out += R"(,"bytes":)" + std::to_string(record.bytes);
  out += "}}";
}

}  // namespace

Status Trace::write_perfetto(const std::function<Status(std::string_view)>& write) const {
  constexpr size_t kPiece = 16 * 1024;
  int64_t zero = std::numeric_limits<int64_t>::max();
  for (size_t l = 0; l < kTraceLanes; ++l) {
    const auto lane = static_cast<TraceLane>(l);
    for (size_t i = 0; i < n_records(lane); ++i) zero = std::min(zero, record(lane, i).begin_ns);
  }
  std::string out =
      R"({"displayTimeUnit":"ns","traceEvents":[
{"ph":"M","pid":1,"name":"process_name","args":{"name":"tandem"}})";
  for (size_t l = 0; l < kTraceLanes; ++l) {
    const auto lane = static_cast<TraceLane>(l);
    if (n_records(lane) == 0) continue;
    out += ",\n";
    append_lane(out, lane);
    for (const TraceRecord& record : nested(lane)) {
      out += ",\n";
      append_event(out, lane, record, zero);
      if (out.size() < kPiece) continue;
      TANDEM_RETURN_IF_ERROR(write(out));
      out.clear();
    }
  }
  out += "\n]}\n";
  return write(out);
}

Status Trace::write_perfetto(const std::filesystem::path& path) const {
  TANDEM_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(path));
  TANDEM_RETURN_IF_ERROR(write_perfetto([&](std::string_view piece) {
    return file.write(std::as_bytes(std::span(piece.data(), piece.size())));
  }));
  return file.commit();
}

// ---------------------------------------------------------------- summary

namespace {

// What the records cover from `begin` on, each moment once.  Requires: sorted by begin.
double covered_seconds(const std::vector<TraceRecord>& records, int64_t begin) {
  int64_t covered = 0, reached = begin;
  for (const TraceRecord& record : records) {
    const int64_t from = std::max(record.begin_ns, reached);
    if (record.end_ns <= from) continue;
    covered += record.end_ns - from;
    reached = record.end_ns;
  }
  return static_cast<double>(covered) * 1e-9;
}

using PredictionKey = std::pair<TraceLane, std::string_view>;

void add_prediction(std::map<PredictionKey, TraceSummary::Prediction>& predictions, TraceLane lane,
                    const TraceRecord& record) {
  if (!(record.predicted_seconds > 0) || record.end_ns <= record.begin_ns) return;
  TraceSummary::Prediction& sum = predictions[{lane, record.name}];
  sum.name = record.name;
  sum.lane = lane;
  ++sum.count;
  sum.predicted_seconds += record.predicted_seconds;
  sum.measured_seconds += static_cast<double>(record.end_ns - record.begin_ns) * 1e-9;
}

std::vector<TraceSummary::Prediction> worst_first(
    const std::map<PredictionKey, TraceSummary::Prediction>& predictions) {
  std::vector<TraceSummary::Prediction> result;
  double all = 0;
  for (const auto& [key, prediction] : predictions) all += prediction.measured_seconds;
  for (const auto& [key, prediction] : predictions) {
    if (prediction.measured_seconds >= 0.01 * all) result.push_back(prediction);
  }
  const auto wrongness = [](const TraceSummary::Prediction& p) {
    return std::abs(std::log(p.ratio()));
  };
  std::stable_sort(result.begin(), result.end(),
                   [&](const auto& a, const auto& b) { return wrongness(a) > wrongness(b); });
  return result;
}

}  // namespace

TraceSummary Trace::summarize() const {
  TraceSummary summary;
  const int64_t window = window_begin();
  int64_t begin = std::numeric_limits<int64_t>::max();
  int64_t end = std::numeric_limits<int64_t>::min();
  std::array<std::vector<TraceRecord>, kTraceLanes> lanes;
  std::map<PredictionKey, TraceSummary::Prediction> predictions;
  for (size_t l = 0; l < kTraceLanes; ++l) {
    const uint64_t n_written = rings_[l].n_written.load(std::memory_order_acquire);
    const auto lane = static_cast<TraceLane>(l);
    summary.n_dropped += n_written - n_records(lane);
    lanes[l] = nested(lane);
    std::erase_if(lanes[l], [&](const TraceRecord& r) { return r.begin_ns < window; });
    for (const TraceRecord& record : lanes[l]) {
      begin = std::min(begin, record.begin_ns);
      end = std::max(end, record.end_ns);
      add_prediction(predictions, lane, record);
    }
  }
  if (begin > end) return summary;
  summary.seconds = static_cast<double>(end - begin) * 1e-9;
  for (size_t l = 0; l < kTraceLanes; ++l) {
    TraceSummary::Lane& lane = summary.lanes[l];
    lane.n_records = lanes[l].size();
    lane.busy_seconds = covered_seconds(lanes[l], begin);
    lane.busy_share = summary.seconds > 0 ? lane.busy_seconds / summary.seconds : 0;
    lane.idle_share = 1 - lane.busy_share;
    const bool counts = static_cast<TraceLane>(l) != TraceLane::kStep && lane.n_records > 0;
    if (!counts) continue;
    if (!summary.critical ||
        lane.busy_seconds > summary.lanes[static_cast<size_t>(*summary.critical)].busy_seconds) {
      summary.critical = static_cast<TraceLane>(l);
    }
  }
  summary.predictions = worst_first(predictions);
  return summary;
}

std::string to_text(const TraceSummary& summary, std::optional<double> hit_rate,
                    size_t n_predictions) {
  if (!summary.critical) return "no records\n";
  std::string text;
  char line[160];
  const auto add = [&](const char* format, auto... values) {
    std::snprintf(line, sizeof(line), format, values...);
    text += line;
  };
  const auto name_of = [](std::string_view name) { return std::string(name.substr(0, 40)); };
  add("critical lane %s, busy %.0f %% of %.1f ms\n", name_of(lane_name(*summary.critical)).c_str(),
      100 * summary.lanes[static_cast<size_t>(*summary.critical)].busy_share,
      1e3 * summary.seconds);
  for (size_t l = 0; l < kTraceLanes; ++l) {
    const TraceSummary::Lane& lane = summary.lanes[l];
    if (lane.n_records == 0 || static_cast<TraceLane>(l) == TraceLane::kStep) continue;
    add("  %-10s busy %5.1f %%  idle %5.1f %%  %llu records\n",
        name_of(lane_name(static_cast<TraceLane>(l))).c_str(), 100 * lane.busy_share,
        100 * lane.idle_share, static_cast<unsigned long long>(lane.n_records));
  }
  if (hit_rate) add("expert cache hit %.0f %%\n", 100 * *hit_rate);
  for (size_t i = 0; i < std::min(n_predictions, summary.predictions.size()); ++i) {
    const TraceSummary::Prediction& p = summary.predictions[i];
    if (i == 0) text += "measured over predicted, worst first\n";
    add("  %-16s %-10s %.2f  of %llu\n", name_of(p.name).c_str(),
        name_of(lane_name(p.lane)).c_str(), p.ratio(), static_cast<unsigned long long>(p.count));
  }
  if (summary.n_dropped > 0) {
    add("%llu older records were dropped\n", static_cast<unsigned long long>(summary.n_dropped));
  }
  return text;
}

}  // namespace tandem

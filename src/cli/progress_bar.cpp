#include "progress_bar.h"

#include <algorithm>
#include <utility>

#include "numbers.h"

namespace tandem::cli {
namespace {

using std::chrono::steady_clock;
constexpr auto kAppearAfter = std::chrono::milliseconds(300);
constexpr auto kBetween = std::chrono::milliseconds(90);
constexpr int kBarWidth = 24;

}  // namespace

ProgressBar::ProgressBar(Console& console, std::string label, Unit unit)
    : console_(console), label_(std::move(label)), unit_(unit), start_(steady_clock::now()) {}

void ProgressBar::update(uint64_t done, uint64_t total, double eta_seconds) {
  done_ = done;
  total_ = total;
  const auto now = steady_clock::now();
  if (!console_.err_can_move() || now - start_ < kAppearAfter) return;
  if (visible_ && now - drawn_ < kBetween && done != total) return;
  drawn_ = now;
  visible_ = true;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  std::string line = line_of(seconds, eta_seconds);
  // A line that wraps could not be erased.
  line.resize(std::min(line.size(), static_cast<size_t>(std::max(console_.err_width() - 1, 1))));
  console_.err("\r" + line + "\x1b[K");
}

std::string ProgressBar::line_of(double seconds, double eta_seconds) const {
  const double rate = seconds > 0 ? static_cast<double>(done_) / seconds : 0;
  const bool bytes = unit_ == Unit::kBytes;
  const std::string speed =
      bytes ? format_bytes(static_cast<uint64_t>(rate)) + "/s" : format_rate(rate) + " tok/s";
  std::string line = label_ + "  ";
  if (total_ > 0) {
    const double share = std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_));
    const auto filled = static_cast<size_t>(share * kBarWidth);
    line += std::string(filled, '#') + std::string(kBarWidth - filled, '.') + "  ";
    line += format_fixed(share * 100, 0) + " %  ";
    if (eta_seconds <= 0 && rate > 0)
      eta_seconds = static_cast<double>(total_ - std::min(done_, total_)) / rate;
  }
  line += amount() + "  " + speed;
  if (total_ > 0 && eta_seconds > 0) line += "  ETA " + format_time(eta_seconds);
  return line;
}

std::string ProgressBar::amount() const {
  if (unit_ == Unit::kBytes) {
    return total_ > 0 ? format_bytes(done_) + " of " + format_bytes(total_) : format_bytes(done_);
  }
  return std::to_string(done_) + (total_ > 0 ? " of " + std::to_string(total_) : "") + " tokens";
}

void ProgressBar::clear() {
  if (visible_) console_.err("\r\x1b[K");
  visible_ = false;
}

}  // namespace tandem::cli

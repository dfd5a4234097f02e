#include "text/template/text.h"

#include <algorithm>

namespace tandem::jinja {
namespace {

size_t run_at(const Text& text, size_t byte) {
  const auto after = std::upper_bound(text.runs.begin(), text.runs.end(), byte,
                                      [](size_t at, const Run& run) { return at < run.end; });
  return static_cast<size_t>(after - text.runs.begin());
}

}  // namespace

bool Text::trusted_at(size_t byte) const { return runs[run_at(*this, byte)].trusted; }

Text make_text(std::string bytes, bool trusted) {
  Text text;
  text.bytes = std::move(bytes);
  if (!text.bytes.empty()) text.runs.push_back({text.bytes.size(), trusted});
  return text;
}

void TextBuilder::append(std::string_view bytes, bool trusted) {
  if (bytes.empty() || overflowed_) return;
  if (bytes.size() > limit_bytes_ - text_.bytes.size()) {
    overflowed_ = true;
    return;
  }
  text_.bytes.append(bytes);
  if (!text_.runs.empty() && text_.runs.back().trusted == trusted) {
    text_.runs.back().end = text_.bytes.size();
  } else {
    text_.runs.push_back({text_.bytes.size(), trusted});
  }
}

void TextBuilder::append(const Text& text, size_t begin, size_t end) {
  if (begin >= end) return;
  for (size_t run = run_at(text, begin); begin < end; ++run) {
    const size_t stop = std::min(end, text.runs[run].end);
    append(text.view().substr(begin, stop - begin), text.runs[run].trusted);
    begin = stop;
  }
}

}  // namespace tandem::jinja

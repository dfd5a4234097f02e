#include "runtime/answer_text.h"

#include <algorithm>
#include <utility>

namespace tandem {

AnswerText::AnswerText(std::vector<std::string> stop_texts) : stop_texts_(std::move(stop_texts)) {
  withheld_.reserve(256);
}

bool AnswerText::push(std::string_view bytes, std::string& out) {
  characters_.push(bytes, withheld_);
  if (cut_at_stop(out)) return true;
  const size_t certain = certain_length();
  out.append(withheld_, 0, certain);
  withheld_.erase(0, certain);
  return false;
}

void AnswerText::finish(std::string& out) {
  characters_.finish(withheld_);
  if (cut_at_stop(out)) return;
  out += withheld_;
  withheld_.clear();
}

bool AnswerText::cut_at_stop(std::string& out) {
  size_t earliest = std::string::npos;
  for (const std::string& stop : stop_texts_) earliest = std::min(earliest, withheld_.find(stop));
  if (earliest == std::string::npos) return false;
  out.append(withheld_, 0, earliest);
  withheld_.clear();
  return true;
}

// All but the longest end of the text that some stop text starts with.
size_t AnswerText::certain_length() const {
  size_t uncertain = 0;
  for (const std::string& stop : stop_texts_) {
    const size_t longest = std::min(stop.size() - 1, withheld_.size());
    for (size_t n = longest; n > uncertain; --n) {
      if (withheld_.compare(withheld_.size() - n, n, stop, 0, n) == 0) {
        uncertain = n;
        break;
      }
    }
  }
  return withheld_.size() - uncertain;
}

}  // namespace tandem

// A string that remembers, for each byte, whether the template wrote it or somebody else did.
//
// Control tokens are only ever looked for in trusted bytes, so text that a user typed stays text
// whatever it looks like.  Every operation on strings keeps the marks; what cannot be told apart
// becomes untrusted.
//
// Threading: a Text is a value; const access from any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::jinja {

// Bytes up to `end` (from the end of the run before) share one mark.
struct Run {
  size_t end = 0;
  bool trusted = false;
};

struct Text {
  std::string bytes;      // UTF-8, not checked: an invalid byte counts as one character
  std::vector<Run> runs;  // ascending; covers `bytes` exactly; neighbours differ
  bool markup = false;    // made by the filter `safe`: adding plain text to it escapes that text

  std::string_view view() const { return bytes; }
  bool trusted_at(size_t byte) const;
  // True when no byte is untrusted (so for an empty text too).
  bool all_trusted() const { return runs.empty() || (runs.size() == 1 && runs[0].trusted); }
};

Text make_text(std::string bytes, bool trusted);

// Grows a Text up to a set number of bytes.  Past the limit it stops taking bytes and says so.
class TextBuilder {
 public:
  explicit TextBuilder(size_t limit_bytes) : limit_bytes_(limit_bytes) {}

  void append(std::string_view bytes, bool trusted);
  void append(const Text& text) { append(text, 0, text.bytes.size()); }
  // Requires: begin <= end <= text.bytes.size().
  void append(const Text& text, size_t begin, size_t end);

  size_t size_bytes() const { return text_.bytes.size(); }
  bool overflowed() const { return overflowed_; }
  Text take() { return std::move(text_); }

 private:
  Text text_;
  size_t limit_bytes_;
  bool overflowed_ = false;
};

}  // namespace tandem::jinja

// One line at a time, from a person or a pipe.
//
// Threading: one thread. Ownership: an editing reader owns the terminal's modes while read() runs.
#pragma once

#include <memory>
#include <string>

#include "console.h"

namespace tandem::cli {

class LineReader {
 public:
  enum class Outcome { kLine, kInterrupted, kEnd };

  virtual ~LineReader() = default;
  // `line` comes without its newline; pasted newlines stand inside it. The prompt is for people
  // only.  An interrupt leaves what was typed in `line`, as far as is known.
  virtual Outcome read(const char* prompt, std::string& line) = 0;
  // For the history of people.
  virtual void remember(const std::string& /*text*/) {}
};

// Line editing with history on a terminal that can, else plain lines. No prompt when standard input
// is no terminal.
std::unique_ptr<LineReader> make_line_reader(const Console& console);

// What a person means as one message: lines that end in a backslash go on, and a line that begins
// with """ opens a block that ends with """. After an interrupt `message` is
// empty only when nothing had been typed.
LineReader::Outcome read_message(LineReader& reader, std::string& message);

}  // namespace tandem::cli

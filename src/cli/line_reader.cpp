#include "line_reader.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "edit_reader.h"
#include "interrupts.h"

namespace tandem::cli {
namespace {

// Lines from a pipe, a file, or a terminal without cursor movement (which does its own simple
// editing).
class PlainReader : public LineReader {
 public:
  PlainReader(Console console, bool with_prompt) : console_(console), with_prompt_(with_prompt) {}

  Outcome read(const char* prompt, std::string& line) override {
    if (with_prompt_) console_.err(prompt);
    size_t end;
    while ((end = buffer_.find('\n')) == std::string::npos) {
      const Outcome outcome = fill();
      if (outcome == Outcome::kInterrupted && with_prompt_) console_.err("\n");
      if (outcome == Outcome::kInterrupted) line = std::exchange(buffer_, {});
      if (outcome == Outcome::kEnd && !buffer_.empty()) break;  // a last line without its newline
      if (outcome != Outcome::kLine) return outcome;
    }
    line = buffer_.substr(0, end);
    buffer_.erase(0, end == std::string::npos ? end : end + 1);
    if (line.ends_with('\r')) line.pop_back();
    return Outcome::kLine;
  }

 private:
  // kLine: there are more bytes.
  Outcome fill() {
    while (true) {
      pollfd watched[2] = {{STDIN_FILENO, POLLIN, 0}, {interrupts::fd(), POLLIN, 0}};
      ::poll(watched, 2, -1);
      if (interrupts::pending()) return Outcome::kInterrupted;
      char bytes[4096];
      const ssize_t n = ::read(STDIN_FILENO, bytes, sizeof bytes);
      if (n > 0) {
        buffer_.append(bytes, static_cast<size_t>(n));
        return Outcome::kLine;
      }
      if (n == 0 || (errno != EINTR && errno != EAGAIN)) return Outcome::kEnd;
    }
  }

  Console console_;
  bool with_prompt_;
  std::string buffer_;
};

}  // namespace

std::unique_ptr<LineReader> make_line_reader(const Console& console) {
  if (console.in_is_terminal() && console.err_can_move()) {
    if (auto reader = make_edit_reader()) return reader;
  }
  return std::make_unique<PlainReader>(console,
                                       console.in_is_terminal() && console.err_is_terminal());
}

LineReader::Outcome read_message(LineReader& reader, std::string& message) {
  using Outcome = LineReader::Outcome;
  const std::string fence = "\"\"\"";
  message.clear();
  std::string line;
  Outcome outcome = reader.read("> ", line);
  if (outcome == Outcome::kInterrupted) message = line;
  if (outcome != Outcome::kLine) return outcome;
  if (line.starts_with(fence)) {
    line.erase(0, fence.size());
    while (!line.ends_with(fence)) {
      if (!line.empty() || !message.empty()) message += line + "\n";
      outcome = reader.read(". ", line);
      if (outcome == Outcome::kInterrupted) message += fence;
      if (outcome == Outcome::kInterrupted) return outcome;
      if (outcome == Outcome::kEnd) {  // an open block at the end of a pipe is a message
        line = fence;
      }
    }
    line.resize(line.size() - fence.size());
    message += line;
    if (line.empty() && message.ends_with('\n')) message.pop_back();
    return Outcome::kLine;
  }
  while (line.ends_with('\\')) {
    line.back() = '\n';
    message += line;
    line.clear();
    outcome = reader.read(". ", line);
    if (outcome == Outcome::kInterrupted) return outcome;
    if (outcome == Outcome::kEnd) break;
  }
  message += line;
  return Outcome::kLine;
}

}  // namespace tandem::cli

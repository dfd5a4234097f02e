#include "console.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "interrupts.h"
#include "terminal_text.h"

namespace tandem::cli {
namespace {

// Writes everything; an interrupt does not end it unless the program shall end, so that an answer
// is never cut inside a character. Returns 0 or errno.
int write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n >= 0) {
      text.remove_prefix(static_cast<size_t>(n));
    } else if (errno == EAGAIN) {
      pollfd ready = {fd, POLLOUT, 0};
      ::poll(&ready, 1, 100);
    } else if (errno != EINTR) {
      return errno;
    }
    if (interrupts::end_signal() != 0 && !text.empty()) return EINTR;
  }
  return 0;
}

bool is_set(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0';
}

// A single "word:" at the line's start keeps its place; later lines stand under the text.
std::string indented(std::string_view text, std::string_view indent) {
  std::string result;
  for (const char c : text) {
    result += c;
    if (c == '\n') result += indent;
  }
  return result;
}

}  // namespace

Console::Console()
    : in_is_terminal_(::isatty(STDIN_FILENO) == 1),
      out_is_terminal_(::isatty(STDOUT_FILENO) == 1),
      err_is_terminal_(::isatty(STDERR_FILENO) == 1) {
  const char* term = std::getenv("TERM");
  const bool dumb = term == nullptr || *term == '\0' || std::strcmp(term, "dumb") == 0;
  err_can_move_ = err_is_terminal_ && !dumb;
  err_has_colour_ = err_can_move_ && !is_set("NO_COLOR");
}

bool Console::out(std::string_view text) {
  if (out_errno_ == 0) out_errno_ = write_all(STDOUT_FILENO, text);
  return out_errno_ == 0;
}

bool Console::answer(std::string_view text) {
  return out_is_terminal_ ? out(without_controls(text)) : out(text);
}

void Console::line(std::string_view text) { err(without_controls(text) + "\n"); }

void Console::err(std::string_view text) { write_all(STDERR_FILENO, text); }

void Console::note(std::string_view text) {
  line("note        " + indented(text, std::string(12, ' ')));
}

void Console::dim_line(std::string_view text) {
  if (err_has_colour_) {
    err("\x1b[2m" + without_controls(text) + "\x1b[0m\n");
  } else {
    line(text);
  }
}

void Console::error(std::string_view text, std::string_view suggestion) {
  const std::string indent(7, ' ');
  std::string message = err_has_colour_ ? "\x1b[31merror:\x1b[0m " : "error: ";
  message += indented(without_controls(text), indent);
  if (!suggestion.empty())
    message += "\n" + indent + indented(without_controls(suggestion), indent);
  err(message + "\n");
}

int Console::fail(const api::Error& failure) {
  if (failure.code == TANDEM_ERROR_CANCELLED) {
    line("interrupted: " + failure.text);
    return kExitInterrupted;
  }
  error(failure.text, failure.suggestion);
  return kExitFailure;
}

int Console::err_width() const {
  winsize size = {};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

int Console::finish(int code) {
  if (out_errno_ == EPIPE) {
    ::signal(SIGPIPE, SIG_DFL);
    ::raise(SIGPIPE);
  }
  if (out_errno_ != 0 && interrupts::end_signal() == 0) {
    error(std::string("standard output: ") + std::strerror(out_errno_));
    code = kExitFailure;
  }
  if (const int number = interrupts::end_signal(); number != 0) {
    ::signal(number, SIG_DFL);
    ::raise(number);
  }
  return code;
}

}  // namespace tandem::cli

#include "cli/program.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>

#include "status_matchers.h"

namespace tandem::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

const TemporaryFolder& home() {
  static const TemporaryFolder folder;
  return folder;
}

std::vector<char*> pointers_to(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// Only what the program may look at; sanitizers are told through the environment too.
std::vector<std::string> environment_of(const std::vector<std::string>& more) {
  std::vector<std::string> environment = {"PATH=/usr/bin:/bin", "HOME=" + home().path().string(),
                                          "XDG_STATE_HOME=" + (home() / "state").string()};
  for (const char* name :
       {"ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS", "TANDEM_CPU_ISA"}) {
    if (const char* value = std::getenv(name))
      environment.push_back(std::string(name) + "=" + value);
  }
  environment.insert(environment.end(), more.begin(), more.end());
  return environment;
}

int exit_code_of(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

[[noreturn]] void become(std::vector<std::string> arguments, std::vector<std::string> environment) {
  arguments.insert(arguments.begin(), TANDEM_PROGRAM_PATH);
  ::execve(TANDEM_PROGRAM_PATH, pointers_to(arguments).data(), pointers_to(environment).data());
  ::_exit(127);
}

// Appends what is there; closes the descriptor at its end.
void take(int& fd, std::string& text) {
  char buffer[4096];
  const ssize_t n = ::read(fd, buffer, sizeof buffer);
  if (n > 0) {
    text.append(buffer, static_cast<size_t>(n));
  } else if (n == 0 || errno != EINTR) {
    ::close(fd);
    fd = -1;
  }
}

// Feeds and drains until both outputs end. most_out: standard output is closed after so many bytes.
Outcome drive(pid_t process, int in, int out, int err, std::string_view input, size_t most_out) {
  Outcome outcome;
  ::fcntl(in, F_SETFL, O_NONBLOCK);
  const auto end = steady_clock::now() + std::chrono::minutes(1);
  while (out >= 0 || err >= 0) {
    if (in >= 0 && input.empty()) {
      ::close(in);
      in = -1;
    }
    pollfd watched[3] = {{in, POLLOUT, 0}, {out, POLLIN, 0}, {err, POLLIN, 0}};
    ::poll(watched, 3, 100);
    if (watched[0].revents != 0) {
      const ssize_t n = ::write(in, input.data(), input.size());
      input.remove_prefix(n > 0 ? static_cast<size_t>(n) : input.size());
    }
    if (watched[1].revents != 0) take(out, outcome.out);
    if (watched[2].revents != 0) take(err, outcome.err);
    if (out >= 0 && outcome.out.size() >= most_out) {
      ::close(out);
      out = -1;
    }
    if (steady_clock::now() > end) {
      ::kill(process, SIGKILL);
      outcome.timed_out = true;
      break;
    }
  }
  for (const int fd : {in, out, err}) {
    if (fd >= 0) ::close(fd);
  }
  int status = 0;
  ::waitpid(process, &status, 0);
  outcome.exit_code = exit_code_of(status);
  return outcome;
}

Outcome start(const std::vector<std::string>& arguments, std::string_view input, size_t most_out,
              size_t most_file = SIZE_MAX) {
  ::signal(SIGPIPE, SIG_IGN);
  int in[2], out[2], err[2];
  if (::pipe2(in, O_CLOEXEC) != 0 || ::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(err, O_CLOEXEC) != 0)
    return {};
  const pid_t process = ::fork();
  if (process == 0) {
    ::signal(SIGPIPE, SIG_DFL);
    if (most_file != SIZE_MAX) {
      const rlimit limit = {most_file, most_file};
      ::setrlimit(RLIMIT_FSIZE, &limit);
    }
    ::dup2(in[0], STDIN_FILENO);
    ::dup2(out[1], STDOUT_FILENO);
    ::dup2(err[1], STDERR_FILENO);
    become(arguments, environment_of({}));
  }
  ::close(in[0]);
  ::close(out[1]);
  ::close(err[1]);
  return drive(process, in[1], out[0], err[0], input, most_out);
}

}  // namespace

Outcome tandem(const std::vector<std::string>& arguments, std::string_view input) {
  return start(arguments, input, SIZE_MAX);
}

Outcome tandem_with_reader_that_leaves(const std::vector<std::string>& arguments, size_t n_bytes) {
  return start(arguments, "", n_bytes);
}

Outcome tandem_on_a_full_drive(const std::vector<std::string>& arguments, size_t n_bytes,
                               std::string_view input) {
  return start(arguments, input, SIZE_MAX, n_bytes);
}

TerminalProgram::TerminalProgram(const std::vector<std::string>& arguments,
                                 const std::vector<std::string>& environment) {
  winsize size = {};
  size.ws_row = 24;
  size.ws_col = 100;
  process_ = ::forkpty(&terminal_, nullptr, nullptr, &size);
  if (process_ == 0) {
    std::vector<std::string> more = environment;
    more.emplace_back("TERM=xterm");  // the first of a name counts
    become(arguments, environment_of(more));
  }
}

TerminalProgram::~TerminalProgram() {
  if (process_ > 0) {
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
  }
  if (terminal_ >= 0) ::close(terminal_);
}

void TerminalProgram::type(std::string_view keys) {
  while (!keys.empty()) {
    const ssize_t n = ::write(terminal_, keys.data(), keys.size());
    if (n < 0 && errno != EINTR) return;
    if (n > 0) keys.remove_prefix(static_cast<size_t>(n));
  }
}

void TerminalProgram::resize(unsigned short n_columns) {
  winsize size = {};
  size.ws_row = 24;
  size.ws_col = n_columns;
  ::ioctl(terminal_, TIOCSWINSZ, &size);  // the kernel sends SIGWINCH
}

bool TerminalProgram::read_some(int timeout_ms) {
  pollfd watched = {terminal_, POLLIN, 0};
  if (::poll(&watched, 1, timeout_ms) <= 0) return false;
  char buffer[4096];
  const ssize_t n = ::read(terminal_, buffer, sizeof buffer);
  if (n > 0) all_.append(buffer, static_cast<size_t>(n));
  return n > 0;
}

bool TerminalProgram::shows_within(std::string_view text, double seconds) {
  const auto end = steady_clock::now() + milliseconds(static_cast<int64_t>(1000 * seconds));
  while (steady_clock::now() < end) {
    const size_t found = all_.find(text, looked_at_);
    if (found != std::string::npos) {
      looked_at_ = found + text.size();
      return true;
    }
    read_some(100);
  }
  return false;
}

bool TerminalProgram::shows_more(size_t n_bytes) {
  const auto end = steady_clock::now() + std::chrono::seconds(20);
  const size_t wanted = all_.size() + n_bytes;
  while (all_.size() < wanted && steady_clock::now() < end) read_some(100);
  looked_at_ = all_.size();
  return all_.size() >= wanted;
}

bool TerminalProgram::prompts() {
  if (!shows("> ")) return false;
  const auto end = steady_clock::now() + std::chrono::seconds(20);
  termios mode = {};
  while (steady_clock::now() < end) {
    if (::tcgetattr(terminal_, &mode) == 0 && (mode.c_lflag & ICANON) == 0) return true;
    read_some(5);
  }
  return false;
}

int TerminalProgram::exit_code() {
  const auto end = steady_clock::now() + std::chrono::seconds(20);
  int status = 0;
  while (steady_clock::now() < end) {
    read_some(20);
    if (::waitpid(process_, &status, WNOHANG) == process_) {
      process_ = -1;
      return exit_code_of(status);
    }
  }
  return -1;
}

std::string golden(std::string_view name) {
  return std::string(TANDEM_FIXTURES) + "/golden/" + std::string(name);
}

std::string bundled() {
  return std::string(TANDEM_SOURCE_DIR) + "/examples/models/tiny-verse.gguf";
}

}  // namespace tandem::testing

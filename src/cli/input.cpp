#include "input.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "interrupts.h"
#include "numbers.h"

namespace tandem::cli {
namespace {

// Of a text that is read whole: sixty times what the longest contexts hold that models are trained for.
constexpr uint64_t kMostBytes = uint64_t{1} << 28;

std::optional<std::string> read_descriptor(int fd, const std::string& name, std::string& error) {
  std::string content;
  char buffer[1 << 16];
  while (true) {
    pollfd watched[2] = {{fd, POLLIN, 0}, {interrupts::fd(), POLLIN, 0}};
    ::poll(watched, 2, -1);
    if (interrupts::pending()) {
      error = "interrupted";
      return std::nullopt;
    }
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n == 0) return content;
    if (n > 0) content.append(buffer, static_cast<size_t>(n));
    if (content.size() > kMostBytes) {
      error = name + ": more than " + format_bytes(kMostBytes) + ", which no context holds.";
      return std::nullopt;
    }
    if (n < 0 && errno != EINTR && errno != EAGAIN) {
      error = name + ": " + std::strerror(errno);
      return std::nullopt;
    }
  }
}

}  // namespace

std::optional<std::string> read_standard_input(std::string& error) {
  return read_descriptor(STDIN_FILENO, "standard input", error);
}

std::optional<std::string> read_all(const std::string& path, std::string& error) {
  if (path == "-") return read_standard_input(error);
  // Without waiting: a pipe that nobody writes to is waited for where an interrupt is seen.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    error = path + ": " + std::strerror(errno);
    return std::nullopt;
  }
  auto content = read_descriptor(fd, path, error);
  ::close(fd);
  return content;
}

}  // namespace tandem::cli

#include "files.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

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

// A model is gigabytes that somebody has waited for; nothing else that is written here begins like one.
bool is_model(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return false;
  char start[4] = {};
  const bool is = ::read(fd, start, sizeof(start)) == 4 && std::string_view(start, 4) == "GGUF";
  ::close(fd);
  return is;
}

}  // namespace

std::optional<std::string> read_standard_input(std::string& error) {
  return read_descriptor(STDIN_FILENO, "standard input", error);
}

std::optional<std::string> read_all(const std::string& path, std::string& error) {
  if (path == "-") return read_standard_input(error);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    error = path + ": " + std::strerror(errno);
    return std::nullopt;
  }
  auto content = read_descriptor(fd, path, error);
  ::close(fd);
  return content;
}

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  if (!committed_ && !in_place_) ::unlink(part_path_.c_str());
}

bool AtomicFile::fail(const std::string& what, int error_number) {
  error_ = path_ + ": " + what + ": " + std::strerror(error_number);
  return false;
}

bool AtomicFile::open() {
  in_place_ = is_special_file(path_);
  if (is_model(path_)) {
    error_ =
        path_ + ": is a model (GGUF), which is not overwritten; remove it first if it is meant.";
    return false;
  }
  if (in_place_) {
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
    return fd_ >= 0 || fail("cannot open", errno);
  }
  // A name that exists is left alone: a process that ended left it there, or somebody a link.
  for (unsigned count = 0; fd_ < 0; ++count) {
    part_path_ = path_ + ".part-" + std::to_string(::getpid()) + "-" + std::to_string(count);
    fd_ = ::open(part_path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd_ < 0 && errno != EEXIST) return fail("cannot create", errno);
  }
  return true;
}

bool AtomicFile::write(const void* bytes, size_t n_bytes) {
  const char* at = static_cast<const char*>(bytes);
  while (n_bytes > 0) {
    const ssize_t n = ::write(fd_, at, n_bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail("cannot write after " + format_bytes(n_written_), errno);
    at += n;
    n_bytes -= static_cast<size_t>(n);
    n_written_ += static_cast<uint64_t>(n);
  }
  return true;
}

bool AtomicFile::commit() {
  if (in_place_) return true;
  if (::fsync(fd_) != 0) return fail("cannot write", errno);
  if (::rename(part_path_.c_str(), path_.c_str()) != 0) return fail("cannot rename", errno);
  committed_ = true;
  return true;
}

bool is_special_file(const std::string& path) {
  struct stat info = {};
  return ::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode);
}

bool write_file(const std::string& path, std::string_view content, std::string& error) {
  AtomicFile file(path);
  const bool written = file.open() && file.write(content.data(), content.size()) && file.commit();
  if (!written) error = file.error();
  return written;
}

}  // namespace tandem::cli

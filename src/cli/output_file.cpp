#include "output_file.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <utility>

#include "interrupts.h"
#include "numbers.h"

namespace tandem::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kReaderPollMs = 20;  // a pipe does not tell when somebody opens its other end

// What a link points to, if that exists; else the path itself.
std::string resolved(const std::string& path) {
  std::error_code error;
  if (!fs::is_symlink(path, error)) return path;
  const fs::path target = fs::canonical(path, error);
  return error ? path : target.string();
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

std::optional<mode_t> permissions_of(const std::string& path) {
  struct stat info = {};
  if (::stat(path.c_str(), &info) != 0) return std::nullopt;
  return info.st_mode & mode_t{07777};
}

}  // namespace

OutputFile::OutputFile(std::string path, mode_t mode)
    : path_(std::move(path)), target_(resolved(path_)), mode_(mode) {}

OutputFile::~OutputFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  if (!part_path_.empty()) ::unlink(part_path_.c_str());
}

bool OutputFile::fail(const std::string& what, int error_number) {
  error_ = path_ + ": " + what + ": " + std::strerror(error_number);
  return false;
}

bool OutputFile::open() {
  if (path_ == "-") return open_standard_output();
  if (is_special_file(target_)) return open_in_place();
  if (!is_model(target_)) return open_beside();
  error_ = path_ + ": is a model (GGUF), which is not overwritten; remove it first if it is meant.";
  return false;
}

bool OutputFile::open_standard_output() {
  if (::isatty(STDOUT_FILENO) != 0) {
    error_ = "standard output is a terminal, and this is no text.";
    return false;
  }
  fd_ = ::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
  return fd_ >= 0 || fail("cannot open standard output", errno);
}

bool OutputFile::open_in_place() {
  while (!interrupts::pending()) {
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd_ >= 0) return true;
    if (errno != ENXIO) return fail("cannot open", errno);
    pollfd watched = {interrupts::fd(), POLLIN, 0};  // a pipe that nobody reads yet
    ::poll(&watched, 1, kReaderPollMs);
  }
  return fail("nobody reads it", EINTR);
}

bool OutputFile::open_beside() {
  const std::optional<mode_t> existing = permissions_of(target_);
  // A name that exists is left alone: a process that ended left it there, or somebody a link.
  for (unsigned count = 0; fd_ < 0; ++count) {
    part_path_ = target_ + ".part-" + std::to_string(::getpid()) + "-" + std::to_string(count);
    // At no moment may more people read it than the old file.
    fd_ = ::open(part_path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                 mode_ & existing.value_or(mode_));
    if (fd_ < 0 && errno != EEXIST) return fail("cannot create", errno);
  }
  if (existing && ::fchmod(fd_, *existing) != 0) return fail("cannot set permissions", errno);
  return true;
}

bool OutputFile::wait_for_room() {
  pollfd watched[2] = {{fd_, POLLOUT, 0}, {interrupts::fd(), POLLIN, 0}};
  ::poll(watched, 2, -1);
  return !interrupts::pending() || fail("cannot write after " + format_bytes(n_written_), EINTR);
}

bool OutputFile::write(const void* bytes, size_t n_bytes) {
  const char* at = static_cast<const char*>(bytes);
  while (n_bytes > 0) {
    const ssize_t n = ::write(fd_, at, n_bytes);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
      if (!wait_for_room()) return false;
      continue;
    }
    if (n < 0) return fail("cannot write after " + format_bytes(n_written_), errno);
    at += n;
    n_bytes -= static_cast<size_t>(n);
    n_written_ += static_cast<uint64_t>(n);
  }
  return true;
}

bool OutputFile::commit() {
  if (!part_path_.empty()) {
    if (::fsync(fd_) != 0) return fail("cannot write", errno);
    if (::rename(part_path_.c_str(), target_.c_str()) != 0) return fail("cannot rename", errno);
    part_path_.clear();
  }
  const int fd = std::exchange(fd_, -1);
  return ::close(fd) == 0 || fail("cannot write", errno);
}

bool is_special_file(const std::string& path) {
  struct stat info = {};
  return ::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode);
}

bool can_write(const std::string& path, std::string& error) {
  struct stat info = {};
  if (::stat(path.c_str(), &info) == 0 && S_ISFIFO(info.st_mode)) return true;  // opening it waits
  OutputFile file(path);
  const bool opened = file.open();
  if (!opened) error = file.error();
  return opened;
}

bool write_file(const std::string& path, std::string_view content, std::string& error,
                mode_t mode) {
  OutputFile file(path, mode);
  const bool written = file.open() && file.write(content.data(), content.size()) && file.commit();
  if (!written) error = file.error();
  return written;
}

}  // namespace tandem::cli

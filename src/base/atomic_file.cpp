#include "base/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <optional>
#include <system_error>
#include <utility>

#include "base/bytes.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

constexpr size_t kLongestName =
    200;  // of the target, in the temporary name; file systems stop at 255

// What a link points to, if that exists; else the path itself.
fs::path resolved(const fs::path& path) {
  std::error_code error;
  if (!fs::is_symlink(path, error)) return path;
  fs::path target = fs::canonical(path, error);
  return error ? path : target;
}

// No other file of this process, and no other process while it lives, has this one.
std::string temporary_name(const fs::path& target) {
  static std::atomic<unsigned> count{0};
  const std::string name = target.filename().string().substr(0, kLongestName);
  return (target.parent_path() /
          (name + ".partial-" + std::to_string(::getpid()) + "-" + std::to_string(count++)))
      .string();
}

std::optional<mode_t> permissions_of(const std::string& path) {
  struct stat info = {};
  if (::stat(path.c_str(), &info) != 0) return std::nullopt;
  return info.st_mode & mode_t{07777};
}

// So that the new name outlives a crash.  Some file systems cannot sync a folder; the file itself
// is safe by then.
void sync_folder_of(const std::string& path) {
  const fs::path folder = fs::path(path).parent_path();
  const int fd = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

}  // namespace

Result<AtomicFile> AtomicFile::create(const fs::path& path, mode_t mode) {
  AtomicFile file(path.string(), resolved(path).string());
  struct stat info = {};
  if (::stat(file.target_.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    return invalid_argument(file.path_ + ": is not a regular file").in_file(file.path_);
  }
  TANDEM_RETURN_IF_ERROR(file.create_beside(mode));
  return file;
}

Status AtomicFile::create_beside(mode_t mode) {
  const std::optional<mode_t> existing = permissions_of(target_);
  do {
    temporary_ = temporary_name(target_);
    // A name that exists is left alone: it belongs to a process that ended, or somebody put a link
    // there.
    // At no moment may more people read it than the old file.
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                 mode & existing.value_or(mode));
  } while (fd_ < 0 && errno == EEXIST);
  if (fd_ < 0) return failed(errno, "create");
  if (existing && ::fchmod(fd_, *existing) != 0) return failed(errno, "set permissions");
  return ok_status();
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      target_(std::move(other.target_)),
      temporary_(std::move(other.temporary_)),
      fd_(std::exchange(other.fd_, -1)),
      n_written_(other.n_written_),
      drive_is_full_(other.drive_is_full_) {}

AtomicFile& AtomicFile::operator=(AtomicFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(target_, other.target_);
  std::swap(temporary_, other.temporary_);
  std::swap(fd_, other.fd_);
  std::swap(n_written_, other.n_written_);
  std::swap(drive_is_full_, other.drive_is_full_);
  return *this;
}

AtomicFile::~AtomicFile() { drop(); }

void AtomicFile::drop() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
  fd_ = -1;
}

Status AtomicFile::failed(int error_number, const char* doing) {
  drive_is_full_ = error_number == ENOSPC || error_number == EDQUOT;
  return status_from_errno(error_number, path_ + ": " + doing).in_file(path_);
}

Status AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error_number = errno;
      return failed(error_number, ("write after " + format_bytes(n_written_)).c_str());
    }
    bytes = bytes.subspan(static_cast<size_t>(n));
    n_written_ += static_cast<uint64_t>(n);
  }
  return ok_status();
}

Status AtomicFile::commit() {
  if (::fsync(fd_) != 0) return failed(errno, "sync");
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) return failed(errno, "rename");
  ::close(std::exchange(fd_, -1));
  sync_folder_of(target_);
  return ok_status();
}

Status write_file_atomically(const fs::path& path,
                             std::span<const std::span<const std::byte>> contents, mode_t mode) {
  TANDEM_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(path, mode));
  for (const std::span<const std::byte> part : contents) TANDEM_RETURN_IF_ERROR(file.write(part));
  return file.commit();
}

}  // namespace tandem

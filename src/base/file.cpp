#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

namespace tandem {
namespace {

constexpr uint32_t kDirectAlignment = 4096;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

class PosixReadFile final : public ReadFile {
 public:
  PosixReadFile(Descriptor fd, std::string path, uint64_t size_bytes, Mode mode, uint32_t alignment)
      : ReadFile(std::move(path), size_bytes, mode, alignment), fd_(std::move(fd)) {}

  Status read_at(uint64_t offset, std::span<std::byte> buffer) const override {
    uint64_t wanted = buffer.size();
    if (mode() == Mode::kDirect && offset < size_bytes()) {
      wanted = std::min<uint64_t>(wanted, size_bytes() - offset);
    }
    uint64_t done = 0;
    while (done < wanted) {
      const ssize_t n = ::pread(fd_.get(), buffer.data() + done, buffer.size() - done,
                                static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return failed(errno, offset + done);
      if (n == 0) return ended_early(offset + done);
      done += static_cast<uint64_t>(n);
      if (done < wanted && done % alignment() != 0) return ended_early(offset + done);
    }
    return ok_status();
  }

  double cached_share() const override;

 private:
  Status failed(int error_number, uint64_t offset) const {
    return status_from_errno(error_number, path() + ": read at byte " + std::to_string(offset))
        .in_file(path())
        .at_offset(offset);
  }
  Status ended_early(uint64_t offset) const {
    return io_error(path() + ": ended at byte " + std::to_string(offset) + ", was " +
                    std::to_string(size_bytes()) + " bytes long when it was opened")
        .in_file(path())
        .at_offset(offset);
  }

  Descriptor fd_;
};

// mincore over windows spread over the file; the mapping is never touched, so a file cut short in the
// meantime cannot raise a signal.
double PosixReadFile::cached_share() const {
  constexpr uint64_t kWindow = 1u << 20;
  constexpr uint64_t kPage = 4096;
  constexpr uint64_t kWindows = 16;
  if (size_bytes() == 0) return 0;
  uint64_t pages = 0, present = 0;
  std::vector<unsigned char> in_core(kWindow / kPage);
  for (uint64_t i = 0; i < kWindows; ++i) {
    const uint64_t offset = size_bytes() / kWindows * i / kPage * kPage;
    const uint64_t length = std::min(kWindow, size_bytes() - offset);
    void* view = ::mmap(nullptr, length, PROT_NONE, MAP_SHARED, fd_.get(), static_cast<off_t>(offset));
    if (view == MAP_FAILED) return 0;
    const bool known = ::mincore(view, length, in_core.data()) == 0;
    ::munmap(view, length);
    if (!known) return 0;
    const uint64_t n = (length + kPage - 1) / kPage;
    pages += n;
    present += static_cast<uint64_t>(
        std::count_if(in_core.begin(), in_core.begin() + static_cast<ptrdiff_t>(n),
                      [](unsigned char flags) { return (flags & 1) != 0; }));
  }
  return static_cast<double>(present) / static_cast<double>(pages);
}

Status write_all(int fd, std::span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return status_from_errno(errno, path + ": write").in_file(path);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return ok_status();
}

Status write_and_sync(const std::string& path, std::span<const std::span<const std::byte>> contents) {
  const Descriptor fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (fd.get() < 0) return status_from_errno(errno, path + ": create").in_file(path);
  for (std::span<const std::byte> part : contents) {
    TANDEM_RETURN_IF_ERROR(write_all(fd.get(), part, path));
  }
  if (::fsync(fd.get()) != 0) return status_from_errno(errno, path + ": sync").in_file(path);
  return ok_status();
}

}  // namespace

Result<std::unique_ptr<ReadFile>> ReadFile::open(const std::filesystem::path& path, Mode mode) {
  const bool direct = mode == Mode::kDirect;
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0)));
  if (fd.get() < 0) {
    if (direct && errno == EINVAL) {
      return unsupported(path.string() + ": this file system has no direct reads").in_file(path);
    }
    return status_from_errno(errno, path.string()).in_file(path.string());
  }
  struct stat info = {};
  if (::fstat(fd.get(), &info) != 0) return status_from_errno(errno, path.string()).in_file(path);
  if (!S_ISREG(info.st_mode)) {
    return invalid_argument(path.string() + ": is not a regular file").in_file(path.string());
  }
  return std::unique_ptr<ReadFile>(std::make_unique<PosixReadFile>(
      std::move(fd), path.string(), static_cast<uint64_t>(info.st_size), mode,
      direct ? kDirectAlignment : 1));
}

Status check_replaceable(const std::filesystem::path& path) {
  struct stat info = {};
  if (::stat(path.c_str(), &info) != 0 || S_ISREG(info.st_mode)) return ok_status();
  return invalid_argument(path.string() + ": is not a regular file").in_file(path.string());
}

Status write_file_atomically(const std::filesystem::path& path,
                             std::span<const std::span<const std::byte>> contents) {
  TANDEM_RETURN_IF_ERROR(check_replaceable(path));
  const std::string temporary = path.string() + ".partial-" + std::to_string(::getpid());
  Status status = write_and_sync(temporary, contents);
  if (status.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) {
    status = status_from_errno(errno, path.string() + ": rename").in_file(path.string());
  }
  if (!status.ok()) ::unlink(temporary.c_str());
  return status;
}

}  // namespace tandem

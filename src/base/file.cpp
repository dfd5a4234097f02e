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

FileIdentity identity_of(const struct stat& info) {
  return {static_cast<uint64_t>(info.st_dev), static_cast<uint64_t>(info.st_ino),
          static_cast<uint64_t>(info.st_size),
          int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec};
}

class PosixReadFile final : public ReadFile {
 public:
  PosixReadFile(Descriptor fd, std::string path, const FileIdentity& identity, Mode mode,
                uint32_t alignment)
      : ReadFile(std::move(path), identity.size_bytes, mode, alignment, identity),
        fd_(std::move(fd)) {}

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
    void* view =
        ::mmap(nullptr, length, PROT_NONE, MAP_SHARED, fd_.get(), static_cast<off_t>(offset));
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

}  // namespace

Result<std::unique_ptr<ReadFile>> ReadFile::open(const std::filesystem::path& path, Mode mode) {
  const bool direct = mode == Mode::kDirect;
  // Not waiting for the other end: the name may be that of a pipe.
  Descriptor fd(
      ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (direct ? O_DIRECT : 0)));
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
      std::move(fd), path.string(), identity_of(info), mode, direct ? kDirectAlignment : 1));
}

}  // namespace tandem

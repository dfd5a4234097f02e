#include "device/mirror/device_arena.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "base/bytes.h"
#include "base/checked.h"

namespace tandem::mirror {

Result<std::unique_ptr<DeviceArena>> DeviceArena::create(uint64_t bytes) {
  bytes = align_up(std::max<uint64_t>(bytes, 1), 4096);
  const int file = ::memfd_create("tandem-mirror", MFD_CLOEXEC);
  if (file < 0) return status_from_errno(errno, "memory of the mirror device");
  void* addresses = MAP_FAILED;
  void* own = MAP_FAILED;
  if (::ftruncate(file, static_cast<off_t>(bytes)) == 0) {
    addresses =
        ::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    own = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
  }
  if (addresses == MAP_FAILED || own == MAP_FAILED) {
    const int error = errno;
    if (addresses != MAP_FAILED) ::munmap(addresses, bytes);
    ::close(file);
    return status_from_errno(error, "reserve " + format_bytes(bytes) + " for the mirror device");
  }
  return std::unique_ptr<DeviceArena>(new DeviceArena(file, static_cast<std::byte*>(addresses),
                                                      static_cast<std::byte*>(own), bytes));
}

DeviceArena::~DeviceArena() {
  ::munmap(public_, bytes_);
  ::munmap(own_, bytes_);
  ::close(file_);
}

std::byte* DeviceArena::allocate(size_t bytes) {
  bytes = align_up(std::max<size_t>(bytes, 1), kAlignment);
  size_t offset = 0;
  for (const auto& [begin, size] : taken_) {
    if (begin - offset >= bytes) break;
    offset = begin + size;
  }
  if (bytes > bytes_ || offset > bytes_ - bytes) return nullptr;
  taken_.emplace(offset, bytes);
  used_ += bytes;
  return public_ + offset;
}

size_t DeviceArena::free(std::byte* address) {
  const auto place = taken_.find(static_cast<size_t>(address - public_));
  TANDEM_ASSERT(place != taken_.end());
  if (place == taken_.end()) return 0;
  const auto [offset, bytes] = *place;
  taken_.erase(place);
  used_ -= bytes;
  // Whole pages only; a refusal costs memory, nothing else.
  const size_t begin = align_up(offset, 4096), end = (offset + bytes) / 4096 * 4096;
  if (begin < end) {
    (void)::fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(begin),
                      static_cast<off_t>(end - begin));
  }
  return bytes;
}

}  // namespace tandem::mirror

// The mirror's memory: addresses that host code cannot follow, and where the mirror's own threads see the same bytes.
//
// The bytes lie in an anonymous file that is mapped for the mirror; the addresses that are handed out are those of a
// second, inaccessible range of the same size.
//
// Threading: allocate and free from one thread at a time; the rest from any.
// Ownership: owns both ranges.
// Errors: kOutOfMemory with the bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>

#include "base/result.h"

namespace tandem::mirror {

class DeviceArena {
 public:
  static constexpr size_t kAlignment = 256;

  static Result<std::unique_ptr<DeviceArena>> create(uint64_t bytes);
  ~DeviceArena();
  DeviceArena(const DeviceArena&) = delete;
  DeviceArena& operator=(const DeviceArena&) = delete;

  uint64_t bytes() const { return bytes_; }
  uint64_t used_bytes() const { return used_; }

  // First fit.  Null when no gap is large enough.
  std::byte* allocate(size_t bytes);
  // The bytes that were allocated there.  Requires: an address from allocate().  The memory goes back to the system.
  size_t free(std::byte* address);

  bool contains(const std::byte* address) const {
    return address >= public_ && address < public_ + bytes_;
  }
  // What to add to an address to follow it.
  ptrdiff_t shift() const { return own_ - public_; }

 private:
  DeviceArena(int file, std::byte* addresses, std::byte* own, uint64_t bytes)
      : file_(file), public_(addresses), own_(own), bytes_(bytes) {}

  const int file_;
  std::byte* const public_;
  std::byte* const own_;
  const uint64_t bytes_;
  uint64_t used_ = 0;
  std::map<size_t, size_t> taken_;  // offset -> bytes, aligned
};

}  // namespace tandem::mirror

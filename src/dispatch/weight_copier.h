// Weights on their way to a device, in pieces, so that somebody can see how far it is and stop it.
//
// Threading: one thread.
// Ownership: device, callback and flag outlive it.
// Errors: kCancelled; those of the device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/progress.h"
#include "base/result.h"
#include "device/device.h"

namespace tandem {

class WeightCopier {
 public:
  // `total_bytes` of all calls of copy().
  static Result<WeightCopier> create(Device& device, StreamId stream, uint64_t total_bytes,
                                     const ProgressCallback& progress, const CancelFlag& cancel);

  // Returns when `bytes` are there.
  Status copy(std::byte* to, const std::byte* from, size_t bytes);

 private:
  WeightCopier(Device& device, StreamId stream, FlagId arrived, uint64_t total_bytes,
               const ProgressCallback& progress, const CancelFlag& cancel);

  Device& device_;
  StreamId stream_;
  FlagId arrived_;
  ProgressMeter meter_;
  const CancelFlag& cancel_;
  size_t piece_bytes_;
  uint64_t n_done_ = 0;  // bytes
  uint32_t n_pieces_ = 0;
};

}  // namespace tandem

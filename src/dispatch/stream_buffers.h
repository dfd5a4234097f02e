// Weights that pass through device memory: copied from DRAM before each use, into two buffers in turn, so that one is
// filled while the other is read.
//
// Threading: one caller at a time, who submits to the device.
// Ownership: owns the buffers; device and store outlive it.
// Errors: those of the device.
#pragma once

#include <array>
#include <memory>

#include "device/device.h"
#include "memory/block_store.h"

namespace tandem {

class StreamBuffers {
 public:
  // Each buffer holds the largest block that is streamed.
  static Result<std::unique_ptr<StreamBuffers>> create(Device& device, const BlockStore& store,
                                                       uint64_t bytes);
  // Requires: nothing that was submitted is left.
  ~StreamBuffers();
  StreamBuffers(const StreamBuffers&) = delete;
  StreamBuffers& operator=(const StreamBuffers&) = delete;

  // Nothing that was submitted is left.
  void begin_step();
  // After a step of which something failed: waits until no copy is under way.
  void settle() { (void)device_.synchronize(stream_); }
  // Where the extent will be for what `reader` is given next, until release().
  Result<const std::byte*> acquire(StreamId reader, BlockId block, size_t extent, size_t bytes);
  // What reads it has been submitted.
  Status release(StreamId reader);

 private:
  struct Buffer {
    std::byte* memory = nullptr;
    EventId filled{}, read{};
    bool in_use = false;  // something submitted may still read it
  };
  StreamBuffers(Device& device, const BlockStore& store) : device_(device), store_(store) {}

  Device& device_;
  const BlockStore& store_;
  StreamId stream_{};
  std::array<Buffer, 2> buffers_;
  size_t current_ = 0;
};

}  // namespace tandem

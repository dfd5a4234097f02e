// Flags in page-locked memory that streams set and wait for: by the driver's stream memory operations where they work,
// else by kernels of one thread.
//
// Threading: create() and the stream's side from the submitting thread; set, value and size from any.
// Ownership: owns the flags' memory.
// Errors: kDevice, kDeviceLost; kInvalidArgument once there are kCapacity flags.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "base/result.h"
#include "device/cuda/owners.h"

namespace tandem::cuda {

class StreamFlags {
 public:
  static constexpr uint32_t kCapacity = 512;

  // kernels_only: do not ask the driver.  Requires: the card is this thread's current device.
  static Result<StreamFlags> create(bool kernels_only);

  Result<uint32_t> add();
  void clear();

  // Submits; `capturing`: into a graph that is being written.
  Status stream_set(cudaStream_t stream, uint32_t flag, uint32_t value, bool capturing);
  Status stream_wait(cudaStream_t stream, uint32_t flag, uint32_t value, bool capturing);

  void set(uint32_t flag, uint32_t value) { at(flag).store(value, std::memory_order_seq_cst); }
  // Whether it is at `value` or beyond, as differences modulo 2^32.
  bool reached(uint32_t flag, uint32_t value) const {
    return static_cast<int32_t>(at(flag).load(std::memory_order_seq_cst) - value) >= 0;
  }

  // What the driver was found to do.
  bool by_driver() const { return driver_streams_; }
  bool by_driver_in_graphs() const { return driver_graphs_; }

 private:
  static constexpr size_t kSpacing = 64;  // bytes: a cache line each
  // CUresult fn(CUstream, CUdeviceptr, cuuint32_t, unsigned flags)
  using MemoryOperation = int(CUstream_st*, unsigned long long, uint32_t, unsigned);

  StreamFlags() = default;
  uint32_t* place(uint32_t flag) const;
  std::atomic_ref<uint32_t> at(uint32_t flag) const { return std::atomic_ref(*place(flag)); }
  bool find_driver_functions();
  // Whether a set and a wait really go through the driver, on a stream and in a graph.
  bool try_stream(cudaStream_t stream);
  bool try_graph(cudaStream_t stream);
  Status set_and_wait(cudaStream_t stream, uint32_t value, bool capturing);

  HostMemoryOwner memory_;
  uint32_t n_ = 1;  // flag 0 is for trying
  MemoryOperation* write_value_ = nullptr;
  MemoryOperation* wait_value_ = nullptr;
  bool driver_streams_ = false, driver_graphs_ = false;
};

}  // namespace tandem::cuda

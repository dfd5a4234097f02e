#include "device/cuda/stream_flags.h"

#include <cstring>

#include "kernels_gpu/launch.h"

namespace tandem::cuda {
namespace {

using gpu::status_from_cuda;

// Values of cuda.h, which is not included: only the two functions are used, and those are looked up.
constexpr unsigned kWriteDefault =
    0;  // CU_STREAM_WRITE_VALUE_DEFAULT: earlier work is visible before the value
constexpr unsigned kWaitAtLeast = 0;  // CU_STREAM_WAIT_VALUE_GEQ: as a difference modulo 2^32
constexpr unsigned kFirstVersion =
    11070;  // of CUDA, in which these functions had their present form

void* driver_function(const char* name) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
#if CUDART_VERSION >= 12050
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion(name, &function, kFirstVersion, cudaEnableDefault, &found);
#else
  const cudaError_t error = cudaGetDriverEntryPoint(name, &function, cudaEnableDefault, &found);
#endif
  if (error != cudaSuccess) (void)cudaGetLastError();
  return error == cudaSuccess && found == cudaDriverEntryPointSuccess ? function : nullptr;
}

}  // namespace

Result<StreamFlags> StreamFlags::create(bool kernels_only) {
  StreamFlags flags;
  void* memory = nullptr;
  TANDEM_RETURN_IF_ERROR(status_from_cuda(
      cudaHostAlloc(&memory, kCapacity * kSpacing, cudaHostAllocMapped | cudaHostAllocPortable),
      "taking page-locked memory for flags"));
  flags.memory_.reset(memory);
  flags.clear();
  if (kernels_only || !flags.find_driver_functions()) return flags;

  cudaStream_t raw = nullptr;
  TANDEM_RETURN_IF_ERROR(
      status_from_cuda(cudaStreamCreateWithFlags(&raw, cudaStreamNonBlocking), "making a stream"));
  const StreamOwner stream(raw);
  flags.driver_streams_ = flags.try_stream(raw);
  flags.driver_graphs_ = flags.driver_streams_ && flags.try_graph(raw);
  (void)cudaGetLastError();
  return flags;
}

bool StreamFlags::find_driver_functions() {
  write_value_ = reinterpret_cast<MemoryOperation*>(driver_function("cuStreamWriteValue32"));
  wait_value_ = reinterpret_cast<MemoryOperation*>(driver_function("cuStreamWaitValue32"));
  return write_value_ != nullptr && wait_value_ != nullptr;
}

Status StreamFlags::set_and_wait(cudaStream_t stream, uint32_t value, bool capturing) {
  TANDEM_RETURN_IF_ERROR(stream_set(stream, 0, value, capturing));
  return stream_wait(stream, 0, value, capturing);
}

bool StreamFlags::try_stream(cudaStream_t stream) {
  driver_streams_ = true;
  return set_and_wait(stream, 1, false).ok() && cudaStreamSynchronize(stream) == cudaSuccess &&
         reached(0, 1);
}

bool StreamFlags::try_graph(cudaStream_t stream) {
  driver_graphs_ = true;
  if (cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess) return false;
  const bool captured = set_and_wait(stream, 2, true).ok();
  cudaGraph_t raw = nullptr;
  const bool ended = cudaStreamEndCapture(stream, &raw) == cudaSuccess;
  const GraphOwner graph(raw);
  if (!captured || !ended) return false;
  cudaGraphExec_t raw_exec = nullptr;
  if (cudaGraphInstantiateWithFlags(&raw_exec, raw, 0) != cudaSuccess) return false;
  const GraphExecOwner exec(raw_exec);
  return cudaGraphLaunch(raw_exec, stream) == cudaSuccess &&
         cudaStreamSynchronize(stream) == cudaSuccess && reached(0, 2);
}

Result<uint32_t> StreamFlags::add() {
  if (n_ == kCapacity) {
    return invalid_argument("a CUDA device has " + std::to_string(kCapacity - 1) +
                            " flags, and all are taken");
  }
  return n_++;
}

void StreamFlags::clear() { std::memset(memory_.get(), 0, kCapacity * kSpacing); }

uint32_t* StreamFlags::place(uint32_t flag) const {
  return reinterpret_cast<uint32_t*>(static_cast<std::byte*>(memory_.get()) + flag * kSpacing);
}

// Host and card see page-locked memory at the same address (unified addressing, on every 64-bit Linux).
Status StreamFlags::stream_set(cudaStream_t stream, uint32_t flag, uint32_t value, bool capturing) {
  if (!(capturing ? driver_graphs_ : driver_streams_))
    return gpu::launch_set_flag(stream, place(flag), value);
  const int error =
      write_value_(stream, reinterpret_cast<uintptr_t>(place(flag)), value, kWriteDefault);
  return status_from_cuda(error, "setting a flag in a stream");  // the numbers are the same
}

Status StreamFlags::stream_wait(cudaStream_t stream, uint32_t flag, uint32_t value,
                                bool capturing) {
  if (!(capturing ? driver_graphs_ : driver_streams_))
    return gpu::launch_wait_flag(stream, place(flag), value);
  const int error =
      wait_value_(stream, reinterpret_cast<uintptr_t>(place(flag)), value, kWaitAtLeast);
  return status_from_cuda(error, "waiting for a flag in a stream");
}

}  // namespace tandem::cuda

// Finds the card, and says in one line why there is none.
#include <algorithm>

#include "base/bytes.h"
#include "base/clock.h"
#include "device/cuda/cuda_device.h"
#include "kernels_gpu/launch.h"

namespace tandem::cuda {
namespace {

using gpu::status_from_cuda;

constexpr int kOldestCapability = 80;  // 10 * major + minor: what kernels are compiled for
constexpr uint32_t kBlocksPerProcessor = 4;
// Below what streams were seen to take, 1024: where submitting waits is written nowhere.
constexpr uint32_t kMostWaiting = 512;

std::string version_text(int version) {  // 12040 is 12.4
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

Status check_driver() {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
    return not_found("no NVIDIA driver on this machine: there is no device \"cuda\"");
  int n = 0;
  const cudaError_t error = cudaGetDeviceCount(&n);
  if (error == cudaErrorInsufficientDriver) {
    return unsupported("the NVIDIA driver is too old: it serves CUDA " + version_text(driver) +
                       ", tandem's module needs " + version_text(CUDART_VERSION))
        .suggest("update the driver");
  }
  if (error == cudaErrorNoDevice || (error == cudaSuccess && n == 0))
    return not_found(
        "an NVIDIA driver is installed, but there is no card that this process may use");
  return status_from_cuda(error, "looking for cards");
}

Status check_card(int index, const cudaDeviceProp& card) {
  if (10 * card.major + card.minor >= kOldestCapability) return ok_status();
  return unsupported("card " + std::to_string(index) + ", " + card.name +
                     ", is too old: compute capability " + std::to_string(card.major) + "." +
                     std::to_string(card.minor) + ", tandem's kernels need " +
                     version_text(kOldestCapability * 100));
}

int attribute(cudaDeviceAttr what, int index) {
  int value = 0;
  if (cudaDeviceGetAttribute(&value, what, index) == cudaSuccess) return value;
  (void)cudaGetLastError();
  return 0;
}

// Two transfers per clock; clock in kHz, width in bits.  0 where the driver does not tell.
double memory_gb_per_s(int index) {
  return 2e3 * attribute(cudaDevAttrMemoryClockRate, index) *
         attribute(cudaDevAttrGlobalMemoryBusWidth, index) / 8 / 1e9;
}

// What the link brings up, in GB/s; 0 where there is no memory to find out with.  The copies also load what the runtime
// copies and fills with.
Result<double> measure_link(cudaStream_t stream) {
  constexpr size_t kBytes = size_t{16} << 20;
  constexpr int kRounds = 3;
  void *here = nullptr, *there = nullptr;
  const bool has_memory = cudaHostAlloc(&here, kBytes, cudaHostAllocDefault) == cudaSuccess;
  const HostMemoryOwner host(here);
  const bool has_both = has_memory && cudaMalloc(&there, kBytes) == cudaSuccess;
  const std::unique_ptr<void, Destroy<cudaFree>> card(there);
  (void)cudaGetLastError();
  if (!has_both) return 0.0;
  double seconds = 1e9;
  for (int round = 0; round < kRounds; ++round) {
    const Clock::time_point start = Clock::now();
    TANDEM_RETURN_IF_ERROR(status_from_cuda(
        cudaMemcpyAsync(there, here, kBytes, cudaMemcpyDefault, stream), "trying the link"));
    TANDEM_RETURN_IF_ERROR(status_from_cuda(cudaStreamSynchronize(stream), "trying the link"));
    seconds = std::min(seconds, seconds_since(start));
  }
  auto* const bytes = static_cast<std::byte*>(there);
  (void)cudaMemsetAsync(bytes, 0, kBytes, stream);
  (void)cudaMemcpyAsync(bytes, bytes + kBytes / 2, kBytes / 2, cudaMemcpyDefault, stream);
  TANDEM_RETURN_IF_ERROR(status_from_cuda(cudaStreamSynchronize(stream), "trying the card"));
  return static_cast<double>(kBytes) / seconds / 1e9;
}

}  // namespace

Result<std::unique_ptr<Device>> CudaDevice::open(const DeviceModuleRequest& request) {
  TANDEM_RETURN_IF_ERROR(check_driver());
  int n = 0;
  TANDEM_RETURN_IF_ERROR(status_from_cuda(cudaGetDeviceCount(&n), "looking for cards"));
  if (request.index >= n) {
    return not_found("there is no card " + std::to_string(request.index) + ": the machine has " +
                     std::to_string(n) + ", counted from 0");
  }
  cudaDeviceProp card{};
  TANDEM_RETURN_IF_ERROR(
      status_from_cuda(cudaGetDeviceProperties(&card, request.index), "looking at the card"));
  TANDEM_RETURN_IF_ERROR(check_card(request.index, card));
  TANDEM_RETURN_IF_ERROR(status_from_cuda(cudaSetDevice(request.index), "opening the card"));

  cudaStream_t raw = nullptr;
  TANDEM_RETURN_IF_ERROR(
      status_from_cuda(cudaStreamCreateWithFlags(&raw, cudaStreamNonBlocking), "making a stream"));
  StreamOwner own_stream(raw);
  TANDEM_ASSIGN_OR_RETURN(StreamFlags flags, StreamFlags::create(request.flag_kernels));

  size_t available = 0, total = 0;
  TANDEM_RETURN_IF_ERROR(
      status_from_cuda(cudaMemGetInfo(&available, &total), "asking for free memory"));
  DeviceInfo info;
  info.name = card.name;
  info.backend = "cuda";
  info.memory_bytes = total;
  info.memory_gb_per_s = memory_gb_per_s(request.index);
  info.most_waiting = kMostWaiting;
  TANDEM_ASSIGN_OR_RETURN(info.link_gb_per_s, measure_link(own_stream.get()));
  TANDEM_RETURN_IF_ERROR(gpu::load_kernels());
  const uint64_t budget =
      request.budget_bytes != 0 ? request.budget_bytes : available - available / 16;
  const auto blocks =
      static_cast<uint32_t>(std::max(card.multiProcessorCount, 1)) * kBlocksPerProcessor;
  const bool pools = attribute(cudaDevAttrMemoryPoolsSupported, request.index) != 0;
  return std::unique_ptr<Device>(new CudaDevice(request.index, std::move(info), budget, blocks,
                                                pools, std::move(flags), std::move(own_stream)));
}

}  // namespace tandem::cuda

#include "device/cuda/cuda_device.h"

#include <algorithm>
#include <cstring>
#include <thread>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/clock.h"
#include "kernels_gpu/launch.h"

namespace tandem::cuda {
namespace {

using gpu::status_from_cuda;

constexpr size_t kMemoryAlignment = 256;  // what allocations are counted in
constexpr double kSpinSeconds = 50e-6;
constexpr auto kSleep = std::chrono::microseconds(20);

// A graph's events are recorded and waited for when it is replayed, not between the captured operations.
unsigned record_flags(bool capturing) {
  return capturing ? cudaEventRecordExternal : cudaEventRecordDefault;
}
unsigned wait_flags(bool capturing) {
  return capturing ? cudaEventWaitExternal : cudaEventWaitDefault;
}

}  // namespace

CudaDevice::~CudaDevice() {
  if (enter().ok()) (void)cudaDeviceSynchronize();
  for (auto& [memory, bytes] : memory_) give_memory(memory);
  (void)cudaGetLastError();
}

Status CudaDevice::lost() const {
  const std::scoped_lock lock(mutex_);
  return lost_;
}

Status CudaDevice::enter() {
  if (is_lost_.load(std::memory_order_acquire)) return lost();
  return told(cudaSetDevice(index_), "choosing the card");
}

Status CudaDevice::keep(Status status) {
  if (status.code() != Code::kDeviceLost) return status;
  const std::scoped_lock lock(mutex_);
  if (lost_.ok()) lost_ = status;  // the first reason is the true one
  is_lost_.store(true, std::memory_order_release);
  return lost_;
}

Status CudaDevice::told(int error, const std::string& what) {
  if (error == cudaSuccess) return ok_status();
  (void)cudaGetLastError();  // not to be taken for the next call's
  return keep(status_from_cuda(error, what.c_str()));
}

std::string CudaDevice::last_of(const Stream& stream) const {
  std::string text = "stream " + stream.name + ", after " + std::string(stream.last);
  if (stream.last_layer >= 0) text += " of layer " + std::to_string(stream.last_layer);
  return text;
}

// ---------------------------------------------------------------- memory

Result<void*> CudaDevice::take_memory(size_t bytes) {
  void* memory = nullptr;
  if (!pools_) {
    TANDEM_RETURN_IF_ERROR(told(cudaMalloc(&memory, bytes), "allocating"));
    return memory;
  }
  TANDEM_RETURN_IF_ERROR(told(cudaMallocAsync(&memory, bytes, own_stream_.get()), "allocating"));
  TANDEM_RETURN_IF_ERROR(told(cudaStreamSynchronize(own_stream_.get()), "allocating"));
  return memory;
}

void CudaDevice::give_memory(void* memory) {
  (void)told(pools_ ? cudaFreeAsync(memory, own_stream_.get()) : cudaFree(memory),
             "giving memory back");
}

Result<std::byte*> CudaDevice::allocate(size_t bytes, std::string_view what) {
  TANDEM_RETURN_IF_ERROR(enter());
  const uint64_t needed =
      checked_align_up(std::max(bytes, size_t{1}), kMemoryAlignment).value_or(UINT64_MAX);
  const uint64_t used = used_bytes(), budget = budget_bytes();
  if (needed > budget || used > budget - needed) {
    const uint64_t available = used < budget ? budget - used : 0;
    return out_of_memory(std::string(what) + " needs " + format_bytes(needed) + " on " +
                         info_.name + ", " + format_bytes(available) + " of the budget of " +
                         format_bytes(budget) + " are left")
        .with_bytes(needed, available);
  }
  Result<void*> memory = take_memory(needed);
  if (!memory.ok()) {
    if (memory.status().code() != Code::kOutOfMemory) return memory.status();
    size_t available = 0, total = 0;
    (void)cudaMemGetInfo(&available, &total);
    return out_of_memory(std::string(what) + " needs " + format_bytes(needed) + ", " + info_.name +
                         " has " + format_bytes(available) + " free")
        .with_bytes(needed, available);
  }
  auto* address = static_cast<std::byte*>(*memory);
  memory_[address] = needed;
  used_.fetch_add(needed, std::memory_order_relaxed);
  return address;
}

void CudaDevice::free(std::byte* memory) {
  const auto found = memory_.find(memory);
  if (found == memory_.end()) return;
  used_.fetch_sub(found->second, std::memory_order_relaxed);
  memory_.erase(found);
  if (enter().ok()) give_memory(memory);
}

Result<std::byte*> CudaDevice::allocate_host(size_t bytes) {
  TANDEM_RETURN_IF_ERROR(enter());
  void* memory = nullptr;
  TANDEM_RETURN_IF_ERROR(told(cudaHostAlloc(&memory, std::max(bytes, size_t{1}),
                                            cudaHostAllocPortable | cudaHostAllocMapped),
                              "taking " + format_bytes(bytes) + " of page-locked memory"));
  std::memset(memory, 0, bytes);
  auto* address = static_cast<std::byte*>(memory);
  host_memory_[address] = HostMemoryOwner(memory);
  return address;
}

void CudaDevice::free_host(std::byte* memory) {
  (void)enter();
  host_memory_.erase(memory);
}

Status CudaDevice::pin(const std::byte* memory, size_t bytes) {
  TANDEM_RETURN_IF_ERROR(enter());
  return told(cudaHostRegister(const_cast<std::byte*>(memory), bytes, cudaHostRegisterPortable),
              "page-locking " + format_bytes(bytes) + " of weights");
}

void CudaDevice::unpin(const std::byte* memory) {
  if (enter().ok())
    (void)told(cudaHostUnregister(const_cast<std::byte*>(memory)), "releasing page-locked memory");
}

// ---------------------------------------------------------------- submission

Result<StreamId> CudaDevice::create_stream(std::string_view name) {
  TANDEM_RETURN_IF_ERROR(enter());
  cudaStream_t handle = nullptr;
  TANDEM_RETURN_IF_ERROR(
      told(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking), "making a stream"));
  Stream& stream = streams_.emplace_back();
  stream.handle.reset(handle);
  stream.name = name;
  return static_cast<StreamId>(streams_.size() - 1);
}

Result<EventId> CudaDevice::create_event() {
  TANDEM_RETURN_IF_ERROR(enter());
  cudaEvent_t handle = nullptr;
  TANDEM_RETURN_IF_ERROR(
      told(cudaEventCreateWithFlags(&handle, cudaEventDisableTiming), "making an event"));
  events_.emplace_back(handle);
  return static_cast<EventId>(events_.size() - 1);
}

template <typename Submit>
Status CudaDevice::submit(Stream& stream, DeviceActivity activity, StreamId id, Submit&& submit) {
  stream.last = activity.name;
  stream.last_layer = activity.layer;
  const bool measures = timer_.listens() && !stream.capturing;
  if (measures) timer_.begin(stream.handle.get());
  TANDEM_RETURN_IF_ERROR(submit());
  activity.stream = id;
  if (measures) timer_.end(stream.handle.get(), activity);
  return ok_status();
}

bool CudaDevice::is_here(const std::byte* address) const {
  const auto after = memory_.upper_bound(const_cast<std::byte*>(address));
  if (after == memory_.begin()) return false;
  const auto& [begin, bytes] = *std::prev(after);
  return address < begin + bytes;
}

Status CudaDevice::copy(StreamId id, std::byte* to, const std::byte* from, size_t bytes) {
  TANDEM_RETURN_IF_ERROR(enter());
  if (bytes == 0) return ok_status();
  Stream& stream = at(id);
  DeviceActivity activity{.kind = DeviceActivity::Kind::kCopyWithin, .name = "copy"};
  activity.bytes = bytes;
  if (timer_.listens() && is_here(to) != is_here(from)) {
    activity.kind = is_here(to) ? DeviceActivity::Kind::kCopyUp : DeviceActivity::Kind::kCopyDown;
  }
  return submit(stream, activity, id, [&] {
    const cudaError_t error =
        cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream.handle.get());
    if (error == cudaSuccess) return ok_status();
    return told(error, "submitting a copy of " + format_bytes(bytes));
  });
}

Status CudaDevice::fill(StreamId id, std::byte* to, uint8_t value, size_t bytes) {
  TANDEM_RETURN_IF_ERROR(enter());
  if (bytes == 0) return ok_status();
  Stream& stream = at(id);
  DeviceActivity activity{.kind = DeviceActivity::Kind::kFill, .name = "fill"};
  activity.bytes = bytes;
  return submit(stream, activity, id, [&] {
    return told(cudaMemsetAsync(to, value, bytes, stream.handle.get()), "submitting a fill");
  });
}

Status CudaDevice::launch(StreamId id, const Operation& operation, std::span<const MemoryRange>,
                          std::span<const MemoryRange>) {
  TANDEM_RETURN_IF_ERROR(enter());
  Stream& stream = at(id);
  const DeviceActivity activity{.operation = operation.index,
                                .layer = operation.layer,
                                .name = operation_name(operation.kind)};
  return submit(stream, activity, id, [&] {
    return keep(gpu::launch_operation({stream.handle.get(), blocks_}, operation));
  });
}

Status CudaDevice::record(StreamId id, EventId event) {
  TANDEM_RETURN_IF_ERROR(enter());
  const Stream& stream = at(id);
  return told(
      cudaEventRecordWithFlags(at(event), stream.handle.get(), record_flags(stream.capturing)),
      "recording an event");
}

Status CudaDevice::wait(StreamId id, EventId event) {
  TANDEM_RETURN_IF_ERROR(enter());
  const Stream& stream = at(id);
  return told(cudaStreamWaitEvent(stream.handle.get(), at(event), wait_flags(stream.capturing)),
              "submitting a wait");
}

// ---------------------------------------------------------------- flags

Result<FlagId> CudaDevice::create_flag() {
  TANDEM_RETURN_IF_ERROR(enter());
  TANDEM_ASSIGN_OR_RETURN(const uint32_t flag, flags_.add());
  return static_cast<FlagId>(flag);
}

Status CudaDevice::stream_set_flag(StreamId id, FlagId flag, uint32_t value) {
  TANDEM_RETURN_IF_ERROR(enter());
  const Stream& stream = at(id);
  return keep(
      flags_.stream_set(stream.handle.get(), static_cast<uint32_t>(flag), value, stream.capturing));
}

Status CudaDevice::stream_wait_flag(StreamId id, FlagId flag, uint32_t value) {
  TANDEM_RETURN_IF_ERROR(enter());
  const Stream& stream = at(id);
  return keep(flags_.stream_wait(stream.handle.get(), static_cast<uint32_t>(flag), value,
                                 stream.capturing));
}

void CudaDevice::set_flag(FlagId flag, uint32_t value) {
  flags_.set(static_cast<uint32_t>(flag), value);
}

// The card cannot wake a thread, so that the sleep is short; between two of them it is asked whether it is still there.
Status CudaDevice::wait_flag(FlagId flag, uint32_t value, const CancelFlag& cancel) {
  const Clock::time_point start = Clock::now();
  while (!flags_.reached(static_cast<uint32_t>(flag), value)) {
    if (cancel.cancelled()) return cancelled("waiting for the device was cancelled");
    if (seconds_since(start) < kSpinSeconds) continue;
    TANDEM_RETURN_IF_ERROR(enter());
    const cudaError_t state = cudaStreamQuery(own_stream_.get());
    if (state != cudaErrorNotReady)
      TANDEM_RETURN_IF_ERROR(told(state, "waiting for a flag of the device"));
    (void)cudaGetLastError();  // not to be taken for the next launch's
    std::this_thread::sleep_for(kSleep);
  }
  return ok_status();
}

// ---------------------------------------------------------------- graphs

Status CudaDevice::begin_capture(StreamId id) {
  TANDEM_RETURN_IF_ERROR(enter());
  Stream& stream = at(id);
  TANDEM_RETURN_IF_ERROR(
      told(cudaStreamBeginCapture(stream.handle.get(), cudaStreamCaptureModeThreadLocal),
           "beginning to write a graph"));
  stream.capturing = true;
  return ok_status();
}

Result<GraphId> CudaDevice::end_capture(StreamId id) {
  TANDEM_RETURN_IF_ERROR(enter());
  Stream& stream = at(id);
  stream.capturing = false;
  cudaGraph_t raw = nullptr;
  TANDEM_RETURN_IF_ERROR(
      told(cudaStreamEndCapture(stream.handle.get(), &raw), "ending to write a graph"));
  const GraphOwner graph(raw);
  cudaGraphExec_t exec = nullptr;
  TANDEM_RETURN_IF_ERROR(
      told(cudaGraphInstantiateWithFlags(&exec, raw, 0), "making a graph ready"));
  graphs_.emplace_back(exec);
  return static_cast<GraphId>(graphs_.size() - 1);
}

Status CudaDevice::replay(StreamId id, GraphId graph, const ReachedMemory& /*reached*/) {
  TANDEM_RETURN_IF_ERROR(enter());
  Stream& stream = at(id);
  const DeviceActivity activity{.kind = DeviceActivity::Kind::kGraph, .name = "graph"};
  return submit(stream, activity, id, [&] {
    return told(cudaGraphLaunch(graphs_[static_cast<size_t>(graph)].get(), stream.handle.get()),
                "submitting a graph");
  });
}

void CudaDevice::free_graph(GraphId graph) {
  (void)enter();
  graphs_[static_cast<size_t>(graph)].reset();
}

Status CudaDevice::set_observer(DeviceObserver* observer) {
  TANDEM_RETURN_IF_ERROR(enter());
  return keep(timer_.set(observer));
}

// ---------------------------------------------------------------- host waits

Status CudaDevice::synchronize(StreamId id) {
  TANDEM_RETURN_IF_ERROR(enter());
  const Stream& stream = at(id);
  const cudaError_t error = cudaStreamSynchronize(stream.handle.get());
  return error == cudaSuccess ? ok_status() : told(error, last_of(stream));
}

Status CudaDevice::synchronize() {
  TANDEM_RETURN_IF_ERROR(enter());
  for (size_t i = 0; i < streams_.size(); ++i)
    TANDEM_RETURN_IF_ERROR(synchronize(static_cast<StreamId>(i)));
  return ok_status();
}

Status CudaDevice::wait_for(EventId event) {
  TANDEM_RETURN_IF_ERROR(enter());
  return told(cudaEventSynchronize(at(event)), "waiting for an event");
}

Result<bool> CudaDevice::done(EventId event) {
  TANDEM_RETURN_IF_ERROR(enter());
  const cudaError_t state = cudaEventQuery(at(event));
  if (state == cudaSuccess) return true;
  if (state != cudaErrorNotReady) return told(state, "asking for an event");
  (void)cudaGetLastError();
  return false;
}

}  // namespace tandem::cuda

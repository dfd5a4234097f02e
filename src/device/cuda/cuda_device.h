// A card as a Device, over the CUDA runtime.
//
// Threading, ownership, errors: as Device.  Almost every error in execution costs the whole card (the context is gone): it
// becomes kDeviceLost, is kept, and every later call returns it.  What failed is told with the last operation
// submitted to the stream, since the card does not say more.
#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <vector>

#include "device/cuda/activity_timer.h"
#include "device/cuda/owners.h"
#include "device/cuda/stream_flags.h"
#include "device/device.h"
#include "device/device_module.h"

namespace tandem::cuda {

class CudaDevice final : public Device {
 public:
  static Result<std::unique_ptr<Device>> open(const DeviceModuleRequest& request);
  ~CudaDevice() override;

  const DeviceInfo& info() const override { return info_; }

  Result<std::byte*> allocate(size_t bytes, std::string_view what) override;
  void free(std::byte* memory) override;
  uint64_t used_bytes() const override { return used_.load(std::memory_order_relaxed); }
  uint64_t budget_bytes() const override { return budget_.load(std::memory_order_relaxed); }
  void set_budget(uint64_t bytes) override { budget_.store(bytes, std::memory_order_relaxed); }
  Result<std::byte*> allocate_host(size_t bytes) override;
  void free_host(std::byte* memory) override;
  Status pin(const std::byte* memory, size_t bytes) override;
  void unpin(const std::byte* memory) override;

  Result<StreamId> create_stream(std::string_view name) override;
  Result<EventId> create_event() override;
  Status copy(StreamId stream, std::byte* to, const std::byte* from, size_t bytes) override;
  Status fill(StreamId stream, std::byte* to, uint8_t value, size_t bytes) override;
  Status launch(StreamId stream, const Operation& operation, std::span<const MemoryRange>,
                std::span<const MemoryRange>) override;
  Status record(StreamId stream, EventId event) override;
  Status wait(StreamId stream, EventId event) override;

  Result<FlagId> create_flag() override;
  Status stream_set_flag(StreamId stream, FlagId flag, uint32_t value) override;
  Status stream_wait_flag(StreamId stream, FlagId flag, uint32_t value) override;
  void set_flag(FlagId flag, uint32_t value) override;
  Status wait_flag(FlagId flag, uint32_t value, const CancelFlag& cancel) override;
  void reset_flags() override { flags_.clear(); }

  Status begin_capture(StreamId stream) override;
  Result<GraphId> end_capture(StreamId stream) override;
  Status replay(StreamId stream, GraphId graph, const ReachedMemory& reached) override;
  void free_graph(GraphId graph) override;

  Status synchronize(StreamId stream) override;
  Status synchronize() override;
  Status wait_for(EventId event) override;
  Result<bool> done(EventId event) override;

  Status set_observer(DeviceObserver* observer) override;
  void tell_observer() override { timer_.tell(); }

 private:
  struct Stream {
    StreamOwner handle;
    std::string name;
    std::string_view last = "nothing";  // submitted
    int32_t last_layer = -1;
    bool capturing = false;
  };

  CudaDevice(int index, DeviceInfo info, uint64_t budget, uint32_t blocks, bool pools,
             StreamFlags flags, StreamOwner own_stream)
      : index_(index),
        info_(std::move(info)),
        blocks_(blocks),
        pools_(pools),
        flags_(std::move(flags)),
        own_stream_(std::move(own_stream)),
        budget_(budget) {}

  // First in every call: the card becomes the thread's current one.  What was lost stays so.
  Status enter();
  // Last in every call: the error as a Status; a loss is kept.
  Status told(int error, const std::string& what);
  Status keep(Status status);
  Status lost() const;
  // Submits what takes time: measured, if somebody wants to know.
  template <typename Submit>
  Status submit(Stream& stream, DeviceActivity activity, StreamId id, Submit&& submit);
  bool is_here(const std::byte* address) const;  // in the card's memory
  std::string last_of(const Stream& stream) const;
  Stream& at(StreamId stream) { return streams_[static_cast<size_t>(stream)]; }
  cudaEvent_t at(EventId event) { return events_[static_cast<size_t>(event)].get(); }
  Result<void*> take_memory(size_t bytes);
  void give_memory(void* memory);

  // Constant after construction.
  const int index_;
  const DeviceInfo info_;
  const uint32_t blocks_;
  const bool
      pools_;  // memory from the card's pool, so that giving it back does not wait for all streams
  StreamFlags flags_;
  const StreamOwner own_stream_;  // for memory, and for asking whether the card is still there

  // The submitting thread's.
  std::vector<Stream> streams_;
  std::vector<EventOwner> events_;
  std::vector<GraphExecOwner> graphs_;
  ActivityTimer timer_;
  std::map<std::byte*, size_t> memory_;  // bytes taken at an address
  std::map<std::byte*, HostMemoryOwner> host_memory_;

  std::atomic<uint64_t> used_{0}, budget_;
  std::atomic<bool> is_lost_{false};
  mutable std::mutex mutex_;  // guards lost_
  Status lost_;
};

}  // namespace tandem::cuda

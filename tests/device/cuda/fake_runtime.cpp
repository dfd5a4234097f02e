// The part of the CUDA runtime that src/device/cuda uses, on the CPU, with kernels emulated: for tests of that code where
// there is no card.  As strict as can be about what the real one only sometimes punishes: the current device, addresses, calls
// on a stream that is being captured, errors left behind.  And as slow: a kernel that was not loaded waits for all work at
// its first launch, a copy of memory that is not page-locked for its stream's, and a stream takes kDepth commands.
//
// Two cards are there; only number 1 works, so that a thread that forgot to choose its card is found.
// TANDEM_FAKE_CARD: "old_driver", "no_driver", "no_card", "old_card", "no_memory_operations".
#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "kernels_gpu/launch.h"
#include "tests/kernels_gpu/emulate.h"

namespace {

using Work = std::function<void()>;
// Made at submission, or at each replay of a graph: gives the work.
using Submission = std::function<Work()>;

constexpr int kCard = 1;
constexpr uint64_t kDepth = 1000;
constexpr size_t kMemoryBytes = size_t{1} << 30;

std::atomic<int> sticky{cudaSuccess};
thread_local int current = 0;
thread_local cudaError_t last_error = cudaSuccess;

bool is(const char* what) {
  const char* card = std::getenv("TANDEM_FAKE_CARD");
  return card != nullptr && std::strcmp(card, what) == 0;
}

cudaError_t give(cudaError_t error) {
  if (error == cudaSuccess && sticky != cudaSuccess)
    error = static_cast<cudaError_t>(sticky.load());
  if (error != cudaSuccess && error != cudaErrorNotReady) last_error = error;
  return error;
}

bool here() { return current == kCard; }

// Blocks until true, or until the card is lost.
void until(const std::function<bool()>& reached) {
  for (int i = 0; sticky == cudaSuccess && !reached(); ++i) {
    if (i < 500) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(10));
    }
  }
}

// Memory of the card and page-locked memory: begin -> bytes.
class Memory {
 public:
  void* take(size_t bytes) {
    const std::scoped_lock lock(mutex_);
    void* memory = std::aligned_alloc(512, (bytes + 511) / 512 * 512);
    std::memset(memory, 0x11, bytes);
    taken_[static_cast<char*>(memory)] = bytes;
    used_ += bytes;
    return memory;
  }
  bool give_back(void* memory) {
    const std::scoped_lock lock(mutex_);
    const auto found = taken_.find(static_cast<char*>(memory));
    if (found == taken_.end()) return false;
    used_ -= found->second;
    taken_.erase(found);
    std::free(memory);
    return true;
  }
  bool holds(const void* begin, size_t bytes) {
    const std::scoped_lock lock(mutex_);
    const auto* address = static_cast<const char*>(begin);
    return holds(taken_, address, bytes) || holds(locked_, address, bytes);
  }
  // Page-locked from now on, or no longer.
  bool lock(void* begin, size_t bytes) {
    const std::scoped_lock lock(mutex_);
    return locked_.emplace(static_cast<char*>(begin), bytes).second;
  }
  bool unlock(void* begin) {
    const std::scoped_lock lock(mutex_);
    return locked_.erase(static_cast<char*>(begin)) > 0;
  }
  size_t used() {
    const std::scoped_lock lock(mutex_);
    return used_;
  }

 private:
  using Ranges = std::map<char*, size_t>;
  static bool holds(const Ranges& ranges, const char* address, size_t bytes) {
    auto after = ranges.upper_bound(const_cast<char*>(address));
    if (after == ranges.begin()) return false;
    --after;
    return address + bytes <= after->first + after->second;
  }

  std::mutex mutex_;
  Ranges taken_, locked_;
  size_t used_ = 0;
};

Memory memory;

}  // namespace

struct CUevent_st {
  std::atomic<uint64_t> recorded{0}, reached{0};
  std::atomic<std::chrono::steady_clock::rep> reached_at{0};
  bool timed = false;
  void reach(uint64_t n) {
    reached_at = std::chrono::steady_clock::now().time_since_epoch().count();
    reached = n;
  }
};

struct CUgraph_st {
  std::vector<Submission> submissions;
};

struct CUgraphExec_st {
  std::vector<Submission> submissions;
};

struct CUstream_st {
  CUstream_st() : thread([this] { serve(); }) {}
  ~CUstream_st() {
    {
      const std::scoped_lock lock(mutex);
      ends = true;
    }
    changed.notify_all();
    thread.join();
  }

  void submit(const Submission& submission) {
    if (capturing) {
      captured.push_back(submission);
      return;
    }
    until([this] { return !is_full(); });
    const std::scoped_lock lock(mutex);
    waiting.push_back(submission());
    ++n_submitted;
    changed.notify_all();
  }
  bool idle() {
    const std::scoped_lock lock(mutex);
    return n_done == n_submitted;
  }
  bool is_full() {
    const std::scoped_lock lock(mutex);
    return n_submitted - n_done >= kDepth;
  }
  void serve() {
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, [this] { return ends || !waiting.empty(); });
      if (waiting.empty()) return;
      const Work work = std::move(waiting.front());
      waiting.pop_front();
      lock.unlock();
      if (sticky == cudaSuccess) work();
      lock.lock();
      ++n_done;
    }
  }

  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Work> waiting;
  uint64_t n_submitted = 0, n_done = 0;
  bool ends = false, capturing = false;
  std::vector<Submission> captured;
  std::thread thread;  // last: uses all the others
};

namespace {

std::mutex streams_mutex;
std::vector<cudaStream_t> streams;

cudaError_t wait_for_all() {
  const std::scoped_lock lock(streams_mutex);
  for (cudaStream_t stream : streams) until([&] { return stream->idle(); });
  return cudaSuccess;
}

cudaError_t submit(cudaStream_t stream, const Submission& submission) {
  if (!here()) return give(cudaErrorInvalidDevice);
  if (sticky == cudaSuccess) stream->submit(submission);
  return give(cudaSuccess);
}

void set_word(void* place, uint32_t value) {
  std::atomic_ref(*static_cast<uint32_t*>(place)).store(value);
}
void wait_word(void* place, uint32_t value) {
  until([=] {
    return static_cast<int32_t>(std::atomic_ref(*static_cast<uint32_t*>(place)).load() - value) >=
           0;
  });
}
cudaError_t submit_set(cudaStream_t stream, void* place, uint32_t value) {
  return submit(stream, [=]() -> Work { return [=] { set_word(place, value); }; });
}
cudaError_t submit_wait(cudaStream_t stream, void* place, uint32_t value) {
  return submit(stream, [=]() -> Work { return [=] { wait_word(place, value); }; });
}

int driver_set(CUstream_st* stream, unsigned long long place, uint32_t value, unsigned) {
  return submit_set(stream, reinterpret_cast<void*>(place), value);
}
int driver_wait(CUstream_st* stream, unsigned long long place, uint32_t value, unsigned) {
  return submit_wait(stream, reinterpret_cast<void*>(place), value);
}

}  // namespace

// ---------------------------------------------------------------- kernels

namespace tandem::gpu {

namespace {

// By the address of a function of each.
std::mutex loaded_mutex;
std::set<void (*)()> loaded;

template <typename Kernel>
void name_of_kernel() {}

struct Loader {
  uint32_t blocks() const { return 1; }
  template <typename Kernel>
  Status run(Grid, const Arguments&) const {
    const std::scoped_lock lock(loaded_mutex);
    const bool is_new = loaded.insert(&name_of_kernel<Kernel>).second;
    if (is_new && waits) wait_for_all();
    return ok_status();
  }
  bool waits = false;
};

}  // namespace

Status load_kernels() {
  TANDEM_RETURN_IF_ERROR(select_all_products(Loader{}));
  return select_all_row_wise(Loader{});
}

Status launch_operation(const LaunchTarget& target, const Operation& operation) {
  const Arguments a{operation, *operation.constants};
  TANDEM_RETURN_IF_ERROR(check_operation(a));
  const Loader late{.waits = true};
  (void)(is_product(a.op) ? select_product(late, a) : select_row_wise(late, a));
  const auto compute = [a] {
    if (a.op.out.data != nullptr && !memory.holds(a.op.out.data, 1)) {
      sticky = cudaErrorIllegalAddress;
      return;
    }
    const testing::Emulation emulation;
    (void)(is_product(a.op) ? select_product(emulation, a) : select_row_wise(emulation, a));
  };
  (void)submit(target.stream, [compute]() -> Work { return compute; });
  return status_from_cuda(cudaGetLastError(), "launching a kernel");  // as the real one asks
}

Status launch_set_flag(CUstream_st* stream, uint32_t* flag, uint32_t value) {
  return status_from_cuda(submit_set(stream, flag, value), "setting a flag");
}

Status launch_wait_flag(CUstream_st* stream, const uint32_t* flag, uint32_t value) {
  return status_from_cuda(submit_wait(stream, const_cast<uint32_t*>(flag), value),
                          "waiting for a flag");
}

}  // namespace tandem::gpu

// ---------------------------------------------------------------- the runtime

extern "C" {

cudaError_t cudaDriverGetVersion(int* version) {
  *version = is("no_driver") ? 0 : is("old_driver") ? 11040 : CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* n) {
  *n = 2;
  return is("old_driver") ? cudaErrorInsufficientDriver
         : is("no_card")  ? cudaErrorNoDevice
                          : cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* card, int index) {
  *card = cudaDeviceProp{};
  std::strcpy(card->name, "a fake card");
  card->major = is("old_card") ? 7 : 8;
  card->minor = is("old_card") ? 5 : 6;
  card->multiProcessorCount = 1;
  return give(index == kCard ? cudaSuccess : cudaErrorInvalidDevice);
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr what, int) {
  *value = what == cudaDevAttrMemoryPoolsSupported ? 1 : 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int index) {
  current = index;
  return give(cudaSuccess);
}
cudaError_t cudaDeviceSynchronize() { return give(wait_for_all()); }
cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
  *total = kMemoryBytes;
  *available = kMemoryBytes - memory.used();
  return give(here() ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}
const char* cudaGetErrorName(cudaError_t) { return "cudaErrorOfTheFake"; }
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorIllegalAddress ? "an illegal memory access was encountered" : "an error";
}
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult* found) {
  const bool sets = std::strcmp(name, "cuStreamWriteValue32") == 0;
  *function = sets ? reinterpret_cast<void*>(&driver_set) : reinterpret_cast<void*>(&driver_wait);
  *found =
      is("no_memory_operations") ? cudaDriverEntryPointSymbolNotFound : cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

cudaError_t cudaMallocAsync(void** address, size_t bytes, cudaStream_t) {
  if (!here()) return give(cudaErrorInvalidDevice);
  if (sticky != cudaSuccess) return give(cudaSuccess);
  if (bytes > kMemoryBytes - memory.used()) return give(cudaErrorMemoryAllocation);
  *address = memory.take(bytes);
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** address, size_t bytes) {
  return cudaMallocAsync(address, bytes, nullptr);
}
cudaError_t cudaFreeAsync(void* address, cudaStream_t) {
  return give(memory.give_back(address) ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaFree(void* address) {
  wait_for_all();
  return cudaFreeAsync(address, nullptr);
}
cudaError_t cudaHostAlloc(void** address, size_t bytes, unsigned) {
  if (!here()) return give(cudaErrorInvalidDevice);
  if (sticky == cudaSuccess) *address = memory.take(bytes);
  return give(cudaSuccess);
}
cudaError_t cudaFreeHost(void* address) { return cudaFreeAsync(address, nullptr); }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  if (!here()) return give(cudaErrorInvalidDevice);
  if (sticky != cudaSuccess) return give(cudaSuccess);
  *stream = new CUstream_st;
  const std::scoped_lock lock(streams_mutex);
  streams.push_back(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  {
    const std::scoped_lock lock(streams_mutex);
    std::erase(streams, stream);
  }
  delete stream;
  return give(cudaSuccess);
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (stream->capturing) return give(cudaErrorStreamCaptureUnsupported);
  return give(stream->idle() ? cudaSuccess : cudaErrorNotReady);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream->capturing) return give(cudaErrorStreamCaptureUnsupported);
  until([&] { return stream->idle(); });
  return give(cudaSuccess);
}

cudaError_t cudaHostRegister(void* memory_of_others, size_t bytes, unsigned) {
  if (!here()) return give(cudaErrorInvalidDevice);
  return give(memory.lock(memory_of_others, bytes) ? cudaSuccess
                                                   : cudaErrorHostMemoryAlreadyRegistered);
}
cudaError_t cudaHostUnregister(void* memory_of_others) {
  return give(memory.unlock(memory_of_others) ? cudaSuccess : cudaErrorHostMemoryNotRegistered);
}

// Like the real one: from ordinary memory through a buffer of the runtime's, to ordinary memory only once all is done.
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  const bool to_own = memory.holds(to, bytes), from_own = memory.holds(from, bytes);
  if (!to_own && !from_own) return give(cudaErrorInvalidValue);
  if (to_own && from_own)
    return submit(stream, [=]() -> Work { return [=] { std::memcpy(to, from, bytes); }; });
  if (stream->capturing) return give(cudaErrorStreamCaptureUnsupported);
  if (to_own) {
    const auto* first = static_cast<const char*>(from);
    until([&] { return stream->idle(); });
    const auto staged = std::make_shared<std::vector<char>>(first, first + bytes);
    return submit(stream,
                  [=]() -> Work { return [=] { std::memcpy(to, staged->data(), bytes); }; });
  }
  const cudaError_t error =
      submit(stream, [=]() -> Work { return [=] { std::memcpy(to, from, bytes); }; });
  return error != cudaSuccess ? error : cudaStreamSynchronize(stream);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  if (!memory.holds(to, bytes)) return give(cudaErrorInvalidValue);
  return submit(stream, [=]() -> Work { return [=] { std::memset(to, value, bytes); }; });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  if (!here()) return give(cudaErrorInvalidDevice);
  if (sticky == cudaSuccess) {
    *event = new CUevent_st;
    (*event)->timed = (flags & cudaEventDisableTiming) == 0;
  }
  return give(cudaSuccess);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return give(cudaSuccess);
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
  if ((flags == cudaEventRecordExternal) != stream->capturing) return give(cudaErrorIllegalState);
  return submit(stream, [=]() -> Work {
    const uint64_t n = ++event->recorded;
    return [=] { event->reach(n); };
  });
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return cudaEventRecordWithFlags(event, stream, cudaEventRecordDefault);
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  if (!from->timed || !to->timed) return give(cudaErrorInvalidResourceHandle);
  if (from->reached != from->recorded || to->reached != to->recorded)
    return give(cudaErrorNotReady);
  using std::chrono::steady_clock;
  const steady_clock::duration apart(to->reached_at - from->reached_at);
  *milliseconds = std::chrono::duration<float, std::milli>(apart).count();
  return give(cudaSuccess);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  if ((flags == cudaEventWaitExternal) != stream->capturing) return give(cudaErrorIllegalState);
  return submit(stream, [=]() -> Work {
    const uint64_t n = event->recorded;
    return [=] { until([=] { return event->reached >= n; }); };
  });
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return give(event->reached == event->recorded ? cudaSuccess : cudaErrorNotReady);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const uint64_t n = event->recorded;
  until([=] { return event->reached >= n; });
  return give(cudaSuccess);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream->capturing) return give(cudaErrorIllegalState);
  stream->capturing = true;
  stream->captured.clear();
  return give(cudaSuccess);
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  if (!stream->capturing) return give(cudaErrorIllegalState);
  stream->capturing = false;
  *graph = new CUgraph_st{std::move(stream->captured)};
  return give(cudaSuccess);
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t graph,
                                          unsigned long long) {
  *exec = new CUgraphExec_st{graph->submissions};
  return give(cudaSuccess);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  if (stream->capturing) return give(cudaErrorStreamCaptureUnsupported);
  for (const Submission& each : exec->submissions) {
    const cudaError_t error = submit(stream, each);
    if (error != cudaSuccess) return error;
  }
  return give(cudaSuccess);
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return give(cudaSuccess);
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return give(cudaSuccess);
}

}  // extern "C"

#include "dispatch/stream_buffers.h"

namespace tandem {

Result<std::unique_ptr<StreamBuffers>> StreamBuffers::create(Device& device,
                                                             const BlockStore& store,
                                                             uint64_t bytes) {
  if (bytes == 0) return std::unique_ptr<StreamBuffers>();
  std::unique_ptr<StreamBuffers> made(new StreamBuffers(device, store));
  TANDEM_ASSIGN_OR_RETURN(made->stream_, device.create_stream("weights"));
  for (Buffer& buffer : made->buffers_) {
    TANDEM_ASSIGN_OR_RETURN(buffer.filled, device.create_event());
    TANDEM_ASSIGN_OR_RETURN(buffer.read, device.create_event());
    TANDEM_ASSIGN_OR_RETURN(buffer.memory, device.allocate(bytes, "a buffer for streamed weights"));
  }
  return made;
}

StreamBuffers::~StreamBuffers() {
  for (const Buffer& buffer : buffers_) device_.free(buffer.memory);
}

void StreamBuffers::begin_step() {
  for (Buffer& buffer : buffers_) buffer.in_use = false;
}

Result<const std::byte*> StreamBuffers::acquire(StreamId reader, BlockId block, size_t extent,
                                                size_t bytes) {
  const Buffer& buffer = buffers_[current_];
  if (buffer.in_use) TANDEM_RETURN_IF_ERROR(device_.wait(stream_, buffer.read));
  TANDEM_RETURN_IF_ERROR(device_.copy(stream_, buffer.memory, store_.data(block, extent), bytes));
  TANDEM_RETURN_IF_ERROR(device_.record(stream_, buffer.filled));
  TANDEM_RETURN_IF_ERROR(device_.wait(reader, buffer.filled));
  return buffer.memory;
}

Status StreamBuffers::release(StreamId reader) {
  TANDEM_RETURN_IF_ERROR(device_.record(reader, buffers_[current_].read));
  buffers_[current_].in_use = true;
  current_ = 1 - current_;
  return ok_status();
}

}  // namespace tandem

#include "dispatch/weight_copier.h"

#include <algorithm>

namespace tandem {
namespace {

// What crosses the link in this time; a cancel waits for one piece.
constexpr double kPieceSeconds = 50e-3;
constexpr size_t kLeastPiece = size_t{256} << 10, kMostPiece = size_t{64} << 20;

size_t piece_bytes(const DeviceInfo& device) {
  if (device.link_gb_per_s <= 0) return kMostPiece;
  const double bytes = device.link_gb_per_s * 1e9 * kPieceSeconds;
  return std::clamp(static_cast<size_t>(std::min(bytes, 1e12)), kLeastPiece, kMostPiece);
}

}  // namespace

WeightCopier::WeightCopier(Device& device, StreamId stream, FlagId arrived, uint64_t total_bytes,
                           const ProgressCallback& progress, const CancelFlag& cancel)
    : device_(device),
      stream_(stream),
      arrived_(arrived),
      meter_(Stage::kCopy, total_bytes, progress),
      cancel_(cancel),
      piece_bytes_(piece_bytes(device.info())) {}

Result<WeightCopier> WeightCopier::create(Device& device, StreamId stream, uint64_t total_bytes,
                                          const ProgressCallback& progress,
                                          const CancelFlag& cancel) {
  TANDEM_ASSIGN_OR_RETURN(const FlagId arrived, device.create_flag());
  return WeightCopier(device, stream, arrived, total_bytes, progress, cancel);
}

Status WeightCopier::copy(std::byte* to, const std::byte* from, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    if (cancel_.cancelled()) return cancelled("cancelled while copying weights to the device");
    const size_t n = std::min(piece_bytes_, bytes - done);
    TANDEM_RETURN_IF_ERROR(device_.copy(stream_, to + done, from + done, n));
    TANDEM_RETURN_IF_ERROR(device_.stream_set_flag(stream_, arrived_, ++n_pieces_));
    TANDEM_RETURN_IF_ERROR(device_.wait_flag(arrived_, n_pieces_, cancel_));
    done += n;
    n_done_ += n;
    meter_.report(n_done_);
  }
  return ok_status();
}

}  // namespace tandem

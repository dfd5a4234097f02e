// Which memory an operation reads and writes.
#pragma once

#include "device/device.h"
#include "device/operation.h"

namespace tandem {

// At its capacity; what is reached through addresses in memory (experts' weights, pages) is the launcher's to add.
struct OperationRanges {
  static constexpr size_t kMost = 9;
  MemoryRange reads[kMost], writes[2];
  size_t n_reads = 0, n_writes = 0;

  std::span<const MemoryRange> all_reads() const { return {reads, n_reads}; }
  std::span<const MemoryRange> all_writes() const { return {writes, n_writes}; }
};

OperationRanges ranges_of(const Operation& operation);

}  // namespace tandem

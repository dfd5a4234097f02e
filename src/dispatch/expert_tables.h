// The tables in device memory that say which experts of a layer the device computes, and where their matrices lie.
//
// One table [X] of addresses per matrix that experts have (gate, up, down); null: the CPU computes the expert.  What the
// tables are to be is kept on the host; uploads bring it to the device in a stream's order.
//
// Threading: one caller at a time.
// Ownership: owns the tables, on both sides; device and program outlive it.
// Errors: those of the device.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "device/device.h"
#include "model/program.h"

namespace tandem {

class ExpertTables {
 public:
  // Device memory that create() takes.
  static uint64_t device_bytes(const Program& program);

  // All null.  A Program without experts has none.
  static Result<std::unique_ptr<ExpertTables>> create(Device& device, const Program& program);
  ~ExpertTables();
  ExpertTables(const ExpertTables&) = delete;
  ExpertTables& operator=(const ExpertTables&) = delete;

  // The addresses of an expert's matrices [extents of its block], or none.  Requires: no upload of this layer's tables is
  // under way.
  void set(int64_t layer, int64_t expert, std::span<std::byte* const> addresses);
  // What has changed, except in these layers [L]; none: everywhere.  All of it if something has failed since.
  Status upload_changes(StreamId stream, const std::vector<bool>& except);
  // A layer's tables as they are when the stream comes to it.
  Status upload_layer(StreamId stream, int64_t layer);

  // For operations on the device.  `first`: the weight of expert 0.
  const std::byte* const* at(WeightId first) const;
  // What an operation may read through the table as it is now.
  std::span<const MemoryRange> matrices(WeightId first) const;

 private:
  struct Table {
    WeightId first;
    int64_t layer;
    std::byte* there = nullptr;         // [X] addresses, on the device
    std::byte** host = nullptr;         // what it is to be
    std::vector<MemoryRange> matrices;  // the addresses in it
    bool changed = true;
  };

  ExpertTables(Device& device, const Program& program) : device_(device), program_(program) {}
  static std::vector<Table> tables_of(const Program& program);
  size_t table_bytes() const;
  void set(Table& table, int64_t expert, std::byte* address);
  Status upload(StreamId stream, Table& table);
  const Table& table_of(WeightId first) const;

  Device& device_;
  const Program& program_;
  std::vector<Table> tables_;
  uint64_t failures_ =
      0;  // of the device, when the tables there were known to be what they are to be
  std::byte* memory_ = nullptr;
  std::byte* host_memory_ = nullptr;
};

}  // namespace tandem

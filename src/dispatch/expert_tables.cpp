#include "dispatch/expert_tables.h"

#include <algorithm>

namespace tandem {

std::vector<ExpertTables::Table> ExpertTables::tables_of(const Program& program) {
  std::vector<Table> tables;
  for (const Op& op : program.ops) {
    if (op.kind != OpKind::kExpertMatmul && op.kind != OpKind::kListPairs) continue;
    const auto known = [&](const Table& table) { return table.first == op.weight; };
    if (std::any_of(tables.begin(), tables.end(), known)) continue;
    tables.push_back({.first = op.weight, .layer = op.layer, .matrices = {}});
  }
  return tables;
}

uint64_t ExpertTables::device_bytes(const Program& program) {
  return tables_of(program).size() * static_cast<uint64_t>(program.shape.n_experts) *
         sizeof(std::byte*);
}

size_t ExpertTables::table_bytes() const {
  return static_cast<size_t>(program_.shape.n_experts) * sizeof(std::byte*);
}

Result<std::unique_ptr<ExpertTables>> ExpertTables::create(Device& device, const Program& program) {
  std::unique_ptr<ExpertTables> result(new ExpertTables(device, program));
  result->tables_ = tables_of(program);
  std::vector<Table>& tables = result->tables_;
  if (tables.empty()) return result;
  const size_t bytes = result->table_bytes();
  TANDEM_ASSIGN_OR_RETURN(result->memory_,
                          device.allocate(tables.size() * bytes, "tables of experts"));
  TANDEM_ASSIGN_OR_RETURN(result->host_memory_, device.allocate_host(tables.size() * bytes));
  for (size_t i = 0; i < tables.size(); ++i) {
    tables[i].there = result->memory_ + i * bytes;
    tables[i].host = reinterpret_cast<std::byte**>(result->host_memory_ + i * bytes);
    tables[i].matrices.reserve(static_cast<size_t>(program.shape.n_experts));
  }
  return result;
}

ExpertTables::~ExpertTables() {
  device_.free(memory_);
  device_.free_host(host_memory_);
}

void ExpertTables::set(int64_t layer, int64_t expert, std::span<std::byte* const> addresses) {
  for (Table& table : tables_) {
    if (table.layer != layer) continue;
    const Weight& weight = program_.weights[table.first + static_cast<WeightId>(expert)];
    set(table, expert, addresses.empty() ? nullptr : addresses[weight.extent]);
  }
}

void ExpertTables::set(Table& table, int64_t expert, std::byte* address) {
  const MemoryRange entry{reinterpret_cast<const std::byte*>(table.host + expert),
                          sizeof(std::byte*)};
  device_.host_access({}, {&entry, 1}, "a table of experts");
  table.host[expert] = address;
  table.changed = true;
  table.matrices.clear();
  for (int64_t e = 0; e < program_.shape.n_experts; ++e) {
    const Weight& weight = program_.weights[table.first + static_cast<WeightId>(e)];
    const size_t bytes = weight.row_bytes() * static_cast<size_t>(weight.rows);
    if (table.host[e] != nullptr) table.matrices.push_back({table.host[e], bytes});
  }
}

Status ExpertTables::upload(StreamId stream, Table& table) {
  TANDEM_RETURN_IF_ERROR(device_.copy(
      stream, table.there, reinterpret_cast<const std::byte*>(table.host), table_bytes()));
  table.changed = false;
  return ok_status();
}

Status ExpertTables::upload_changes(StreamId stream, const std::vector<bool>& except) {
  if (failures_ != device_.failures()) {  // uploads may have been left undone
    failures_ = device_.failures();
    for (Table& table : tables_) table.changed = true;
  }
  for (Table& table : tables_) {
    if (!table.changed || (!except.empty() && except[static_cast<size_t>(table.layer)])) continue;
    TANDEM_RETURN_IF_ERROR(upload(stream, table));
  }
  return ok_status();
}

Status ExpertTables::upload_layer(StreamId stream, int64_t layer) {
  for (Table& table : tables_) {
    if (table.layer == layer) TANDEM_RETURN_IF_ERROR(upload(stream, table));
  }
  return ok_status();
}

const ExpertTables::Table& ExpertTables::table_of(WeightId first) const {
  return *std::find_if(tables_.begin(), tables_.end(),
                       [=](const Table& table) { return table.first == first; });
}

const std::byte* const* ExpertTables::at(WeightId first) const {
  return reinterpret_cast<const std::byte* const*>(table_of(first).there);
}

std::span<const MemoryRange> ExpertTables::matrices(WeightId first) const {
  return table_of(first).matrices;
}

}  // namespace tandem

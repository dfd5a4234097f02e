// Puts together a Case: operands, weights and tables at offsets of one image.
#pragma once

#include <cmath>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/blocks.h"
#include "base/checked.h"
#include "kernels_cpu/dispatch.h"
#include "tests/kernels_gpu/case.h"

namespace tandem::gpu::testing {

inline const cpu::KernelTable& scalar() { return *cpu::table_for(cpu::Isa::kScalar); }

// Puts things into a case's image.
class Builder {
 public:
  Builder(std::string name, OpKind kind, unsigned seed) : random_(seed) {
    case_.name = std::move(name);
    case_.op.kind = kind;
    case_.constants.n_heads = case_.constants.n_kv_heads = 1;
    case_.image.resize(256);  // offset 0 is null
    step_ = take(sizeof(StepInput));
    case_.op.step = reinterpret_cast<const StepInput*>(step_);
    set_step();
  }

  Case& operator*() { return case_; }
  Case* operator->() { return &case_; }
  StepInput step;
  std::mt19937& random() { return random_; }

  // Offset of new bytes at a multiple of 64, all 0xA5, with a gap behind them.
  size_t take(size_t bytes) {
    const size_t offset = case_.image.size();
    case_.image.resize(align_up(offset + bytes + 64, 64), std::byte{0xA5});
    return offset;
  }
  template <typename T>
  T* at(size_t offset) {
    return reinterpret_cast<T*>(case_.image.data() + offset);
  }
  void set_step() { std::memcpy(case_.image.data() + step_, &step, sizeof step); }
  void address(size_t at, size_t target) { case_.addresses.emplace_back(at, target); }
  void step_address(size_t member_offset, size_t target) { address(step_ + member_offset, target); }

  float normal() { return std::normal_distribution<float>(0, 1)(random_); }
  void fill(size_t offset, int64_t n) {
    for (int64_t i = 0; i < n; ++i) at<float>(offset)[i] = normal();
  }

  // Rows of n floats, with eight floats of nothing between them.
  Operand floats(int64_t rows, int64_t n, bool filled) {
    const size_t row_bytes = static_cast<size_t>(n + 8) * 4;
    Operand operand = rows_of(rows, row_bytes);
    if (filled)
      for (int64_t r = 0; r < rows; ++r) fill(offset_of(operand, r), n);
    return operand;
  }
  Operand rows_of(int64_t rows, size_t row_bytes) {
    const size_t offset = take(static_cast<size_t>(rows) * row_bytes);
    return {reinterpret_cast<std::byte*>(offset), row_bytes};
  }
  // Random rows of BlockQ8A.
  Operand blocks(int64_t rows, int64_t n) {
    Operand operand = rows_of(rows, static_cast<size_t>(n / 32) * sizeof(BlockQ8A));
    std::vector<float> x(static_cast<size_t>(n));
    for (int64_t r = 0; r < rows; ++r) {
      for (float& value : x) value = normal();
      scalar().quantize_q8a(x.data(), at<BlockQ8A>(offset_of(operand, r)), n);
    }
    return operand;
  }
  static size_t offset_of(const Operand& operand, int64_t row) {
    return reinterpret_cast<size_t>(operand.data) + static_cast<size_t>(row) * operand.row_bytes;
  }

  void bound(const Operand& operand, int64_t row, int64_t column, double value) {
    case_.bounded.push_back({offset_of(operand, row) + static_cast<size_t>(column) * 4, value});
  }
  // The bound is a share of each value that the host computes, plus a part that is fixed.
  void bound_by_share(const Operand& operand, int64_t rows, int64_t n, double share, double fixed) {
    const std::vector<std::byte> expected = host_result(case_);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < n; ++i) {
        float value;
        std::memcpy(&value, expected.data() + offset_of(operand, r) + static_cast<size_t>(i) * 4,
                    4);
        bound(operand, r, i, share * std::abs(double{value}) + fixed);
      }
    }
  }

  Case done() {
    set_step();
    return std::move(case_);
  }

 private:
  Case case_;
  std::mt19937 random_;
  size_t step_ = 0;
};

}  // namespace tandem::gpu::testing

#include "tests/kernels_gpu/case.h"

#include <cmath>

#include "device/host_compute.h"
#include "kernels_cpu/dispatch.h"

namespace tandem::gpu::testing {
namespace {

template <typename T>
void place(std::byte* base, T*& address) {
  if (address == nullptr) return;
  address = reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(base) +
                                 reinterpret_cast<uintptr_t>(address));
}

float float_at(const std::vector<std::byte>& image, size_t offset) {
  float value;
  std::memcpy(&value, image.data() + offset, sizeof value);
  return value;
}

bool close(float a, float b, double bound) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  if (std::isinf(a) || std::isinf(b)) return a == b;
  return std::abs(double{a} - double{b}) <= bound;
}

}  // namespace

std::vector<std::byte> Case::image_at(const std::byte* base) const {
  std::vector<std::byte> placed = image;
  for (const auto& [at, target] : addresses) {
    const std::byte* address = target == 0 ? nullptr : base + target;
    std::memcpy(placed.data() + at, &address, sizeof address);
  }
  return placed;
}

Operation Case::op_at(std::byte* base) const {
  Operation placed = op;
  for (Operand& operand : placed.in) place(base, operand.data);
  place(base, placed.out.data);
  place(base, placed.out2.data);
  place(base, placed.other_rows.data);
  place(base, placed.other_lists.data);
  place(base, placed.n_pairs);
  place(base, placed.weight);
  place(base, placed.experts);
  place(base, placed.step);
  placed.constants = &constants;
  return placed;
}

void clear_addresses(const Case& a_case, std::vector<std::byte>& image) {
  for (const auto& [at, target] : a_case.addresses)
    std::memset(image.data() + at, 0, sizeof(uintptr_t));
}

std::vector<std::byte> host_result(const Case& a_case) {
  std::vector<std::byte> standing(a_case.image.size());
  const std::vector<std::byte> placed = a_case.image_at(standing.data());
  std::memcpy(standing.data(), placed.data(), placed.size());
  std::vector<float> scratch(host::attend_scratch_floats(a_case.constants) + 1);
  host::compute(a_case.op_at(standing.data()), *cpu::table_for(cpu::Isa::kScalar), scratch.data());
  clear_addresses(a_case, standing);
  return standing;
}

std::string bit_difference(const std::vector<std::byte>& actual,
                           const std::vector<std::byte>& expected) {
  for (size_t i = 0; i + sizeof(float) <= expected.size(); i += sizeof(float)) {
    if (std::memcmp(&actual[i], &expected[i], sizeof(float)) == 0) continue;
    const float a = float_at(actual, i), e = float_at(expected, i);
    if (std::isnan(a) && std::isnan(e)) continue;
    return "at byte " + std::to_string(i) + ": " + std::to_string(a) + " where " +
           std::to_string(e) + " is expected";
  }
  return {};
}

std::string difference(const Case& a_case, const std::vector<std::byte>& actual,
                       const std::vector<std::byte>& expected) {
  std::vector<std::byte> rest = actual;
  for (const Bounded& b : a_case.bounded) {
    const float a = float_at(actual, b.offset), e = float_at(expected, b.offset);
    if (!close(a, e, b.bound)) {
      return "float at byte " + std::to_string(b.offset) + ": " + std::to_string(a) + " is " +
             std::to_string(double{a} - double{e}) + " from " + std::to_string(e) +
             ", allowed are " + std::to_string(b.bound);
    }
    std::memcpy(rest.data() + b.offset, expected.data() + b.offset, sizeof(float));
  }
  return bit_difference(rest, expected);
}

}  // namespace tandem::gpu::testing

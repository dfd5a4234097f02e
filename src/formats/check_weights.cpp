#include "formats/check_weights.h"

#include <algorithm>
#include <cstring>

#include "base/blocks.h"

namespace tandem {
namespace {

// All bits of the exponent set is infinity or NaN, in every IEEE format.
constexpr uint32_t kExponentF32 = 0x7f800000u;
constexpr uint16_t kExponentHalf = 0x7c00u;
constexpr uint16_t kExponentBF16 = 0x7f80u;

template <typename T>
T load(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

// Eight bytes at a time: adding the exponent's lowest bit to an exponent of ones, and to no other,
// carries into the place of the sign, which was masked out.
template <typename T>
bool any_not_finite(std::span<const std::byte> weights, T exponent) {
  constexpr uint64_t kEveryLane = sizeof(T) == 4 ? 0x0000000100000001u : 0x0001000100010001u;
  const uint64_t exponents = exponent * kEveryLane;
  const uint64_t lowest_bits = (exponent & (~exponent + 1u)) * kEveryLane;
  const uint64_t signs = (uint64_t{1} << (8 * sizeof(T) - 1)) * kEveryLane;
  uint64_t carried = 0;
  size_t at = 0;
  for (; at + 8 <= weights.size(); at += 8) {
    carried |= (load<uint64_t>(weights.data() + at) & exponents) + lowest_bits;
  }
  for (; at < weights.size(); at += sizeof(T)) {
    if ((load<T>(weights.data() + at) & exponent) == exponent) return true;
  }
  return (carried & signs) != 0;
}

// Pages first without a branch per weight, then the place within the page that has one.
template <typename T>
std::optional<uint64_t> find_scalar(std::span<const std::byte> weights, T exponent) {
  constexpr size_t kPageBytes = 4096;
  for (size_t page = 0; page < weights.size(); page += kPageBytes) {
    const size_t end = std::min(page + kPageBytes, weights.size());
    if (!any_not_finite(weights.subspan(page, end - page), exponent)) continue;
    for (size_t at = page; at < end; at += sizeof(T)) {
      if ((load<T>(weights.data() + at) & exponent) == exponent) return at;
    }
  }
  return std::nullopt;
}

// Blocks of `block_bytes` with a half-precision scale at each of two places (which may be one).
std::optional<uint64_t> find_scale(std::span<const std::byte> weights, size_t block_bytes,
                                   size_t first, size_t second) {
  for (size_t block = 0; block < weights.size(); block += block_bytes) {
    for (const size_t at : {block + first, block + second}) {
      if ((load<Half>(weights.data() + at) & kExponentHalf) == kExponentHalf) return at;
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<uint64_t> find_not_finite(DType type, std::span<const std::byte> weights) {
  switch (type) {
    case DType::kF32:
      return find_scalar<uint32_t>(weights, kExponentF32);
    case DType::kF16:
      return find_scalar<uint16_t>(weights, kExponentHalf);
    case DType::kBF16:
      return find_scalar<uint16_t>(weights, kExponentBF16);
    case DType::kQ4_0:
      return find_scale(weights, sizeof(BlockQ4_0), offsetof(BlockQ4_0, d), offsetof(BlockQ4_0, d));
    case DType::kQ8_0:
      return find_scale(weights, sizeof(BlockQ8_0), offsetof(BlockQ8_0, d), offsetof(BlockQ8_0, d));
    case DType::kQ4_K:
      return find_scale(weights, sizeof(BlockQ4_K), offsetof(BlockQ4_K, d),
                        offsetof(BlockQ4_K, dmin));
    case DType::kQ6_K:
      return find_scale(weights, sizeof(BlockQ6_K), offsetof(BlockQ6_K, d), offsetof(BlockQ6_K, d));
  }
  return std::nullopt;
}

}  // namespace tandem

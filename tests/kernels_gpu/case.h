// One operation with all that it touches, in one piece of memory that can stand anywhere: on the host, or on a card.
//
// Addresses inside are offsets into the image until placed() turns them into addresses from a base.  After a run the whole
// piece is compared, so that a kernel that writes where it should not is seen.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "device/operation.h"

namespace tandem::gpu::testing {

// Floats in the image that may differ from the host's result, each by its own bound.
struct Bounded {
  size_t offset = 0;
  double bound = 0;
};

struct Case {
  std::string name;
  std::vector<std::byte> image;
  Operation op;  // addresses are offsets; 0 stands for null
  OperationConstants constants;
  std::vector<std::pair<size_t, size_t>>
      addresses;                 // at offset first stands the address of offset second
  std::vector<Bounded> bounded;  // everything else has to have the same bits
  uint64_t bytes_moved = 0;      // that the operation has to read and write

  // The image for a base, and the operation over it.
  std::vector<std::byte> image_at(const std::byte* base) const;
  Operation op_at(std::byte* base) const;
};

// Every kind, every weight type, odd sizes, none and many rows, NaN and infinity.
std::vector<Case> all_cases();

// Sizes of real models, for times.
std::vector<Case> timed_cases();

// Empty, or the first difference beyond the bounds.
std::string difference(const Case& a_case, const std::vector<std::byte>& actual,
                       const std::vector<std::byte>& expected);
// The same with no bounds.  Of NaN the sign and payload may differ: processors choose their own.
std::string bit_difference(const std::vector<std::byte>& actual,
                           const std::vector<std::byte>& expected);

// What host::compute with the scalar kernels leaves in the image; addresses in it are 0 again.
std::vector<std::byte> host_result(const Case& a_case);

// `image` with its addresses zeroed, so that images from different bases compare.
void clear_addresses(const Case& a_case, std::vector<std::byte>& image);

}  // namespace tandem::gpu::testing

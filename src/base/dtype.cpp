#include "base/dtype.h"

#include <array>
#include <cctype>
#include <string>

#include "base/blocks.h"

namespace tandem {
namespace {

// Source: the GGUF specification's type table; sizes of the types computed here are asserted in
// base/blocks.h.  Numbers 4, 5, 31-33 and 36-38 were given out once and retired.
constexpr std::array<DTypeInfo, 34> kTypes = {{
    {0, "f32", 1, 4, true},
    {1, "f16", 1, 2, true},
    {2, "q4_0", 32, sizeof(BlockQ4_0), true},
    {3, "q4_1", 32, 20, false},
    {6, "q5_0", 32, 22, false},
    {7, "q5_1", 32, 24, false},
    {8, "q8_0", 32, sizeof(BlockQ8_0), true},
    {9, "q8_1", 32, 36, false},
    {10, "q2_k", 256, 84, false},
    {11, "q3_k", 256, 110, false},
    {12, "q4_k", 256, sizeof(BlockQ4_K), true},
    {13, "q5_k", 256, 176, false},
    {14, "q6_k", 256, sizeof(BlockQ6_K), true},
    {15, "q8_k", 256, 292, false},
    {16, "iq2_xxs", 256, 66, false},
    {17, "iq2_xs", 256, 74, false},
    {18, "iq3_xxs", 256, 98, false},
    {19, "iq1_s", 256, 50, false},
    {20, "iq4_nl", 32, 18, false},
    {21, "iq3_s", 256, 110, false},
    {22, "iq2_s", 256, 82, false},
    {23, "iq4_xs", 256, 136, false},
    {24, "i8", 1, 1, false},
    {25, "i16", 1, 2, false},
    {26, "i32", 1, 4, false},
    {27, "i64", 1, 8, false},
    {28, "f64", 1, 8, false},
    {29, "iq1_m", 256, 56, false},
    {30, "bf16", 1, 2, true},
    {34, "tq1_0", 256, 54, false},
    {35, "tq2_0", 256, 66, false},
    {39, "mxfp4", 32, 17, false},
    {40, "nvfp4", 64, 36, false},
    {41, "q1_0", 128, 18, false},
}};

}  // namespace

std::optional<DTypeInfo> dtype_info(uint32_t id) {
  for (const DTypeInfo& type : kTypes) {
    if (type.id == id) return type;
  }
  return std::nullopt;
}

const DTypeInfo& dtype_info(DType type) {
  for (const DTypeInfo& info : kTypes) {
    if (info.id == static_cast<uint32_t>(type)) return info;
  }
  return kTypes[0];
}

std::optional<DType> dtype_from_name(std::string_view name) {
  std::string lower(name);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const DTypeInfo& info : kTypes) {
    if (info.computed && info.name == lower) return static_cast<DType>(info.id);
  }
  return std::nullopt;
}

}  // namespace tandem

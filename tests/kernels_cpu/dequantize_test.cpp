#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/kernels_cpu/tables.h"

namespace tandem::cpu {
namespace {

std::vector<char> read_fixture(const std::string& name) {
  std::ifstream file(std::string(TANDEM_FIXTURES) + "/quants/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class DequantizeTest : public testing::KernelTest {
 protected:
  // The fixture's values were written by the gguf Python package.
  void expect_same_bits(KernelTable::Dequantize* dequantize, const std::string& type,
                        size_t shift_bytes) {
    std::vector<char> blocks = read_fixture(type + ".bin");
    const std::vector<char> expected = read_fixture(type + ".f32");
    ASSERT_FALSE(blocks.empty());
    ASSERT_FALSE(expected.empty());
    blocks.insert(blocks.begin(), shift_bytes, char{0});
    std::vector<float> y(expected.size() / sizeof(float));
    dequantize(blocks.data() + shift_bytes, y.data(), static_cast<int64_t>(y.size()));
    for (size_t i = 0; i < y.size(); ++i)
      ASSERT_EQ(0, std::memcmp(&y[i], expected.data() + i * sizeof(float), sizeof(float)))
          << type << " value " << i << " is " << y[i];
  }
  void expect_same_bits(KernelTable::Dequantize* dequantize, const std::string& type) {
    expect_same_bits(dequantize, type, 0);
    expect_same_bits(dequantize, type, 1);
  }
};

TEST_P(DequantizeTest, F16HasTheBitsOfTheGgufPackage) {
  expect_same_bits(kernels().dequantize_f16, "f16");
}
TEST_P(DequantizeTest, Bf16HasTheBitsOfTheGgufPackage) {
  expect_same_bits(kernels().dequantize_bf16, "bf16");
}
TEST_P(DequantizeTest, Q4_0HasTheBitsOfTheGgufPackage) {
  expect_same_bits(kernels().dequantize_q4_0, "q4_0");
}
TEST_P(DequantizeTest, Q8_0HasTheBitsOfTheGgufPackage) {
  expect_same_bits(kernels().dequantize_q8_0, "q8_0");
}
TEST_P(DequantizeTest, Q4_KHasTheBitsOfTheGgufPackage) {
  expect_same_bits(kernels().dequantize_q4_k, "q4_k");
}
TEST_P(DequantizeTest, Q6_KHasTheBitsOfTheGgufPackage) {
  expect_same_bits(kernels().dequantize_q6_k, "q6_k");
}

TEST_P(DequantizeTest, F32IsCopied) {
  const float x[3] = {1.5f, -0.0f, 1e-45f};
  float y[3];
  kernels().dequantize_f32(x, y, 3);
  EXPECT_EQ(0, std::memcmp(x, y, sizeof x));
}

TANDEM_FOR_EVERY_ISA(DequantizeTest);

}  // namespace
}  // namespace tandem::cpu

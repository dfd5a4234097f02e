// A fixed number of mutated files, the same in every run.
#include <fstream>
#include <iterator>
#include <random>

#include "fuzz/fuzz_gguf.h"
#include "gguf_bytes.h"
#include "status_matchers.h"

namespace tandem {
namespace {

using Input = std::vector<uint8_t>;

constexpr uint64_t kInteresting[] = {
    0,     1,        4,          8,          9,          12,        13,         255,       256,
    65535, 1u << 31, UINT32_MAX, 1ull << 32, 1ull << 60, INT64_MAX, 1ull << 63, UINT64_MAX};

Input bytes_of(const testing::Bytes& bytes) {
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data().data());
  return Input(data, data + bytes.size());
}

std::vector<Input> seeds() {
  std::vector<Input> inputs = {bytes_of(testing::rich_file(2)), bytes_of(testing::rich_file(3))};
  std::ifstream fixture(TANDEM_FIXTURES "/golden/qwen3.gguf", std::ios::binary);
  inputs.emplace_back(std::istreambuf_iterator<char>(fixture), std::istreambuf_iterator<char>());
  return inputs;
}

void mutate(Input& input, std::mt19937_64& random) {
  if (input.empty()) return;
  // Mostly in the header: the first kilobytes.
  const size_t reach = std::min<size_t>(input.size(), 4096);
  const size_t at = random() % reach;
  const size_t width = size_t{1} << (random() % 4);
  switch (random() % 6) {
    case 0:
      input[at] = static_cast<uint8_t>(random());
      break;
    case 1:
      input[at] ^= static_cast<uint8_t>(1u << (random() % 8));
      break;
    case 2: {
      const uint64_t value = kInteresting[random() % std::size(kInteresting)];
      std::memcpy(input.data() + at, &value, std::min(width, input.size() - at));
      break;
    }
    case 3:
      input.resize(at);
      break;
    case 4:
      input.erase(input.begin() + static_cast<ptrdiff_t>(at),
                  input.begin() + static_cast<ptrdiff_t>(std::min(at + width, input.size())));
      break;
    default: {
      const size_t from = random() % reach;
      const Input piece(
          input.begin() + static_cast<ptrdiff_t>(from),
          input.begin() + static_cast<ptrdiff_t>(std::min(from + 4 * width, input.size())));
      input.insert(input.begin() + static_cast<ptrdiff_t>(at), piece.begin(), piece.end());
    }
  }
}

TEST(GgufFuzz, SurvivesTwentyThousandMutations) {
  const std::vector<Input> inputs = seeds();
  ASSERT_GT(inputs.back().size(), 1000u);
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; ++i) {
    // The fixture is large: every tenth, cut behind its header.
    Input input = inputs[i % 10 == 0 ? 2 : static_cast<size_t>(i % 2)];
    if (i % 20 == 0) input.resize(16384);
    const size_t n = 1 + random() % 4;
    for (size_t k = 0; k < n; ++k) mutate(input, random);
    input.shrink_to_fit();
    ASSERT_EQ(fuzz_gguf(input.data(), input.size()), 0);
  }
}

}  // namespace
}  // namespace tandem

// A fixed number of random vocabularies and texts, the same in every run.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "fuzz/fuzz_tokenizer.h"

namespace tandem {
namespace {

TEST(TokenizerFuzz, SurvivesTenThousandRandomVocabularies) {
  std::mt19937_64 random(42);
  std::vector<uint8_t> input;
  for (int round = 0; round < 10000; ++round) {
    input.resize(random() % 3000);
    for (uint8_t& byte : input) byte = static_cast<uint8_t>(random());
    if (input.size() > 1) input[1] = static_cast<uint8_t>(random() % 128);  // number of tokens
    fuzz_tokenizer(input.data(), input.size());
  }
}

}  // namespace
}  // namespace tandem

// Fixture models and the logits that the reference program gave for them (tests/fixtures/README.md).
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <span>
#include <string>
#include <vector>

namespace tandem::testing {

inline std::string fixture(const std::string& name) {
  return std::string(TANDEM_FIXTURES) + "/" + name;
}

struct Golden {
  std::vector<int32_t> tokens;
  size_t n_vocabulary = 0;
  std::vector<float> logits;  // [tokens, vocabulary]

  std::span<const float> row(size_t i) const {
    return {logits.data() + i * n_vocabulary, n_vocabulary};
  }
};

inline Golden read_golden(const std::string& name) {
  std::ifstream file(fixture("golden/" + name + ".golden.bin"), std::ios::binary);
  char magic[4] = {};
  uint32_t numbers[3] = {};
  file.read(magic, 4);
  file.read(reinterpret_cast<char*>(numbers), sizeof(numbers));
  Golden golden;
  if (std::memcmp(magic, "TGLD", 4) != 0 || numbers[0] != 1) {
    ADD_FAILURE() << "no golden file for " << name;
    return golden;
  }
  golden.tokens.resize(numbers[1]);
  golden.n_vocabulary = numbers[2];
  golden.logits.resize(size_t{numbers[1]} * numbers[2]);
  file.read(reinterpret_cast<char*>(golden.tokens.data()),
            static_cast<std::streamsize>(golden.tokens.size() * 4));
  file.read(reinterpret_cast<char*>(golden.logits.data()),
            static_cast<std::streamsize>(golden.logits.size() * 4));
  if (!file) ADD_FAILURE() << "golden file of " << name << " is too short";
  return golden;
}

// |actual - expected| / |expected|, both as vectors; infinity when actual holds a NaN or the lengths differ.
inline double relative_l2(std::span<const float> actual, std::span<const float> expected) {
  if (actual.size() != expected.size()) return HUGE_VAL;
  double difference = 0, norm = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double d = static_cast<double>(actual[i]) - static_cast<double>(expected[i]);
    difference += d * d;
    norm += static_cast<double>(expected[i]) * static_cast<double>(expected[i]);
  }
  const double error = std::sqrt(difference / norm);
  return std::isfinite(error) ? error : HUGE_VAL;
}

inline std::string golden_model(const std::string& name) {
  return fixture("golden/" + name + (name == "llama-split" ? "-00001-of-00003" : "") + ".gguf");
}

}  // namespace tandem::testing

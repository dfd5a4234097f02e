// Chooses the next token from logits.
//
// The order is the one people know from other engines: penalties, top-k, top-p, min-p, temperature.  Temperature comes
// last, so that what the filters keep does not depend on it.
//
// Threading: one caller.
// Ownership: owns its work space, allocated at construction; sample() allocates nothing.
// Errors: validate() names the field; sample() cannot fail: logits that are not numbers are never preferred to
// numbers, and show as a log-probability that is not finite.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "text/vocabulary.h"

namespace tandem {

struct SamplingParameters {
  static constexpr int kMostRepeatLastN = 1 << 20;

  float temperature = 0.7f;  // 0: always the likeliest token, of equals the lowest id
  int top_k = 40;            // 0: off
  float top_p = 0.95f;       // 0 or 1: off
  float min_p = 0.05f;       // 0: off
  float repeat_penalty =
      1;  // 0 or 1: off; divides positive and multiplies negative logits of recent tokens
  float frequency_penalty = 0;  // 0: off; times how often a token is among the recent ones
  float presence_penalty = 0;   // 0: off; once for a token among the recent ones
  int repeat_last_n = 64;       // how many tokens count as recent; 0: none, so no penalties
  uint64_t seed = 0;
};

Status validate(const SamplingParameters& parameters);

// xoshiro256** (Blackman and Vigna 2018), seeded through splitmix64: the same numbers on every machine.
class RandomStream {
 public:
  explicit RandomStream(uint64_t seed);
  uint64_t next();
  double next_unit();  // [0, 1)

 private:
  std::array<uint64_t, 4> state_;
};

class Sampler {
 public:
  // Requires: validate(parameters) is ok.
  Sampler(const SamplingParameters& parameters, size_t vocabulary_size);

  struct Choice {
    TokenId token;
    float log_probability;  // natural, of the softmax over all logits as they came
  };
  // logits [V]; `recent` the tokens so far, the last repeat_last_n of which the penalties look at.
  Choice sample(std::span<const float> logits, std::span<const TokenId> recent);

 private:
  struct Candidate {
    float logit;
    TokenId token;
  };
  static bool better(const Candidate& a, const Candidate& b);

  std::span<const float> penalised(std::span<const float> logits, std::span<const TokenId> recent);
  void take_best(std::span<const float> logits, size_t n);
  void take_all(std::span<const float> logits);
  void sort_more();
  void keep_top_p();
  void keep_min_p();
  TokenId draw();

  SamplingParameters parameters_;
  RandomStream random_;
  std::vector<float> penalised_;       // [V] when a penalty is on
  std::vector<TokenId> recent_;        // sorted
  std::vector<Candidate> candidates_;  // the best first; the first n_sorted_ in order
  size_t n_sorted_ = 0;
};

}  // namespace tandem

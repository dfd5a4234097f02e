#include "runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

namespace tandem {
namespace {

Status out_of_range(const char* field, double value, const std::string& expected) {
  return invalid_argument("sampling." + std::string(field) + " is " + std::to_string(value) +
                          ", expected " + expected);
}

// Zero is how a caller leaves them out; 1 is the value that changes nothing.
SamplingParameters without_zeros(SamplingParameters p) {
  if (p.top_p == 0.0f) p.top_p = 1;
  if (p.repeat_penalty == 0.0f) p.repeat_penalty = 1;
  return p;
}

// Requires: without_zeros().
bool has_penalties(const SamplingParameters& p) {
  return p.repeat_last_n > 0 &&
         (p.repeat_penalty != 1.0f || p.frequency_penalty != 0.0f || p.presence_penalty != 0.0f);
}

// Something to compare by, also for what is not a number.
float comparable(float logit) {
  return std::isnan(logit) ? -std::numeric_limits<float>::infinity() : logit;
}

float log_probability(std::span<const float> logits, TokenId token) {
  const float chosen = logits[static_cast<size_t>(token)];
  double sum = 0;
  for (const float logit : logits)
    sum += std::exp(static_cast<double>(logit) - static_cast<double>(chosen));
  return static_cast<float>(-std::log(sum));
}

TokenId likeliest(std::span<const float> logits) {
  size_t best = 0;
  for (size_t i = 1; i < logits.size(); ++i) {
    if (comparable(logits[i]) > comparable(logits[best])) best = i;
  }
  return static_cast<TokenId>(best);
}

}  // namespace

Status validate(const SamplingParameters& p) {
  const auto within = [](double value, double low, double high) {
    return value >= low && value <= high;
  };
  if (!within(p.temperature, 0, 100)) return out_of_range("temperature", p.temperature, "0 to 100");
  if (p.top_k < 0) return out_of_range("top_k", p.top_k, "0 or more");
  if (!within(p.top_p, 0, 1)) return out_of_range("top_p", p.top_p, "0 to 1");
  if (!within(p.min_p, 0, 1)) return out_of_range("min_p", p.min_p, "0 to 1");
  if (p.repeat_penalty != 0.0f && !within(p.repeat_penalty, 0.01, 100)) {
    return out_of_range("repeat_penalty", p.repeat_penalty, "0, or 0.01 to 100");
  }
  if (!within(p.frequency_penalty, -100, 100)) {
    return out_of_range("frequency_penalty", p.frequency_penalty, "-100 to 100");
  }
  if (!within(p.presence_penalty, -100, 100)) {
    return out_of_range("presence_penalty", p.presence_penalty, "-100 to 100");
  }
  if (!within(p.repeat_last_n, 0, SamplingParameters::kMostRepeatLastN)) {
    return out_of_range("repeat_last_n", p.repeat_last_n,
                        "0 to " + std::to_string(SamplingParameters::kMostRepeatLastN));
  }
  return ok_status();
}

RandomStream::RandomStream(uint64_t seed) {
  for (uint64_t& word : state_) {
    seed += 0x9E3779B97F4A7C15u;
    uint64_t z = seed;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    word = z ^ (z >> 31);
  }
}

uint64_t RandomStream::next() {
  const auto rotate = [](uint64_t x, int k) { return (x << k) | (x >> (64 - k)); };
  const uint64_t result = rotate(state_[1] * 5, 7) * 9;
  const uint64_t t = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= t;
  state_[3] = rotate(state_[3], 45);
  return result;
}

double RandomStream::next_unit() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

bool Sampler::better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

Sampler::Sampler(const SamplingParameters& parameters, size_t vocabulary_size)
    : parameters_(without_zeros(parameters)), random_(parameters.seed) {
  if (has_penalties(parameters_)) {
    penalised_.resize(vocabulary_size);
    recent_.reserve(static_cast<size_t>(parameters_.repeat_last_n));
  }
  const size_t k = static_cast<size_t>(parameters_.top_k);
  candidates_.reserve(k == 0 ? vocabulary_size : std::min(k, vocabulary_size));
}

Sampler::Choice Sampler::sample(std::span<const float> logits, std::span<const TokenId> recent) {
  const std::span<const float> scores =
      has_penalties(parameters_) ? penalised(logits, recent) : logits;
  TokenId token = 0;
  if (parameters_.temperature == 0.0f) {
    token = likeliest(scores);
  } else {
    const size_t k = static_cast<size_t>(parameters_.top_k);
    if (k == 0 || k >= scores.size()) {
      take_all(scores);
    } else {
      take_best(scores, k);
    }
    keep_top_p();
    keep_min_p();
    token = draw();
  }
  return {token, log_probability(logits, token)};
}

std::span<const float> Sampler::penalised(std::span<const float> logits,
                                          std::span<const TokenId> recent) {
  const size_t n = std::min(recent.size(), static_cast<size_t>(parameters_.repeat_last_n));
  std::copy(logits.begin(), logits.end(), penalised_.begin());
  recent_.assign(recent.end() - static_cast<ptrdiff_t>(n), recent.end());
  std::sort(recent_.begin(), recent_.end());
  for (size_t i = 0; i < n;) {
    size_t end = i;
    while (end < n && recent_[end] == recent_[i]) ++end;
    const size_t token = static_cast<size_t>(recent_[i]);
    if (recent_[i] >= 0 && token < penalised_.size()) {
      float& logit = penalised_[token];
      logit = logit > 0 ? logit / parameters_.repeat_penalty : logit * parameters_.repeat_penalty;
      logit -= parameters_.frequency_penalty * static_cast<float>(end - i) +
               parameters_.presence_penalty;
    }
    i = end;
  }
  return penalised_;
}

// The n best, best first.  Few of many: a heap whose worst member most tokens do not beat.
void Sampler::take_best(std::span<const float> logits, size_t n) {
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    const Candidate candidate{comparable(logits[i]), static_cast<TokenId>(i)};
    if (candidates_.size() < n) {
      candidates_.push_back(candidate);
      if (candidates_.size() == n) std::make_heap(candidates_.begin(), candidates_.end(), better);
    } else if (candidate.logit > candidates_.front().logit) {
      std::pop_heap(candidates_.begin(), candidates_.end(), better);
      candidates_.back() = candidate;
      std::push_heap(candidates_.begin(), candidates_.end(), better);
    }
  }
  std::sort(candidates_.begin(), candidates_.end(), better);
  n_sorted_ = candidates_.size();
}

// All of them, the best in front, the rest in no order: sorting 200 000 takes longer than a small model's step.
void Sampler::take_all(std::span<const float> logits) {
  candidates_.clear();
  size_t best = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    candidates_.push_back({comparable(logits[i]), static_cast<TokenId>(i)});
    if (better(candidates_[i], candidates_[best])) best = i;
  }
  std::swap(candidates_.front(), candidates_[best]);
  n_sorted_ = 1;
}

// Puts several times as many candidates in order as are now.
void Sampler::sort_more() {
  const size_t n = std::min(candidates_.size(), std::max<size_t>(64, 4 * n_sorted_));
  const auto at = [this](size_t i) { return candidates_.begin() + static_cast<ptrdiff_t>(i); };
  if (n < candidates_.size()) std::nth_element(at(n_sorted_), at(n), candidates_.end(), better);
  std::sort(at(n_sorted_), at(n), better);
  n_sorted_ = n;
}

// The shortest start whose probabilities, among the candidates, reach top_p.
void Sampler::keep_top_p() {
  if (parameters_.top_p >= 1.0f) return;
  const auto weight = [this](const Candidate& c) {
    return std::exp(static_cast<double>(c.logit) - static_cast<double>(candidates_.front().logit));
  };
  double total = 0;
  for (const Candidate& candidate : candidates_) total += weight(candidate);
  double sum = 0;
  for (size_t i = 0; i < candidates_.size(); ++i) {
    if (i == n_sorted_) sort_more();
    sum += weight(candidates_[i]);
    if (sum >= static_cast<double>(parameters_.top_p) * total) {
      candidates_.resize(i + 1);
      return;
    }
  }
}

void Sampler::keep_min_p() {
  if (parameters_.min_p <= 0.0f) return;
  const float least = candidates_.front().logit + std::log(parameters_.min_p);
  // The best always stays, also where it is no number to compare with.
  const auto end = std::remove_if(candidates_.begin() + 1, candidates_.end(),
                                  [&](const Candidate& c) { return !(c.logit >= least); });
  candidates_.resize(static_cast<size_t>(end - candidates_.begin()));
}

TokenId Sampler::draw() {
  const auto weight = [this](const Candidate& c) {
    return std::exp(
        (static_cast<double>(c.logit) - static_cast<double>(candidates_.front().logit)) /
        static_cast<double>(parameters_.temperature));
  };
  double total = 0;
  for (const Candidate& candidate : candidates_) total += weight(candidate);
  double left = random_.next_unit() * total;
  for (const Candidate& candidate : candidates_) {
    left -= weight(candidate);
    if (left < 0) return candidate.token;
  }
  return candidates_.front().token;  // rounding, or logits that are not numbers
}

}  // namespace tandem

#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

namespace tandem {
namespace {

// The (fractional) index of the pair that makes `rotations` turns over the original context.
double pair_with_rotations(double rotations, const ModelShape& shape) {
  const double n_rot = static_cast<double>(shape.n_rot);
  const double context = static_cast<double>(shape.rope_scaling.original_context);
  return n_rot * std::log(context / (rotations * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(static_cast<double>(shape.rope_base)));
}

// Pairs that turn often keep their frequency, slow ones are interpolated, with a linear ramp between.
void apply_yarn(const ModelShape& shape, RopeFrequencies& rope) {
  const RopeScaling& scaling = shape.rope_scaling;
  const double last = static_cast<double>(shape.n_rot - 1);
  const double low = std::max(std::floor(pair_with_rotations(scaling.beta_fast, shape)), 0.0);
  double high = std::min(std::ceil(pair_with_rotations(scaling.beta_slow, shape)), last);
  if (high <= low) high = low + 0.001;
  for (size_t i = 0; i < rope.frequency.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    const double kept = rope.frequency[i];
    rope.frequency[i] = kept * (1.0 - ramp) + kept / scaling.factor * ramp;
  }
  const double factor = scaling.factor;
  const double by_default = factor > 1.0 ? 0.1 * std::log(factor) + 1.0 : 1.0;
  rope.magnitude = by_default * scaling.attention_multiplier;
}

}  // namespace

Status check_rope_factors(std::span<const float> factors) {
  for (size_t i = 0; i < factors.size(); ++i) {
    if (std::isfinite(factors[i]) && factors[i] > 0) continue;
    return corrupt("tensor rope_freqs.weight: element " + std::to_string(i) + " is " +
                   std::to_string(factors[i]) + ", expected a positive number")
        .in_tensor("rope_freqs.weight");
  }
  return ok_status();
}

RopeFrequencies rope_frequencies(const ModelShape& shape, std::span<const float> factors) {
  RopeFrequencies rope;
  const size_t n_pairs = static_cast<size_t>(shape.n_rot / 2);
  rope.frequency.resize(n_pairs);
  for (size_t i = 0; i < n_pairs; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(shape.n_rot);
    rope.frequency[i] = std::pow(static_cast<double>(shape.rope_base), exponent);
    if (i < factors.size()) rope.frequency[i] /= static_cast<double>(factors[i]);
  }
  switch (shape.rope_scaling.kind) {
    case RopeScaling::Kind::kNone:
      break;
    case RopeScaling::Kind::kLinear:
      for (double& frequency : rope.frequency) frequency /= shape.rope_scaling.factor;
      break;
    case RopeScaling::Kind::kYarn:
      apply_yarn(shape, rope);
      break;
  }
  return rope;
}

}  // namespace tandem

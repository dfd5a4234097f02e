// Rotary position embedding: how fast each pair of a head turns.
#pragma once

#include <span>
#include <vector>

#include "base/status.h"
#include "model/shape.h"

namespace tandem {

// angle(position, i) = position * frequency[i];  cos and sin are multiplied by `magnitude`.
struct RopeFrequencies {
  std::vector<double> frequency;  // [n_rot/2], radians per position
  double magnitude = 1;
};

// `factors` [n_rot/2] divide the frequencies (Llama 3 stores them as tensor rope_freqs.weight);
// empty for models without them.
// Source: RoFormer (Su et al. 2021); linear interpolation (Chen et al. 2023); YaRN (Peng et al. 2023)
// equations 17-25.
RopeFrequencies rope_frequencies(const ModelShape& shape, std::span<const float> factors);

// Errors: kCorrupt for a factor that is not a positive number.
Status check_rope_factors(std::span<const float> factors);

}  // namespace tandem

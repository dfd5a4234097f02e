// How tokens are chosen: flags over what the model recommends.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "command_line.h"
#include "tandem/tandem.hpp"

namespace tandem::cli {

struct SamplingFlags {
  std::optional<float> temperature, top_p, min_p, repeat_penalty, frequency_penalty,
      presence_penalty;
  std::optional<int32_t> top_k, repeat_last_n;
  std::optional<uint64_t> seed;

  void add_to(CommandLine& line);
  // The model's recommendation with what was given in its place. The seed is random when none was
  // given.
  api::Expected<tandem_sampling> over(const api::Model& model) const;
};

// A seed that is short enough to be typed again.
uint64_t random_seed();

}  // namespace tandem::cli

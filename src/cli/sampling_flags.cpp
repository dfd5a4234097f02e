#include "sampling_flags.h"

#include <limits>
#include <random>

namespace tandem::cli {

void SamplingFlags::add_to(CommandLine& line) {
  line.group("Sampling");
  line.whole("-s,--seed", seed, 0, std::numeric_limits<int64_t>::max(),
             "seed; random and shown when left out");
  line.real("--temp", temperature, 0, 100, "temperature, 0: always the likeliest token");
  line.whole("--top-k", top_k, 0, 1 << 30, "only the K likeliest tokens, 0: off");
  line.real("--top-p", top_p, 0, 1,
            "only the likeliest tokens that make up this share, 0 or 1: off");
  line.real("--min-p", min_p, 0, 1, "no token below this share of the likeliest, 0: off");
  line.real("--repeat-penalty", repeat_penalty, 0, 100,
            "divides what appeared lately, 0 or 1: off");
  line.real("--frequency-penalty", frequency_penalty, -100, 100, "per appearance, 0: off");
  line.real("--presence-penalty", presence_penalty, -100, 100, "once for what appeared, 0: off");
  line.whole("--repeat-last-n", repeat_last_n, 0, TANDEM_MOST_REPEAT_LAST_N,
             "tokens that the penalties look back");
}

api::Expected<tandem_sampling> SamplingFlags::over(const api::Model& model) const {
  auto sampling = model.default_sampling();
  if (!sampling) return sampling;
  sampling->temperature = temperature.value_or(sampling->temperature);
  sampling->top_k = top_k.value_or(sampling->top_k);
  sampling->top_p = top_p.value_or(sampling->top_p);
  sampling->min_p = min_p.value_or(sampling->min_p);
  sampling->repeat_penalty = repeat_penalty.value_or(sampling->repeat_penalty);
  sampling->frequency_penalty = frequency_penalty.value_or(sampling->frequency_penalty);
  sampling->presence_penalty = presence_penalty.value_or(sampling->presence_penalty);
  sampling->repeat_last_n = repeat_last_n.value_or(sampling->repeat_last_n);
  sampling->seed = seed ? *seed : random_seed();
  return sampling;
}

uint64_t random_seed() { return std::random_device()(); }

}  // namespace tandem::cli

// Running one request: events become text on standard output, Ctrl-C ends the answer and not the
// program.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "console.h"
#include "tandem/tandem.hpp"

namespace tandem::cli {

struct Answer {
  std::string text;
  std::vector<int32_t> tokens;
  tandem_finish finish = TANDEM_FINISH_NONE;
  api::Error error;  // with TANDEM_FINISH_ERROR
  uint64_t n_prompt_tokens = 0, n_prompt_evaluated = 0, n_generated = 0, n_kept = 0;
  double prompt_seconds = 0, generate_seconds = 0;
  uint64_t seed = 0;

  double prompt_tokens_per_s() const;
  // Nothing for fewer than two tokens: the first one comes with the prompt, so that the time may
  // hold no decoding at all.
  std::optional<double> decode_tokens_per_s() const;
};

// Takes the events of the request that was just submitted until it is done. Text is printed as it
// comes when `stream` is set. An interrupt, or an output that nobody reads any more, cancels the
// request.
Answer receive(Console& console, api::Session& session, bool stream);

// "38 tok, prompt 512 tok/s, decode 88 tok/s, context 61/2048"; what was not done is left out.
std::string summary_of(const Answer& answer, uint32_t n_context);
// "end", "stop", "length", "context", "cancelled", "error"
const char* finish_name(tandem_finish finish);

}  // namespace tandem::cli

// What a request adds to what a session already holds.
#pragma once

#include <vector>

#include "base/result.h"
#include "runtime/model.h"
#include "runtime/request.h"

namespace tandem {

struct Prompt {
  size_t n_kept = 0;             // tokens at the start of what is held that stay
  std::vector<TokenId> pending;  // to be evaluated after them, at least one
};

// `held` are the tokens that the session has evaluated.  For messages, the longest start of the conversation that is
// held already is kept; text and tokens are appended.
// Errors: those of template and tokenizer; kInvalidArgument for an empty prompt.
Result<Prompt> make_prompt(const Model& model, const Request& request, const std::vector<TokenId>& held);

}  // namespace tandem

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
// held already is kept; text and tokens are appended.  Text that cannot fit `n_context` whatever its tokens are is
// refused before it is tokenized.
// Errors: those of template and tokenizer; kInvalidArgument for an empty prompt, one that is too long, and a token
// outside the vocabulary; kCancelled.
Result<Prompt> make_prompt(const Model& model, const Request& request,
                           const std::vector<TokenId>& held, int64_t n_context,
                           const CancelFlag& cancel);

}  // namespace tandem

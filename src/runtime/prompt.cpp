#include "runtime/prompt.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

namespace tandem {
namespace {

size_t common_length(const std::vector<TokenId>& a, const std::vector<TokenId>& b) {
  const size_t n = std::min(a.size(), b.size());
  return static_cast<size_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<ptrdiff_t>(n), b.begin()).first - a.begin());
}

// A rendered conversation as one text in which each byte is known to come from the template or from a message.
class RenderedText {
 public:
  explicit RenderedText(const std::vector<RenderedPiece>& pieces) : pieces_(pieces) {
    for (const RenderedPiece& piece : pieces) {
      text_ += piece.text;
      ends_.push_back(text_.size());
    }
  }

  // True when `bytes` stand at `offset`; those of a control token must come from the template whole.
  bool has_at(size_t offset, const std::string& bytes, bool control) const {
    if (text_.compare(offset, bytes.size(), bytes) != 0) return false;
    return !control || trusted(offset, offset + bytes.size());
  }

  std::vector<RenderedPiece> from(size_t offset) const {
    std::vector<RenderedPiece> rest;
    for (const RenderedPiece& piece : pieces_) {
      if (offset < piece.text.size()) rest.push_back({piece.text.substr(offset), piece.trusted});
      offset -= std::min(offset, piece.text.size());
    }
    return rest;
  }

 private:
  bool trusted(size_t begin, size_t end) const {
    const auto first = std::upper_bound(ends_.begin(), ends_.end(), begin) - ends_.begin();
    for (auto i = static_cast<size_t>(first); i < pieces_.size(); ++i) {
      if (!pieces_[i].trusted && !pieces_[i].text.empty()) return false;
      if (ends_[i] >= end) break;
    }
    return true;
  }

  const std::vector<RenderedPiece>& pieces_;
  std::string text_;
  std::vector<size_t> ends_;  // of each piece in the text
};

// Where in the rendered text the held tokens end, if all of them spell its start.  A model may have written its answer with
// other tokens than the tokenizer would choose for the same text; they are still the same conversation.
std::optional<size_t> length_spelled_by(const Tokenizer& tokenizer,
                                        const std::vector<TokenId>& held,
                                        const RenderedText& rendered) {
  size_t offset = 0;
  std::string bytes;
  for (size_t i = 0; i < held.size(); ++i) {
    bytes.clear();
    tokenizer.append_bytes(held[i], /*with_special=*/true, bytes);
    const bool control = tokenizer.kind(held[i]) == TokenKind::kControl;
    if (rendered.has_at(offset, bytes, control)) {
      offset += bytes.size();
    } else if (i > 0 || held[0] != tokenizer.bos()) {  // the start token may not be in the text
      return std::nullopt;
    }
  }
  return offset;
}

Status too_long(const std::string& n_tokens, int64_t n_context) {
  return invalid_argument("the prompt has " + n_tokens + " tokens, the context " +
                          std::to_string(n_context))
      .suggest("use a larger context or a shorter prompt");
}

// Refuses what no choice of tokens makes fit, so that a person who pasted a library waits for nothing.
Status check_length(const Tokenizer& tokenizer, size_t text_bytes, size_t n_held,
                    int64_t n_context) {
  const uint64_t least = n_held + text_bytes / tokenizer.longest_token_bytes();
  return least > static_cast<uint64_t>(n_context)
             ? too_long("more than " + std::to_string(least), n_context)
             : ok_status();
}

Status check_tokens(const std::vector<TokenId>& tokens, int64_t n_vocabulary) {
  const auto bad = std::find_if(tokens.begin(), tokens.end(),
                                [=](TokenId token) { return token < 0 || token >= n_vocabulary; });
  if (bad == tokens.end()) return ok_status();
  return invalid_argument("tokens[" + std::to_string(bad - tokens.begin()) + "] is " +
                          std::to_string(*bad) + ", outside the vocabulary of " +
                          std::to_string(n_vocabulary));
}

Result<Prompt> from_messages(const Model& model, const Request& request,
                             const std::vector<TokenId>& held, int64_t n_context,
                             const CancelFlag& cancel) {
  TANDEM_ASSIGN_OR_RETURN(const std::vector<RenderedPiece> pieces,
                          model.render(request.messages, &cancel));
  size_t text_bytes = 0;
  for (const RenderedPiece& piece : pieces) text_bytes += piece.text.size();
  TANDEM_RETURN_IF_ERROR(check_length(model.tokenizer(), text_bytes, 0, n_context));
  TANDEM_ASSIGN_OR_RETURN(std::vector<TokenId> tokens, model.tokenize_pieces(pieces, &cancel));
  Prompt prompt;
  prompt.n_kept = common_length(held, tokens);
  if (prompt.n_kept < held.size() && !model.tokenizer().adds_space_prefix()) {
    const RenderedText rendered(pieces);
    if (const auto spelled = length_spelled_by(model.tokenizer(), held, rendered)) {
      TANDEM_ASSIGN_OR_RETURN(prompt.pending, [&]() -> Result<std::vector<TokenId>> {
        const std::vector<RenderedPiece> rest = rendered.from(*spelled);
        std::vector<Tokenizer::Piece> views;
        for (const RenderedPiece& piece : rest) views.push_back({piece.text, piece.trusted});
        return model.tokenizer().encode_pieces(views, /*add_bos=*/false, &cancel);
      }());
      prompt.n_kept = held.size();
      if (!prompt.pending.empty()) return prompt;
    }
  }
  // The last token is always evaluated: its logits choose the first token of the answer.
  prompt.n_kept = std::min(common_length(held, tokens), tokens.empty() ? 0 : tokens.size() - 1);
  prompt.pending.assign(tokens.begin() + static_cast<ptrdiff_t>(prompt.n_kept), tokens.end());
  return prompt;
}

}  // namespace

Result<Prompt> make_prompt(const Model& model, const Request& request,
                           const std::vector<TokenId>& held, int64_t n_context,
                           const CancelFlag& cancel) {
  Prompt prompt;
  prompt.n_kept = held.size();
  switch (request.kind) {
    case Request::Kind::kMessages: {
      TANDEM_ASSIGN_OR_RETURN(prompt, from_messages(model, request, held, n_context, cancel));
      break;
    }
    case Request::Kind::kText: {
      TANDEM_RETURN_IF_ERROR(
          check_length(model.tokenizer(), request.text.size(), held.size(), n_context));
      Tokenizer::EncodeOptions options;
      options.add_bos = held.empty() && !request.no_bos;
      options.parse_special = request.parse_special;
      options.cancel = &cancel;
      TANDEM_ASSIGN_OR_RETURN(prompt.pending, model.tokenizer().encode(request.text, options));
      break;
    }
    case Request::Kind::kTokens:
      TANDEM_RETURN_IF_ERROR(check_tokens(request.tokens, model.program().shape.n_vocabulary));
      prompt.pending = request.tokens;
      break;
  }
  if (prompt.pending.empty())
    return invalid_argument("the prompt is empty: there is nothing to continue");
  const uint64_t total = prompt.n_kept + prompt.pending.size();
  if (total > static_cast<uint64_t>(n_context)) return too_long(std::to_string(total), n_context);
  return prompt;
}

}  // namespace tandem

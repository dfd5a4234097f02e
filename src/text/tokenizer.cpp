#include "text/tokenizer.h"

#include <algorithm>
#include <utility>

namespace tandem {
namespace {

constexpr std::string_view kEndNames[] = {
    "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "</s>",
    "<|eom_id|>", "<|end|>",    "<end_of_turn>",   "<|eot|>",       "<|END_OF_TURN_TOKEN|>",
    "<EOT>",      "_<EOT>",     "<|return|>",      "<|call|>",
};

// Files in use write 2^32 - 1 or -1 for a token that they do not have: as if they said nothing.
std::optional<TokenId> checked_id(std::string_view field, std::optional<int64_t> id,
                                  const TokenTable& tokens, std::vector<std::string>& warnings) {
  const TokenId known = tokens.id_or_none(id);
  if (known >= 0) return known;
  if (id) {
    warnings.push_back("tokenizer.ggml." + std::string(field) + ": " + std::to_string(*id) +
                       " is not one of the " + std::to_string(tokens.size()) +
                       " tokens; taken as absent");
  }
  return std::nullopt;
}

// Kinds that stand for no text of their own.
bool is_silent(TokenKind kind) {
  return kind == TokenKind::kControl || kind == TokenKind::kUnknown || kind == TokenKind::kUnused;
}

}  // namespace

Result<std::unique_ptr<const Tokenizer>> Tokenizer::create(VocabularyData data) {
  TANDEM_ASSIGN_OR_RETURN(TokenTable tokens, TokenTable::create(data));
  SpecialIds special;
  std::vector<std::string> warnings;
  special.bos = checked_id("bos_token_id", data.bos, tokens, warnings);
  special.eos = checked_id("eos_token_id", data.eos, tokens, warnings);
  special.eot = checked_id("eot_token_id", data.eot, tokens, warnings);
  special.eom = checked_id("eom_token_id", data.eom, tokens, warnings);
  special.unknown = checked_id("unknown_token_id", data.unknown, tokens, warnings);
  special.padding = checked_id("padding_token_id", data.padding, tokens, warnings);
  if (tokens.n_retyped() > 0) {
    warnings.push_back(
        "tokenizer.ggml.token_type: " + std::to_string(tokens.n_retyped()) +
        " tokens that begin or end turns are not called control tokens; taken as such");
  }
  TANDEM_ASSIGN_OR_RETURN(SpecialMatcher matcher, SpecialMatcher::create(tokens));
  std::unique_ptr<Tokenizer> made(
      new Tokenizer(data, std::move(tokens), std::move(matcher), special));
  auto encoder = data.model == VocabularyData::Model::kBpe
                     ? create_bpe_encoder(data, made->tokens_, warnings)
                     : create_sentence_piece_encoder(data, made->tokens_);
  if (!encoder.ok()) return encoder.status();
  made->encoder_ = std::move(*encoder);
  made->warnings_ = std::move(warnings);
  return std::unique_ptr<const Tokenizer>(std::move(made));
}

Tokenizer::Tokenizer(const VocabularyData& data, TokenTable tokens, SpecialMatcher matcher,
                     SpecialIds special)
    : tokens_(std::move(tokens)),
      matcher_(std::move(matcher)),
      special_(special),
      add_bos_(data.add_bos),
      add_eos_(data.add_eos),
      drops_first_space_(data.model == VocabularyData::Model::kSentencePiece &&
                         data.add_space_prefix) {
  for (const auto& id : {special.eos, special.eot, special.eom}) {
    if (id) ends_.push_back(*id);
  }
  // A character without a token of its own may become the unknown token: up to four bytes.
  longest_token_bytes_ = 4;
  for (TokenId id = 0; id < static_cast<TokenId>(tokens_.size()); ++id) {
    longest_token_bytes_ =
        std::max(longest_token_bytes_, token_text(id, /*with_special=*/true).size());
  }
  for (const std::string_view name : kEndNames) {
    const TokenId id = tokens_.find_written(name);
    if (id >= 0 && tokens_.kind(id) == TokenKind::kControl) ends_.push_back(id);
  }
  std::sort(ends_.begin(), ends_.end());
}

Result<std::vector<TokenId>> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  const SpecialMatcher::Range whole = {0, text.size()};
  const size_t n_trusted = options.parse_special ? 1 : 0;
  return encode_trusting(text, std::span(&whole, n_trusted), options);
}

Result<std::vector<TokenId>> Tokenizer::encode_pieces(std::span<const Piece> pieces, bool add_bos,
                                                      const CancelFlag* cancel) const {
  std::string text;
  std::vector<SpecialMatcher::Range> trusted;
  for (const Piece& piece : pieces) {
    const size_t begin = text.size();
    text += piece.text;
    if (!piece.trusted || piece.text.empty()) continue;
    if (!trusted.empty() && trusted.back().end == begin) {
      trusted.back().end = text.size();
    } else {
      trusted.push_back({begin, text.size()});
    }
  }
  return encode_trusting(text, trusted, {.add_bos = add_bos, .cancel = cancel});
}

Result<std::vector<TokenId>> Tokenizer::encode_trusting(
    std::string_view text, std::span<const SpecialMatcher::Range> trusted,
    EncodeOptions options) const {
  if (text.size() > kMaxTextBytes) {
    return invalid_argument("text of " + std::to_string(text.size()) +
                            " bytes is too long to encode at once; at most " +
                            std::to_string(kMaxTextBytes));
  }
  std::vector<TokenId> ids;
  ids.reserve(text.size() / 3 + 2);
  if (options.add_bos && add_bos_ && special_.bos) ids.push_back(*special_.bos);
  size_t at = 0;
  bool after_special = true;
  const auto encode_until = [&](size_t end) {
    if (end == at) return ok_status();
    const bool start = std::exchange(after_special, false);
    return encoder_->encode(text.substr(at, end - at), start, or_never(options.cancel), ids);
  };
  const std::vector<SpecialMatcher::Match> matches =
      matcher_.find(text, trusted, or_never(options.cancel));
  if (or_never(options.cancel).cancelled()) return encoding_cancelled();
  for (const SpecialMatcher::Match& match : matches) {
    TANDEM_RETURN_IF_ERROR(encode_until(match.begin));
    ids.push_back(match.id);
    at = match.end;
    after_special = true;
  }
  TANDEM_RETURN_IF_ERROR(encode_until(text.size()));
  if (options.add_eos && add_eos_ && special_.eos) ids.push_back(*special_.eos);
  return ids;
}

std::string_view Tokenizer::token_text(TokenId id, bool with_special) const {
  if (!is_silent(tokens_.kind(id))) return tokens_.bytes(id);
  return with_special ? tokens_.written(id) : std::string_view();
}

void Tokenizer::append_bytes(TokenId id, bool with_special, std::string& out) const {
  out += token_text(id, with_special);
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool with_special) const {
  std::string out;
  bool drop_space = drops_first_space_;
  for (const TokenId id : ids) {
    std::string_view text = token_text(id, with_special);
    if (drop_space && !is_silent(tokens_.kind(id))) {
      drop_space = false;
      // A space in a user-defined token was in the text; only one written as a mark was added.
      if (tokens_.written(id).starts_with("\xE2\x96\x81")) text.remove_prefix(1);
    }
    out += text;
  }
  return out;
}

bool Tokenizer::is_end_of_generation(TokenId id) const {
  return std::binary_search(ends_.begin(), ends_.end(), id);
}

std::optional<TokenId> Tokenizer::find(std::string_view written) const {
  const TokenId id = tokens_.find_written(written);
  return id < 0 ? std::nullopt : std::optional<TokenId>(id);
}

}  // namespace tandem

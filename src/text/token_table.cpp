#include "text/token_table.h"

#include <algorithm>
#include <charconv>

#include "formats/byte_alphabet.h"

namespace tandem {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581, SentencePiece's space

std::string with_spaces(std::string_view written) {
  std::string out;
  for (size_t at = 0; at < written.size();) {
    const bool mark = written.substr(at).starts_with(kSpaceMark);
    out.push_back(mark ? ' ' : written[at]);
    at += mark ? kSpaceMark.size() : 1;
  }
  return out;
}

// What a token stands for, from how it is written.
std::string meaning(const VocabularyData& data, TokenKind kind, std::string_view written) {
  const int byte = kind == TokenKind::kByte ? byte_of_token(written) : -1;
  if (byte >= 0) return std::string(1, static_cast<char>(byte));
  if (kind == TokenKind::kControl) return std::string(written);
  if (data.model == VocabularyData::Model::kSentencePiece) return with_spaces(written);
  if (kind == TokenKind::kUserDefined)
    return std::string(written);  // plain also in BPE vocabularies
  return byte_alphabet::bytes_of(written).value_or(std::string(written));
}

// May text become the token by merging?  Control and unknown tokens never; unused and byte tokens have
// other ways or none.  A user-defined token of a BPE vocabulary is written plainly: only where that is
// also how merges would write it, both mean the same text.
bool is_made_by_merges(const VocabularyData& data, TokenKind kind, std::string_view written) {
  if (kind == TokenKind::kNormal) return true;
  if (kind != TokenKind::kUserDefined) return false;
  return data.model == VocabularyData::Model::kSentencePiece ||
         byte_alphabet::bytes_of(written) == written;
}

// Names of the tokens that begin or end a turn or an answer in the families of models that people run.
// clang-format off
constexpr std::string_view kTurnNames[] = {
    "<|im_start|>",      "<|im_end|>",        "<|eot_id|>",    "<|eom_id|>",         "<|end_of_text|>",
    "<|begin_of_text|>", "<|endoftext|>",     "<|end|>",       "<|start_header_id|>", "<|end_header_id|>",
    "<start_of_turn>",   "<end_of_turn>",     "<|user|>",      "<|assistant|>",      "<|system|>",
    "<|eot|>",           "<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|>", "[INST]", "[/INST]",
    "<|return|>",        "<|call|>",          "</s>",          "<EOT>",              "_<EOT>",
};
// clang-format on

// Converters have written such tokens as user-defined or ordinary ones; then what a person types would become them, and
// answers would not end.
bool acts_as_control(const VocabularyData& data, TokenKind kind, size_t id) {
  if (kind != TokenKind::kUserDefined && kind != TokenKind::kNormal) return false;
  const std::string_view written = data.tokens[id];
  // A file may call any token its end; one that words are made of stays what it is.
  const bool bracketed = written.size() > 2 && (written.front() == '<' || written.front() == '[') &&
                         (written.back() == '>' || written.back() == ']');
  for (const auto& special : {data.bos, data.eos, data.eot, data.eom}) {
    if (bracketed && special && *special >= 0 && static_cast<size_t>(*special) == id) return true;
  }
  const bool named =
      std::find(std::begin(kTurnNames), std::end(kTurnNames), written) != std::end(kTurnNames);
  // In a BPE vocabulary an ordinary </s> is struck-out text in a web page.
  if (named) return written != "</s>" || kind == TokenKind::kUserDefined;
  return kind == TokenKind::kUserDefined && written.size() > 4 && written.starts_with("<|") &&
         written.ends_with("|>");
}

}  // namespace

int byte_of_token(std::string_view written) {
  if (written.size() != 6 || !written.starts_with("<0x") || written[5] != '>') return -1;
  unsigned value = 0;
  const char* end = written.data() + 5;
  const auto parsed = std::from_chars(written.data() + 3, end, value, 16);
  return parsed.ec == std::errc() && parsed.ptr == end ? static_cast<int>(value) : -1;
}

Result<TokenTable> TokenTable::create(const VocabularyData& data) {
  const size_t n = data.tokens.size();
  if (n == 0) return corrupt("tokenizer.ggml.tokens: the vocabulary has no tokens");
  if (n > (size_t{1} << 30)) return corrupt("tokenizer.ggml.tokens: more than 2^30 tokens");
  if (!data.kinds.empty() && data.kinds.size() != n) {
    return corrupt("tokenizer.ggml.token_type: " + std::to_string(data.kinds.size()) +
                   " entries for " + std::to_string(n) + " tokens");
  }
  TokenTable table;
  table.kinds_.reserve(n);
  table.written_text_.reserve(n);
  table.byte_text_.reserve(n);
  table.all_ = TextIndex(n);
  table.text_ = TextIndex(n);
  table.text_by_bytes_ = TextIndex(data.model == VocabularyData::Model::kBpe ? n : 0);
  for (size_t id = 0; id < n; ++id) TANDEM_RETURN_IF_ERROR(table.add(data, id));
  return table;
}

Status TokenTable::add(const VocabularyData& data, size_t id) {
  const std::string& written = data.tokens[id];
  const std::string where = "tokenizer.ggml.tokens[" + std::to_string(id) + "]: ";
  if (written.size() > kMaxTokenBytes) {
    return corrupt(where + "a token of " + std::to_string(written.size()) + " bytes, at most " +
                   std::to_string(kMaxTokenBytes) + " are possible");
  }
  TokenKind kind = data.kinds.empty() ? TokenKind::kNormal : data.kinds[id];
  if (kind > TokenKind::kByte) return corrupt(where + "no such kind of token");
  if (kind != TokenKind::kControl && acts_as_control(data, kind, id)) {
    kind = TokenKind::kControl;
    ++n_retyped_;
  }
  if (kind == TokenKind::kByte && byte_of_token(written) < 0) {
    return corrupt(where + "a byte token is written <0x00> to <0xFF>, found \"" +
                   written.substr(0, 64) + "\"");
  }
  kinds_.push_back(kind);
  written_text_.push_back(written);
  byte_text_.push_back(meaning(data, kind, written));
  if (written.empty()) return ok_status();  // a hole: no text finds it
  const auto token = static_cast<TokenId>(id);
  all_.insert(written_text_.back(), token);
  if (!is_made_by_merges(data, kind, written)) return ok_status();
  text_.insert(written_text_.back(), token);
  longest_text_written_ = std::max(longest_text_written_, written.size());
  if (data.model == VocabularyData::Model::kBpe) text_by_bytes_.insert(byte_text_.back(), token);
  return ok_status();
}

TokenKind TokenTable::kind(TokenId id) const {
  return contains(id) ? kinds_[static_cast<size_t>(id)] : TokenKind::kUnknown;
}

std::string_view TokenTable::written(TokenId id) const {
  return contains(id) ? std::string_view(written_text_[static_cast<size_t>(id)]) : "";
}

std::string_view TokenTable::bytes(TokenId id) const {
  return contains(id) ? std::string_view(byte_text_[static_cast<size_t>(id)]) : "";
}

}  // namespace tandem

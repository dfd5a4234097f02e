#include "text/vocabulary_gguf.h"

#include <string>
#include <string_view>

namespace tandem {
namespace {

std::string key_of(std::string_view name) { return "tokenizer.ggml." + std::string(name); }

Result<VocabularyData::Model> read_model(const GgufFile& file) {
  TANDEM_ASSIGN_OR_RETURN(const std::string_view name, file.get_string(key_of("model")));
  if (name == "gpt2") return VocabularyData::Model::kBpe;
  if (name == "llama") return VocabularyData::Model::kSentencePiece;
  return unsupported(
      "tokenizer.ggml.model: tokenizer \"" + std::string(name.substr(0, 64)) +
      "\" is not supported; supported are gpt2 (byte-level BPE) llama (SentencePiece)");
}

Status read_strings(const GgufFile& file, std::string_view name, std::vector<std::string>& out) {
  TANDEM_ASSIGN_OR_RETURN(const auto texts, file.get_string_array(key_of(name)));
  out.assign(texts.begin(), texts.end());
  return ok_status();
}

Status read_kinds(const GgufFile& file, std::vector<TokenKind>& out) {
  if (!file.has(key_of("token_type"))) return ok_status();
  TANDEM_ASSIGN_OR_RETURN(const auto numbers, file.get_int_array(key_of("token_type")));
  out.reserve(numbers.size());
  for (const int64_t number : numbers) {
    // 0 is "undefined", which old writers used for plain tokens.
    if (number < 0 || number > 6) {
      return corrupt("tokenizer.ggml.token_type[" + std::to_string(out.size()) +
                     "]: " + std::to_string(number) + ", expected 0 to 6");
    }
    out.push_back(number == 0 ? TokenKind::kNormal : static_cast<TokenKind>(number - 1));
  }
  if (out.empty()) return corrupt("tokenizer.ggml.token_type: no entries");
  return ok_status();
}

Status read_id(const GgufFile& file, std::string_view name, std::optional<int64_t>& out) {
  if (!file.has(key_of(name))) return ok_status();
  TANDEM_ASSIGN_OR_RETURN(out, file.get_int(key_of(name)));
  return ok_status();
}

Status read_flag(const GgufFile& file, std::string_view name, bool otherwise, bool& out) {
  out = otherwise;
  if (!file.has(key_of(name))) return ok_status();
  TANDEM_ASSIGN_OR_RETURN(out, file.get_bool(key_of(name)));
  return ok_status();
}

// Llama 3 files may leave add_bos_token out and still mean it.
bool is_llama_3(const VocabularyData& data) {
  const std::string& name = data.pre_tokenizer;
  return name == "llama-bpe" || name == "llama3" || name == "llama-v3";
}

// SentencePiece models have <s> and </s> as tokens 1 and 2; old files do not say so.
void set_usual_ids(VocabularyData& data) {
  const auto is_control = [&](size_t id) {
    return id < data.kinds.size() && data.kinds[id] == TokenKind::kControl;
  };
  if (!data.bos && is_control(1)) data.bos = 1;
  if (!data.eos && is_control(2)) data.eos = 2;
}

}  // namespace

Result<VocabularyData> vocabulary_from_gguf(const GgufFile& file) {
  VocabularyData data;
  TANDEM_ASSIGN_OR_RETURN(data.model, read_model(file));
  const bool pieces = data.model == VocabularyData::Model::kSentencePiece;
  TANDEM_RETURN_IF_ERROR(read_strings(file, "tokens", data.tokens));
  TANDEM_RETURN_IF_ERROR(read_kinds(file, data.kinds));
  if (pieces) {
    TANDEM_ASSIGN_OR_RETURN(data.scores, file.get_float_array(key_of("scores")));
  } else {
    if (file.has(key_of("pre"))) {
      TANDEM_ASSIGN_OR_RETURN(data.pre_tokenizer, file.get_string(key_of("pre")));
    }
    // Writers leave an empty array out: without merges every byte stays a token of its own.
    if (file.has(key_of("merges"))) {
      TANDEM_RETURN_IF_ERROR(read_strings(file, "merges", data.merges));
    }
  }
  TANDEM_RETURN_IF_ERROR(read_id(file, "bos_token_id", data.bos));
  TANDEM_RETURN_IF_ERROR(read_id(file, "eos_token_id", data.eos));
  if (pieces) set_usual_ids(data);
  TANDEM_RETURN_IF_ERROR(read_id(file, "eot_token_id", data.eot));
  TANDEM_RETURN_IF_ERROR(read_id(file, "eom_token_id", data.eom));
  TANDEM_RETURN_IF_ERROR(read_id(file, "unknown_token_id", data.unknown));
  TANDEM_RETURN_IF_ERROR(read_id(file, "padding_token_id", data.padding));
  TANDEM_RETURN_IF_ERROR(
      read_flag(file, "add_bos_token", pieces || is_llama_3(data), data.add_bos));
  TANDEM_RETURN_IF_ERROR(read_flag(file, "add_eos_token", false, data.add_eos));
  TANDEM_RETURN_IF_ERROR(read_flag(file, "add_space_prefix", pieces, data.add_space_prefix));
  return data;
}

}  // namespace tandem

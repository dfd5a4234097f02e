// Models, tokens and templates of the C API.
#include <utility>

#include "runtime/c_api.h"

namespace tandem::c_api {

Result<std::vector<ChatMessage>> read_messages(const tandem_message* messages, size_t n_messages) {
  TANDEM_REQUIRE_ARGUMENT(messages);
  TANDEM_RETURN_IF_ERROR(check_elements(messages, n_messages, "messages"));
  std::vector<ChatMessage> read;
  for (size_t i = 0; i < n_messages; ++i) {
    const std::string name = "messages[" + std::to_string(i) + "]";
    TANDEM_ASSIGN_OR_RETURN(const tandem_message message, read_struct(element(messages, i), name));
    if (message.role == nullptr) return invalid_argument(name + ".role is NULL");
    if (message.content == nullptr) return invalid_argument(name + ".content is NULL");
    read.push_back({message.role, message.content});
  }
  return read;
}

Result<SamplingParameters> read_sampling(const tandem_sampling* sampling) {
  TANDEM_ASSIGN_OR_RETURN(const tandem_sampling in, read_struct(sampling, "sampling"));
  SamplingParameters out;
  out.temperature = in.temperature;
  out.top_k = in.top_k;
  out.top_p = in.top_p;
  out.min_p = in.min_p;
  out.repeat_penalty = in.repeat_penalty;
  out.frequency_penalty = in.frequency_penalty;
  out.presence_penalty = in.presence_penalty;
  out.repeat_last_n = in.repeat_last_n;
  out.seed = in.seed;
  return out;
}

namespace {

tandem_model_info info_of(const Model& model) {
  const ModelInfo& from = model.info();
  tandem_model_info info = {};
  info.struct_bytes = sizeof(info);
  info.name = from.name.c_str();
  info.architecture = from.architecture.c_str();
  info.type_name = from.type_name.c_str();
  info.file_bytes = from.file_bytes;
  info.weight_bytes = from.weight_bytes;
  info.n_parameters = from.n_parameters;
  info.n_active_parameters = from.n_active_parameters;
  info.n_vocabulary = from.n_vocabulary;
  info.n_layers = from.n_layers;
  info.n_context_trained = from.n_context_trained;
  info.n_experts = from.n_experts;
  info.n_experts_used = from.n_experts_used;
  info.has_chat_template = model.has_chat_template() ? 1 : 0;
  info.chat_template_error = model.chat_template_status().message().c_str();
  return info;
}

tandem_sampling sampling_of(const SamplingParameters& from) {
  tandem_sampling sampling = {};
  sampling.struct_bytes = sizeof(sampling);
  sampling.temperature = from.temperature;
  sampling.top_k = from.top_k;
  sampling.top_p = from.top_p;
  sampling.min_p = from.min_p;
  sampling.repeat_penalty = from.repeat_penalty;
  sampling.frequency_penalty = from.frequency_penalty;
  sampling.presence_penalty = from.presence_penalty;
  sampling.repeat_last_n = from.repeat_last_n;
  sampling.seed = from.seed;
  return sampling;
}

Result<std::vector<RenderedPiece>> render(const Model& model, const tandem_message* messages,
                                          size_t n_messages, const CancelFlag* cancel) {
  TANDEM_ASSIGN_OR_RETURN(const std::vector<ChatMessage> read, read_messages(messages, n_messages));
  return model.render(read, cancel);
}

const CancelFlag* flag_of(const tandem_cancel* cancel) {
  return cancel != nullptr ? &cancel->flag : nullptr;
}

Status check_ids(const int32_t* tokens, size_t n_tokens, uint32_t n_vocabulary) {
  TANDEM_RETURN_IF_ERROR(check_token_count(n_tokens));
  for (size_t i = 0; i < n_tokens; ++i) {
    if (tokens[i] < 0 || static_cast<uint32_t>(tokens[i]) >= n_vocabulary) {
      return invalid_argument("tokens[" + std::to_string(i) + "] is " + std::to_string(tokens[i]) +
                              ", the vocabulary has " + std::to_string(n_vocabulary));
    }
  }
  return ok_status();
}

}  // namespace
}  // namespace tandem::c_api

using namespace tandem;
using namespace tandem::c_api;

extern "C" {

tandem_code tandem_model_open(const char* path, tandem_model** out, tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(path);
    TANDEM_REQUIRE_ARGUMENT(out);
    auto object = std::make_unique<tandem_model>();
    TANDEM_ASSIGN_OR_RETURN(object->model, Model::open(path));
    *out = object.release();
    return ok_status();
  });
}

void tandem_model_free(tandem_model* model) noexcept { delete model; }

tandem_code tandem_model_get_info(const tandem_model* model, tandem_model_info* info,
                                  tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(model);
    TANDEM_REQUIRE_ARGUMENT(info);
    return fill_struct(info_of(*model->model), info, "info");
  });
}

tandem_code tandem_model_json(const tandem_model* model, char** json,
                              tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(model);
    TANDEM_REQUIRE_ARGUMENT(json);
    *json = copy_string(model->model->to_json());
    return ok_status();
  });
}

tandem_code tandem_model_tokenize(const tandem_model* model, const char* text, size_t text_bytes,
                                  const tandem_tokenize_options* options, int32_t* tokens,
                                  size_t capacity, size_t* n_tokens,
                                  tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(model);
    if (text_bytes > 0) TANDEM_REQUIRE_ARGUMENT(text);
    TANDEM_REQUIRE_ARGUMENT(n_tokens);
    TANDEM_ASSIGN_OR_RETURN(const tandem_tokenize_options in, read_struct(options, "options"));
    Tokenizer::EncodeOptions encode;
    encode.add_bos = encode.add_eos = in.add_special != 0;
    encode.parse_special = in.parse_special != 0;
    encode.cancel = flag_of(in.cancel);
    const std::string_view view =
        text_bytes > 0 ? std::string_view(text, text_bytes) : std::string_view();
    TANDEM_ASSIGN_OR_RETURN(const std::vector<TokenId> ids,
                            model->model->tokenizer().encode(view, encode));
    return give_tokens(ids, tokens, capacity, n_tokens);
  });
}

tandem_code tandem_model_detokenize(const tandem_model* model, const int32_t* tokens,
                                    size_t n_tokens, int with_special, char** text,
                                    size_t* text_bytes, tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(model);
    if (n_tokens > 0) TANDEM_REQUIRE_ARGUMENT(tokens);
    TANDEM_REQUIRE_ARGUMENT(text);
    TANDEM_RETURN_IF_ERROR(check_ids(tokens, n_tokens, model->model->info().n_vocabulary));
    const std::string decoded =
        model->model->tokenizer().decode({tokens, n_tokens}, with_special != 0);
    *text = copy_string(decoded);
    if (text_bytes != nullptr) *text_bytes = decoded.size();
    return ok_status();
  });
}

tandem_code tandem_model_count_tokens(const tandem_model* model, const tandem_message* messages,
                                      size_t n_messages, tandem_cancel* cancel, size_t* n_tokens,
                                      tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(model);
    TANDEM_REQUIRE_ARGUMENT(n_tokens);
    const CancelFlag* flag = flag_of(cancel);
    TANDEM_ASSIGN_OR_RETURN(const std::vector<RenderedPiece> pieces,
                            render(*model->model, messages, n_messages, flag));
    TANDEM_ASSIGN_OR_RETURN(const std::vector<TokenId> ids,
                            model->model->tokenize_pieces(pieces, flag));
    *n_tokens = ids.size();
    return ok_status();
  });
}

tandem_code tandem_model_render(const tandem_model* model, const tandem_message* messages,
                                size_t n_messages, char** text, tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(model);
    TANDEM_REQUIRE_ARGUMENT(text);
    TANDEM_ASSIGN_OR_RETURN(const std::vector<RenderedPiece> pieces,
                            render(*model->model, messages, n_messages, nullptr));
    std::string joined;
    for (const RenderedPiece& piece : pieces) joined += piece.text;
    *text = copy_string(joined);
    return ok_status();
  });
}

tandem_code tandem_model_default_sampling(const tandem_model* model, tandem_sampling* sampling,
                                          tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(model);
    TANDEM_REQUIRE_ARGUMENT(sampling);
    return fill_struct(sampling_of(model->model->default_sampling()), sampling, "sampling");
  });
}

}  // extern "C"

#include "runtime/model.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <map>
#include <utility>

#include "model/decoder.h"
#include "text/vocabulary_gguf.h"

namespace tandem {
namespace {

// The format that most weight bytes have.
std::string main_type(const GgufFile& file) {
  std::map<std::string_view, uint64_t> bytes_of_type;
  for (const TensorInfo& tensor : file.tensors()) bytes_of_type[tensor.type.name] += tensor.bytes;
  const auto largest =
      std::max_element(bytes_of_type.begin(), bytes_of_type.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  return largest == bytes_of_type.end() ? "" : std::string(largest->first);
}

ModelInfo describe(const GgufFile& file, const Program& program,
                   const std::filesystem::path& path) {
  const ModelShape& shape = program.shape;
  ModelInfo info;
  const auto name = file.get_string("general.name");
  info.name = name.ok() && !name->empty() ? std::string(*name) : path.filename().string();
  info.architecture = shape.architecture->name;
  info.type_name = main_type(file);
  info.file_bytes = file.file_bytes();
  for (const BlockSpec& block : program.blocks) {
    for (const Extent& extent : block.extents) info.weight_bytes += extent.bytes;
  }
  info.n_parameters = program.n_parameters();
  info.n_active_parameters = program.n_active_parameters();
  info.n_vocabulary = static_cast<uint32_t>(shape.n_vocabulary);
  info.n_layers = static_cast<uint32_t>(shape.n_layers);
  info.n_context_trained = static_cast<uint32_t>(shape.n_context_trained);
  info.n_experts = static_cast<uint32_t>(shape.n_experts);
  info.n_experts_used = static_cast<uint32_t>(shape.n_experts_used);
  return info;
}

// What the file's author recommends; a value out of range is ignored like an absent one.
SamplingParameters recommended_sampling(const GgufFile& file) {
  SamplingParameters sampling;
  const auto take = [&](const char* key, auto assign) {
    const auto value = file.get_float(key);
    if (!value.ok()) return;
    SamplingParameters candidate = sampling;
    assign(candidate, *value);
    if (validate(candidate).ok()) sampling = candidate;
  };
  take("general.sampling.temp", [](auto& s, double v) { s.temperature = static_cast<float>(v); });
  take("general.sampling.top_k", [](auto& s, double v) {
    s.top_k = std::isfinite(v) ? static_cast<int>(std::clamp(v, 0.0, 1e6)) : -1;
  });
  take("general.sampling.top_p", [](auto& s, double v) { s.top_p = static_cast<float>(v); });
  take("general.sampling.min_p", [](auto& s, double v) { s.min_p = static_cast<float>(v); });
  return sampling;
}

}  // namespace

Result<std::unique_ptr<const Model>> Model::open(const std::filesystem::path& path) {
  TANDEM_ASSIGN_OR_RETURN(GgufFile file, GgufFile::open(path));
  std::unique_ptr<Model> model(new Model(std::move(file)));
  const auto named = [&](const Status& status) {
    return status.file().empty() ? Status(status.code(), path.string() + ": " + status.message())
                                       .in_file(path.string())
                                       .at_offset(status.offset())
                                       .in_tensor(status.tensor())
                                       .suggest(status.suggestion())
                                 : status;
  };
  Result<Program> program = build_decoder(model->file_);
  if (!program.ok()) return named(program.status());
  model->program_ = std::move(program).value();
  Result<VocabularyData> vocabulary = vocabulary_from_gguf(model->file_);
  if (!vocabulary.ok()) return named(vocabulary.status());
  const size_t n_tokens = vocabulary->tokens.size();
  if (n_tokens > static_cast<size_t>(model->program_.shape.n_vocabulary)) {
    return named(corrupt("tokenizer.ggml.tokens has " + std::to_string(n_tokens) +
                         " tokens, tensor token_embd.weight only " +
                         std::to_string(model->program_.shape.n_vocabulary) + " rows"));
  }
  Result<std::unique_ptr<const Tokenizer>> tokenizer =
      Tokenizer::create(std::move(vocabulary).value());
  if (!tokenizer.ok()) return named(tokenizer.status());
  model->tokenizer_ = std::move(tokenizer).value();
  if (model->file_.has("tokenizer.chat_template")) {
    // A model whose template cannot be read still completes text; render() says why there is none.
    const auto source = model->file_.get_string("tokenizer.chat_template");
    if (!source.ok()) return named(source.status());
    auto parsed = ChatTemplate::parse(std::string(*source));
    if (parsed.ok()) {
      model->template_ = std::move(parsed).value();
    } else {
      model->template_status_ = parsed.status();
    }
  }
  model->info_ = describe(model->file_, model->program_, path);
  model->sampling_ = recommended_sampling(model->file_);
  return std::unique_ptr<const Model>(std::move(model));
}

Result<std::unique_ptr<ReadFile>> Model::open_again(const std::filesystem::path& path,
                                                    ReadFile::Mode mode) const {
  TANDEM_ASSIGN_OR_RETURN(std::unique_ptr<ReadFile> file, ReadFile::open(path, mode));
  const std::vector<std::string>& paths = file_.paths();
  const auto index = std::find(paths.begin(), paths.end(), path.string()) - paths.begin();
  TANDEM_ASSERT(index < static_cast<ptrdiff_t>(paths.size()));
  if (file->identity() == file_.identities()[static_cast<size_t>(index)]) return file;
  return io_error(path.string() + ": has changed since the model was opened")
      .in_file(path.string())
      .suggest("open the model again");
}

Result<std::vector<RenderedPiece>> Model::render(std::span<const ChatMessage> messages,
                                                 const CancelFlag* cancel) const {
  if (template_ == nullptr) {
    if (!template_status_.ok()) {
      return unsupported("the model's chat template cannot be used: " + template_status_.message())
          .suggest("continue plain text instead");
    }
    return unsupported("the model has no chat template").suggest("continue plain text instead");
  }
  ChatTemplate::Inputs inputs;
  inputs.messages = messages;
  inputs.cancel = cancel;
  inputs.add_generation_prompt = true;
  const std::time_t now = std::time(nullptr);
  std::tm local = {};
  if (::localtime_r(&now, &local) != nullptr) inputs.now = local;
  const auto text_of = [this](std::optional<TokenId> id) {
    return id ? std::string(tokenizer_->token_text(*id, /*with_special=*/true)) : std::string();
  };
  inputs.bos_token = text_of(tokenizer_->bos());
  inputs.eos_token = text_of(tokenizer_->eos());
  return template_->render(inputs);
}

Result<std::vector<TokenId>> Model::tokenize_pieces(std::span<const RenderedPiece> pieces,
                                                    const CancelFlag* cancel) const {
  std::vector<Tokenizer::Piece> views;
  views.reserve(pieces.size());
  for (const RenderedPiece& piece : pieces) views.push_back({piece.text, piece.trusted});
  TANDEM_ASSIGN_OR_RETURN(std::vector<TokenId> tokens,
                          tokenizer_->encode_pieces(views, /*add_bos=*/true, cancel));
  // Templates that write the start token themselves would otherwise have it twice.
  const auto bos = tokenizer_->bos();
  if (bos && tokens.size() >= 2 && tokens[0] == *bos && tokens[1] == *bos)
    tokens.erase(tokens.begin());
  return tokens;
}

}  // namespace tandem

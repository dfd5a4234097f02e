// A model file opened: its header, Program, tokenizer and chat template; no weights.
//
// Threading: const methods from any thread at once.
// Ownership: owns everything it returns views of.
// Errors: those of the parts, naming the file.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "formats/gguf/gguf.h"
#include "model/program.h"
#include "runtime/sampler.h"
#include "text/template/chat_template.h"
#include "text/tokenizer.h"

namespace tandem {

struct ModelInfo {
  std::string name, architecture, type_name;
  uint64_t file_bytes = 0, weight_bytes = 0, n_parameters = 0, n_active_parameters = 0;
  uint32_t n_vocabulary = 0, n_layers = 0, n_context_trained = 0, n_experts = 0, n_experts_used = 0;
};

class Model {
 public:
  static Result<std::unique_ptr<const Model>> open(const std::filesystem::path& path);

  const ModelInfo& info() const { return info_; }
  const GgufFile& file() const { return file_; }
  const Program& program() const { return program_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  bool has_chat_template() const { return template_ != nullptr; }
  // Why there is no template although the file has one; ok otherwise.
  const Status& chat_template_status() const { return template_status_; }
  const SamplingParameters& default_sampling() const { return sampling_; }
  // One of the file()'s paths.  Errors: those of ReadFile::open; kIo when it is not the file that was opened any more.
  Result<std::unique_ptr<ReadFile>> open_again(const std::filesystem::path& path,
                                               ReadFile::Mode mode) const;

  // The conversation in the model's template, ready for an answer.  kUnsupported without a template.
  Result<std::vector<RenderedPiece>> render(std::span<const ChatMessage> messages,
                                            const CancelFlag* cancel = nullptr) const;
  Result<std::vector<TokenId>> tokenize_pieces(std::span<const RenderedPiece> pieces,
                                               const CancelFlag* cancel = nullptr) const;
  // The machine-readable form that `tandem inspect --json` shows.
  std::string to_json() const;

 private:
  explicit Model(GgufFile file) : file_(std::move(file)) {}

  GgufFile file_;
  Program program_;
  ModelInfo info_;
  std::unique_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<const ChatTemplate> template_;
  Status template_status_;
  SamplingParameters sampling_;
};

}  // namespace tandem

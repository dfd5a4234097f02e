#include "formats/public_shapes.h"

#include <array>

namespace tandem {
namespace {

// A model is one paragraph.
// clang-format off
constexpr std::array<PublicShape, 6> kShapes = {{
    {.name = "llama-3.2-1b", .architecture = "llama", .pre_tokenizer = "llama-bpe",
     .layers = 16, .width = 2048, .heads = 32, .kv_heads = 8, .head_width = 64, .ff_width = 8192,
     .experts = 0, .experts_used = 0, .expert_ff_width = 0, .vocabulary = 128256,
     .context = 131072, .rope_base = 500000, .llama3_rope_factor = 32, .rms_epsilon = 1e-5f,
     .qk_norm = false, .tied_embeddings = true},
    {.name = "llama-3.1-8b", .architecture = "llama", .pre_tokenizer = "llama-bpe",
     .layers = 32, .width = 4096, .heads = 32, .kv_heads = 8, .head_width = 128, .ff_width = 14336,
     .experts = 0, .experts_used = 0, .expert_ff_width = 0, .vocabulary = 128256,
     .context = 131072, .rope_base = 500000, .llama3_rope_factor = 8, .rms_epsilon = 1e-5f,
     .qk_norm = false, .tied_embeddings = false},
    {.name = "llama-3.3-70b", .architecture = "llama", .pre_tokenizer = "llama-bpe",
     .layers = 80, .width = 8192, .heads = 64, .kv_heads = 8, .head_width = 128, .ff_width = 28672,
     .experts = 0, .experts_used = 0, .expert_ff_width = 0, .vocabulary = 128256,
     .context = 131072, .rope_base = 500000, .llama3_rope_factor = 8, .rms_epsilon = 1e-5f,
     .qk_norm = false, .tied_embeddings = false},
    {.name = "mixtral-8x7b", .architecture = "llama", .pre_tokenizer = "default",
     .layers = 32, .width = 4096, .heads = 32, .kv_heads = 8, .head_width = 128, .ff_width = 14336,
     .experts = 8, .experts_used = 2, .expert_ff_width = 14336, .vocabulary = 32000,
     .context = 32768, .rope_base = 1000000, .llama3_rope_factor = 0, .rms_epsilon = 1e-5f,
     .qk_norm = false, .tied_embeddings = false},
    {.name = "qwen3-30b-a3b", .architecture = "qwen3moe", .pre_tokenizer = "qwen2",
     .layers = 48, .width = 2048, .heads = 32, .kv_heads = 4, .head_width = 128, .ff_width = 6144,
     .experts = 128, .experts_used = 8, .expert_ff_width = 768, .vocabulary = 151936,
     .context = 40960, .rope_base = 1000000, .llama3_rope_factor = 0, .rms_epsilon = 1e-6f,
     .qk_norm = true, .tied_embeddings = false},
    {.name = "qwen3-235b-a22b", .architecture = "qwen3moe", .pre_tokenizer = "qwen2",
     .layers = 94, .width = 4096, .heads = 64, .kv_heads = 4, .head_width = 128, .ff_width = 12288,
     .experts = 128, .experts_used = 8, .expert_ff_width = 1536, .vocabulary = 151936,
     .context = 40960, .rope_base = 1000000, .llama3_rope_factor = 0, .rms_epsilon = 1e-6f,
     .qk_norm = true, .tied_embeddings = false},
}};
// clang-format on

}  // namespace

std::span<const PublicShape> public_shapes() { return kShapes; }

const PublicShape* find_public_shape(std::string_view name) {
  for (const PublicShape& shape : kShapes) {
    if (shape.name == name) return &shape;
  }
  return nullptr;
}

}  // namespace tandem

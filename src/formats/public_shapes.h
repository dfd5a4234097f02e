// Sizes of public models, for files with random weights.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace tandem {

// Letters as in base/shapes.h.  Sources: the models' published config.json files.
struct PublicShape {
  std::string_view name;
  std::string_view architecture;   // general.architecture
  std::string_view pre_tokenizer;  // tokenizer.ggml.pre
  uint32_t layers;                 // L
  uint32_t width;                  // D
  uint32_t heads, kv_heads;        // H, G
  uint32_t head_width;             // E
  uint32_t ff_width;  // F of a dense layer; of the config, unused, where there are experts
  uint32_t experts, experts_used;  // X, U; 0 for dense models
  uint32_t expert_ff_width;        // F of one expert
  uint32_t vocabulary;             // V
  uint32_t context;
  float rope_base;
  float llama3_rope_factor;  // 0: no rope_freqs tensor
  float rms_epsilon;
  bool qk_norm;          // norms of q and k per head
  bool tied_embeddings;  // no output.weight
};

std::span<const PublicShape> public_shapes();
// Null for an unknown name.
const PublicShape* find_public_shape(std::string_view name);

}  // namespace tandem

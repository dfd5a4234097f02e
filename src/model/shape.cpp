#include "model/shape.h"

#include <cmath>
#include <cstdio>
#include <optional>
#include <string_view>

#include "formats/gguf/gguf.h"

namespace tandem {
namespace {

// Bounds of what any model of these families has; they keep every later product far from overflow.
constexpr int64_t kMaxWidth = 1 << 20;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxHeadWidth = 1024;
constexpr int64_t kMaxVocabulary = 1 << 24;
constexpr int64_t kMaxExperts = 4096;
constexpr int64_t kMaxContext = int64_t{1} << 27;

class ShapeReader {
 public:
  ShapeReader(const GgufFile& file, std::string_view architecture)
      : file_(file), prefix_(std::string(architecture) + ".") {}

  Result<int64_t> count(std::string_view key, int64_t low, int64_t high) const {
    TANDEM_ASSIGN_OR_RETURN(const uint64_t value, file_.get_uint(prefix_ + std::string(key)));
    return in_range(key, value, low, high);
  }

  Result<int64_t> count_or(std::string_view key, int64_t fallback, int64_t low,
                           int64_t high) const {
    if (!file_.has(prefix_ + std::string(key))) return fallback;
    return count(key, low, high);
  }

  Result<float> real_or(std::string_view key, float fallback, double low, double high) const {
    return file_.has(name(key)) ? real(key, low, high) : Result<float>(fallback);
  }

  Result<float> real(std::string_view key, double low, double high) const {
    const std::string name = prefix_ + std::string(key);
    TANDEM_ASSIGN_OR_RETURN(const double value, file_.get_float(name));
    if (!(value >= low && value <= high)) {
      char text[96];
      std::snprintf(text, sizeof(text), " is %g, expected %g to %g", value, low, high);
      return corrupt(name + text);
    }
    return static_cast<float>(value);
  }

  std::string name(std::string_view key) const { return prefix_ + std::string(key); }
  const GgufFile& file() const { return file_; }

 private:
  Result<int64_t> in_range(std::string_view key, uint64_t value, int64_t low, int64_t high) const {
    if (value < static_cast<uint64_t>(low) || value > static_cast<uint64_t>(high)) {
      return corrupt(name(key) + " is " + std::to_string(value) + ", expected " +
                     std::to_string(low) + " to " + std::to_string(high));
    }
    return static_cast<int64_t>(value);
  }

  const GgufFile& file_;
  std::string prefix_;
};

Status read_attention(const ShapeReader& reader, ModelShape& shape) {
  TANDEM_ASSIGN_OR_RETURN(shape.n_heads, reader.count("attention.head_count", 1, kMaxHeads));
  TANDEM_ASSIGN_OR_RETURN(shape.n_kv_heads,
                          reader.count_or("attention.head_count_kv", shape.n_heads, 1, kMaxHeads));
  if (shape.n_heads % shape.n_kv_heads != 0) {
    return corrupt(reader.name("attention.head_count_kv") + " is " +
                   std::to_string(shape.n_kv_heads) + ", expected a divisor of the " +
                   std::to_string(shape.n_heads) + " query heads");
  }
  TANDEM_ASSIGN_OR_RETURN(
      const int64_t key_width,
      reader.count_or("attention.key_length", shape.width / shape.n_heads, 1, kMaxHeadWidth));
  TANDEM_ASSIGN_OR_RETURN(const int64_t value_width,
                          reader.count_or("attention.value_length", key_width, 1, kMaxHeadWidth));
  if (key_width != value_width) {
    return unsupported(reader.name("attention.value_length") + " is " +
                       std::to_string(value_width) + " and key_length " +
                       std::to_string(key_width) + "; different widths are not supported");
  }
  if (key_width < 1 || key_width % 2 != 0) {
    return corrupt(reader.name("attention.key_length") + " is " + std::to_string(key_width) +
                   ", expected an even number");
  }
  shape.head_width = key_width;
  TANDEM_ASSIGN_OR_RETURN(shape.norm_epsilon,
                          reader.real("attention.layer_norm_rms_epsilon", 1e-12, 1.0));
  TANDEM_ASSIGN_OR_RETURN(shape.sliding_window,
                          reader.count_or("attention.sliding_window", 0, 0, int64_t{1} << 31));
  return ok_status();
}

Status read_rope_scaling(const ShapeReader& reader, ModelShape& shape) {
  RopeScaling& scaling = shape.rope_scaling;
  TANDEM_ASSIGN_OR_RETURN(const float old_linear,
                          reader.real_or("rope.scale_linear", 1, 1e-3, 1e6));
  TANDEM_ASSIGN_OR_RETURN(scaling.factor,
                          reader.real_or("rope.scaling.factor", old_linear, 1e-3, 1e6));
  std::string_view type = scaling.factor != 1.0f ? "linear" : "none";
  if (reader.file().has(reader.name("rope.scaling.type"))) {
    TANDEM_ASSIGN_OR_RETURN(type, reader.file().get_string(reader.name("rope.scaling.type")));
  }
  if (type == "none") {
    scaling.factor = 1;
    return ok_status();
  }
  if (type == "linear") {
    scaling.kind = RopeScaling::Kind::kLinear;
    return ok_status();
  }
  if (type != "yarn") {
    return unsupported(reader.name("rope.scaling.type") + " is '" +
                       std::string(type.substr(0, 32)) + "', supported are none, linear and yarn");
  }
  scaling.kind = RopeScaling::Kind::kYarn;
  TANDEM_ASSIGN_OR_RETURN(const int64_t original,
                          reader.count_or("rope.scaling.original_context_length",
                                          shape.n_context_trained, 1, kMaxContext));
  scaling.original_context = static_cast<uint32_t>(original);
  TANDEM_ASSIGN_OR_RETURN(scaling.attention_multiplier,
                          reader.real_or("rope.scaling.attn_factor", 1, 1e-3, 1e3));
  TANDEM_ASSIGN_OR_RETURN(scaling.beta_fast,
                          reader.real_or("rope.scaling.yarn_beta_fast", 32, 1e-3, 1e6));
  TANDEM_ASSIGN_OR_RETURN(scaling.beta_slow,
                          reader.real_or("rope.scaling.yarn_beta_slow", 1, 1e-3, 1e6));
  return ok_status();
}

Status read_rope(const ShapeReader& reader, ModelShape& shape) {
  TANDEM_ASSIGN_OR_RETURN(
      shape.n_rot, reader.count_or("rope.dimension_count", shape.head_width, 2, shape.head_width));
  if (shape.n_rot % 2 != 0) {
    return corrupt(reader.name("rope.dimension_count") + " is " + std::to_string(shape.n_rot) +
                   ", expected an even number");
  }
  TANDEM_ASSIGN_OR_RETURN(shape.rope_base, reader.real_or("rope.freq_base", 10000, 1.001, 1e12));
  return read_rope_scaling(reader, shape);
}

Status read_feed_forward(const ShapeReader& reader, ModelShape& shape) {
  TANDEM_ASSIGN_OR_RETURN(shape.n_experts, reader.count_or("expert_count", 0, 0, kMaxExperts));
  if (!shape.has_experts()) {
    if (shape.architecture->experts_required) {
      return corrupt(reader.name("expert_count") + " is 0 or absent, expected at least 1");
    }
    TANDEM_ASSIGN_OR_RETURN(shape.ffn_width, reader.count("feed_forward_length", 1, kMaxWidth));
    return ok_status();
  }
  TANDEM_ASSIGN_OR_RETURN(shape.n_experts_used,
                          reader.count("expert_used_count", 1, shape.n_experts));
  const bool own_width = reader.file().has(reader.name("expert_feed_forward_length"));
  TANDEM_ASSIGN_OR_RETURN(
      shape.ffn_width,
      reader.count(own_width ? "expert_feed_forward_length" : "feed_forward_length", 1, kMaxWidth));
  TANDEM_ASSIGN_OR_RETURN(const int64_t shared,
                          reader.count_or("expert_shared_count", 0, 0, kMaxExperts));
  if (shared > 0) {
    return unsupported(reader.name("expert_shared_count") + " is " + std::to_string(shared) +
                       "; shared experts are not supported for this architecture");
  }
  return ok_status();
}

// The token list is what counts: some files carry no vocab_size, some a padded one.
Result<int64_t> read_vocabulary_size(const ShapeReader& reader) {
  const TensorInfo* embeddings = reader.file().find_tensor("token_embd.weight");
  if (embeddings == nullptr) return corrupt("tensor token_embd.weight is missing");
  const uint64_t rows = embeddings->rows();
  if (rows < 1 || rows > static_cast<uint64_t>(kMaxVocabulary)) {
    return corrupt("tensor token_embd.weight has " + std::to_string(rows) +
                   " rows, expected 1 to " + std::to_string(kMaxVocabulary))
        .in_tensor("token_embd.weight");
  }
  return static_cast<int64_t>(rows);
}

// Keys that change what other engines compute, and the value at which they change nothing here.  Scales are 0 where a
// converter wrote a key that its model does not set.
struct NeutralKey {
  const char* key;
  double neutral;
  bool scale = false;
};
constexpr NeutralKey kNeutralKeys[] = {
    {"attention.causal", 1},         {"attention.clamp_kqv", 0},
    {"attention.max_alibi_bias", 0}, {"attn_logit_softcapping", 0},
    {"embedding_scale", 1, true},    {"expert_gating_func", 1, true},
    {"expert_weights_norm", 1},      {"expert_weights_scale", 1, true},
    {"final_logit_softcapping", 0},  {"leading_dense_block_count", 0},
    {"logit_scale", 1, true},        {"residual_scale", 1, true},
    {"use_parallel_residual", 0},
};

Result<double> number_of(const GgufFile& file, const std::string& key) {
  if (file.find(key)->type != MetadataType::kBool) return file.get_float(key);
  TANDEM_ASSIGN_OR_RETURN(const bool value, file.get_bool(key));
  return value ? 1.0 : 0.0;
}

Status expect_neutral(const ShapeReader& reader, const NeutralKey& expected) {
  const std::string name = reader.name(expected.key);
  if (!reader.file().has(name)) return ok_status();
  TANDEM_ASSIGN_OR_RETURN(const double value, number_of(reader.file(), name));
  const bool neutral = std::abs(value - expected.neutral) <= 1e-6 * expected.neutral;
  if (neutral || (expected.scale && value == 0)) return ok_status();
  char text[96];
  std::snprintf(text, sizeof(text), " is %g; only %g is computed", value, expected.neutral);
  return unsupported(name + text);
}

// Silence here would be wrong answers.
Status refuse_what_is_not_computed(const ShapeReader& reader, const ModelShape& shape) {
  for (const NeutralKey& key : kNeutralKeys) TANDEM_RETURN_IF_ERROR(expect_neutral(reader, key));
  return expect_neutral(
      reader, {"attention.scale", 1.0 / std::sqrt(static_cast<double>(shape.head_width)), true});
}

}  // namespace

Result<ModelShape> read_model_shape(const GgufFile& file) {
  TANDEM_ASSIGN_OR_RETURN(const std::string_view name, file.get_string("general.architecture"));
  ModelShape shape;
  TANDEM_ASSIGN_OR_RETURN(shape.architecture, find_architecture(name));
  const ShapeReader reader(file, name);
  TANDEM_ASSIGN_OR_RETURN(shape.n_layers, reader.count("block_count", 1, kMaxLayers));
  TANDEM_ASSIGN_OR_RETURN(shape.width, reader.count("embedding_length", 1, kMaxWidth));
  TANDEM_ASSIGN_OR_RETURN(shape.n_context_trained, reader.count("context_length", 1, kMaxContext));
  TANDEM_RETURN_IF_ERROR(read_attention(reader, shape));
  TANDEM_RETURN_IF_ERROR(read_rope(reader, shape));
  TANDEM_RETURN_IF_ERROR(read_feed_forward(reader, shape));
  TANDEM_RETURN_IF_ERROR(refuse_what_is_not_computed(reader, shape));
  TANDEM_ASSIGN_OR_RETURN(shape.n_vocabulary, read_vocabulary_size(reader));
  return shape;
}

}  // namespace tandem

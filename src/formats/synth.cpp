#include "formats/synth.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <numbers>
#include <span>
#include <utility>
#include <vector>

#include "base/shapes.h"
#include "formats/byte_alphabet.h"
#include "formats/gguf/writer.h"
#include "formats/make_in_order.h"
#include "formats/random_weights.h"

namespace tandem {
namespace {

constexpr uint64_t kChunkBytes = uint64_t{4} << 20;
constexpr uint32_t kBos = 256, kEos = 257, kFirstFiller = 258;

// What one tensor is filled with.
struct Fill {
  DType type;
  uint64_t bytes;
  float deviation = 0;        // of random weights
  std::vector<float> values;  // else these, or one for all
};

// Bytes of one tensor, made in one go.
struct Chunk {
  size_t tensor;
  uint64_t offset, bytes;
  uint64_t seed;
};

std::string block_name(uint32_t layer, std::string_view name) {
  return "blk." + std::to_string(layer) + "." + std::string(name) + ".weight";
}

// Llama 3's change of the rope frequencies, as divisors per pair of dimensions (source: the model's
// published configuration: low_freq_factor 1, high_freq_factor 4, original context 8192).
std::vector<float> llama3_rope_divisors(const PublicShape& shape) {
  constexpr double kContext = 8192, kLow = 1, kHigh = 4;
  std::vector<float> divisors;
  for (uint32_t i = 0; i < shape.head_width; i += 2) {
    const double exponent = static_cast<double>(i) / shape.head_width;
    const double wavelength =
        2 * std::numbers::pi * std::pow(static_cast<double>(shape.rope_base), exponent);
    const double smooth = std::clamp((kContext / wavelength - kLow) / (kHigh - kLow), 0.0, 1.0);
    const double inverse = (1 - smooth) / static_cast<double>(shape.llama3_rope_factor) + smooth;
    divisors.push_back(static_cast<float>(1 / inverse));
  }
  return divisors;
}

class Synthesizer {
 public:
  Synthesizer(const PublicShape& shape, const SynthOptions& options)
      : shape_(shape), options_(options), writer_(options.output) {}

  Status declare() {
    n_layers_ = options_.n_layers == 0 ? shape_.layers : options_.n_layers;
    if (n_layers_ > kMaxLayers) {
      return invalid_argument(std::to_string(n_layers_) + " layers; at most " +
                              std::to_string(kMaxLayers) + " can be made");
    }
    if (shape_.vocabulary < kFirstFiller) {
      return invalid_argument("the vocabulary needs at least " + std::to_string(kFirstFiller) +
                              " tokens");
    }
    declare_metadata();
    declare_vocabulary();
    return declare_tensors();
  }

  uint64_t file_bytes() const { return writer_.file_bytes(); }

  Status write(const ProgressCallback& progress, const CancelFlag& cancel) {
    TANDEM_RETURN_IF_ERROR(writer_.begin());
    cut_chunks();
    TANDEM_RETURN_IF_ERROR(write_chunks(progress, cancel));
    return writer_.finish();
  }

 private:
  void declare_metadata() {
    const std::string prefix = std::string(shape_.architecture) + ".";
    const auto number = [&](std::string_view key, uint32_t value) {
      writer_.add_u32(prefix + std::string(key), value);
    };
    writer_.add_string("general.architecture", shape_.architecture);
    writer_.add_string("general.type", "model");
    writer_.add_string("general.name", std::string(shape_.name) + " with random weights");
    writer_.add_u32("general.quantization_version", 2);
    number("block_count", n_layers_);
    number("context_length", shape_.context);
    number("embedding_length", shape_.width);
    number("feed_forward_length", shape_.ff_width);
    number("attention.head_count", shape_.heads);
    number("attention.head_count_kv", shape_.kv_heads);
    number("attention.key_length", shape_.head_width);
    number("attention.value_length", shape_.head_width);
    number("rope.dimension_count", shape_.head_width);
    number("vocab_size", shape_.vocabulary);
    writer_.add_f32(prefix + "attention.layer_norm_rms_epsilon", shape_.rms_epsilon);
    writer_.add_f32(prefix + "rope.freq_base", shape_.rope_base);
    if (shape_.experts == 0) return;
    number("expert_count", shape_.experts);
    number("expert_used_count", shape_.experts_used);
    number("expert_feed_forward_length", shape_.expert_ff_width);
  }

  void declare_vocabulary() {
    constexpr int32_t kNormal = 1, kControl = 3, kUnused = 5;  // token types of the specification
    std::vector<std::string> tokens;
    std::vector<int32_t> types(shape_.vocabulary, kUnused);
    for (int byte = 0; byte < 256; ++byte) {
      const char value = static_cast<char>(byte);
      tokens.push_back(byte_alphabet::written({&value, 1}));
    }
    std::fill_n(types.begin(), 256, kNormal);
    tokens.emplace_back("<|bos|>");
    tokens.emplace_back("<|eos|>");
    types[kBos] = types[kEos] = kControl;
    while (tokens.size() < shape_.vocabulary) {
      tokens.push_back("<|filler_" + std::to_string(tokens.size() - kFirstFiller) + "|>");
    }
    writer_.add_string("tokenizer.ggml.model", "gpt2");
    writer_.add_string("tokenizer.ggml.pre", shape_.pre_tokenizer);
    writer_.add_strings("tokenizer.ggml.tokens", tokens);
    writer_.add_i32s("tokenizer.ggml.token_type", types);
    writer_.add_strings("tokenizer.ggml.merges", {});
    writer_.add_u32("tokenizer.ggml.bos_token_id", kBos);
    writer_.add_u32("tokenizer.ggml.eos_token_id", kEos);
    writer_.add_bool("tokenizer.ggml.add_bos_token", shape_.architecture == "llama");
  }

  Status matrix(const std::string& name, std::vector<uint64_t> dims) {
    return random_tensor(name, options_.type, std::move(dims));
  }

  Status random_tensor(const std::string& name, DType type, std::vector<uint64_t> dims) {
    TANDEM_RETURN_IF_ERROR(writer_.add_tensor(name, type, dims));
    const float deviation = 1.0f / std::sqrt(static_cast<float>(dims[0]));
    fills_.push_back({type, tensor_bytes(type, dims), deviation, {}});
    return ok_status();
  }

  Status vector_of(const std::string& name, uint64_t length, std::vector<float> values) {
    const std::vector<uint64_t> dims = {length};
    TANDEM_RETURN_IF_ERROR(writer_.add_tensor(name, DType::kF32, dims));
    fills_.push_back({DType::kF32, length * sizeof(float), 0, std::move(values)});
    return ok_status();
  }

  static uint64_t tensor_bytes(DType type, const std::vector<uint64_t>& dims) {
    const DTypeInfo& info = dtype_info(type);
    uint64_t bytes = dims[0] / info.block_weights * info.block_bytes;
    for (size_t i = 1; i < dims.size(); ++i) bytes *= dims[i];
    return bytes;
  }

  Status declare_tensors() {
    const uint64_t width = shape_.width, vocabulary = shape_.vocabulary;
    TANDEM_RETURN_IF_ERROR(matrix("token_embd.weight", {width, vocabulary}));
    if (shape_.llama3_rope_factor > 0) {
      std::vector<float> divisors = llama3_rope_divisors(shape_);
      TANDEM_RETURN_IF_ERROR(vector_of("rope_freqs.weight", divisors.size(), divisors));
    }
    for (uint32_t layer = 0; layer < n_layers_; ++layer) {
      TANDEM_RETURN_IF_ERROR(declare_attention(layer));
      TANDEM_RETURN_IF_ERROR(shape_.experts == 0 ? declare_dense(layer) : declare_experts(layer));
    }
    TANDEM_RETURN_IF_ERROR(vector_of("output_norm.weight", width, {1}));
    if (shape_.tied_embeddings) return ok_status();
    return matrix("output.weight", {width, vocabulary});
  }

  Status declare_attention(uint32_t layer) {
    const uint64_t width = shape_.width, head = shape_.head_width;
    const uint64_t query = head * shape_.heads, kv = head * shape_.kv_heads;
    TANDEM_RETURN_IF_ERROR(vector_of(block_name(layer, "attn_norm"), width, {1}));
    TANDEM_RETURN_IF_ERROR(matrix(block_name(layer, "attn_q"), {width, query}));
    TANDEM_RETURN_IF_ERROR(matrix(block_name(layer, "attn_k"), {width, kv}));
    TANDEM_RETURN_IF_ERROR(matrix(block_name(layer, "attn_v"), {width, kv}));
    TANDEM_RETURN_IF_ERROR(matrix(block_name(layer, "attn_output"), {query, width}));
    if (!shape_.qk_norm) return ok_status();
    TANDEM_RETURN_IF_ERROR(vector_of(block_name(layer, "attn_q_norm"), head, {1}));
    return vector_of(block_name(layer, "attn_k_norm"), head, {1});
  }

  Status declare_dense(uint32_t layer) {
    const uint64_t width = shape_.width, inner = shape_.ff_width;
    TANDEM_RETURN_IF_ERROR(vector_of(block_name(layer, "ffn_norm"), width, {1}));
    TANDEM_RETURN_IF_ERROR(matrix(block_name(layer, "ffn_gate"), {width, inner}));
    TANDEM_RETURN_IF_ERROR(matrix(block_name(layer, "ffn_up"), {width, inner}));
    return matrix(block_name(layer, "ffn_down"), {inner, width});
  }

  Status declare_experts(uint32_t layer) {
    const uint64_t width = shape_.width, inner = shape_.expert_ff_width, experts = shape_.experts;
    TANDEM_RETURN_IF_ERROR(vector_of(block_name(layer, "ffn_norm"), width, {1}));
    TANDEM_RETURN_IF_ERROR(
        random_tensor(block_name(layer, "ffn_gate_inp"), DType::kF32, {width, experts}));
    TANDEM_RETURN_IF_ERROR(matrix(block_name(layer, "ffn_gate_exps"), {width, inner, experts}));
    TANDEM_RETURN_IF_ERROR(matrix(block_name(layer, "ffn_up_exps"), {width, inner, experts}));
    return matrix(block_name(layer, "ffn_down_exps"), {inner, width, experts});
  }

  // The cut, and with it the bytes, depends on nothing but the shape.
  void cut_chunks() {
    for (size_t i = 0; i < fills_.size(); ++i) {
      const uint64_t block = dtype_info(fills_[i].type).block_bytes;
      const uint64_t step = kChunkBytes / block * block;
      for (uint64_t offset = 0; offset < fills_[i].bytes; offset += step) {
        const uint64_t seed = options_.seed * 0x9e3779b97f4a7c15u + chunks_.size();
        chunks_.push_back({i, offset, std::min(step, fills_[i].bytes - offset), seed});
      }
    }
  }

  void fill(const Chunk& chunk, std::span<std::byte> out) const {
    const Fill& tensor = fills_[chunk.tensor];
    if (tensor.values.empty()) return fill_random(tensor.type, tensor.deviation, chunk.seed, out);
    for (uint64_t i = 0; i < chunk.bytes / sizeof(float); ++i) {
      const uint64_t place = chunk.offset / sizeof(float) + i;
      const float value = tensor.values.size() == 1 ? tensor.values[0] : tensor.values[place];
      std::memcpy(out.data() + i * sizeof(float), &value, sizeof(float));
    }
  }

  // Chunks are written in order while the next ones are made.
  Status write_chunks(const ProgressCallback& progress, const CancelFlag& cancel) {
    uint64_t total = 0, done = 0;
    for (const Fill& tensor : fills_) total += tensor.bytes;
    ProgressMeter meter(Stage::kWrite, total, progress);
    MakeInOrder work;
    work.n_pieces = chunks_.size();
    work.piece_bytes = kChunkBytes;
    work.n_threads = options_.n_threads;
    work.make = [&](size_t i, std::span<std::byte> buffer) {
      fill(chunks_[i], buffer.first(chunks_[i].bytes));
    };
    work.take = [&](size_t i, std::span<const std::byte> buffer) -> Status {
      TANDEM_RETURN_IF_ERROR(writer_.append(buffer.first(chunks_[i].bytes)));
      done += chunks_[i].bytes;
      meter.report(done);
      return ok_status();
    };
    const Status status = make_in_order(work, cancel);
    if (status.code() != Code::kCancelled) return status;
    return cancelled("writing " + options_.output.string() + " was cancelled");
  }

  const PublicShape& shape_;
  const SynthOptions& options_;
  GgufWriter writer_;
  uint32_t n_layers_ = 0;
  std::vector<Fill> fills_;  // in the order of the writer's tensors
  std::vector<Chunk> chunks_;
};

Result<const PublicShape*> shape_named(const std::string& name) {
  const PublicShape* shape = find_public_shape(name);
  if (shape != nullptr) return shape;
  std::string known;
  for (const PublicShape& s : public_shapes())
    known += (known.empty() ? "" : ", ") + std::string(s.name);
  return invalid_argument("no model shape is called '" + name + "'; known are " + known);
}

}  // namespace

Status synthesize(const PublicShape& shape, const SynthOptions& options,
                  const ProgressCallback& progress, const CancelFlag& cancel) {
  try {
    Synthesizer synthesizer(shape, options);
    TANDEM_RETURN_IF_ERROR(synthesizer.declare());
    return synthesizer.write(progress, cancel);
  } catch (const std::bad_alloc&) {
    return out_of_memory("no memory for " + options.output.string());
  }
}

Status synthesize(const SynthOptions& options, const ProgressCallback& progress,
                  const CancelFlag& cancel) {
  TANDEM_ASSIGN_OR_RETURN(const PublicShape* shape, shape_named(options.like));
  return synthesize(*shape, options, progress, cancel);
}

Result<uint64_t> synthesized_bytes(const SynthOptions& options) {
  TANDEM_ASSIGN_OR_RETURN(const PublicShape* shape, shape_named(options.like));
  Synthesizer synthesizer(*shape, options);
  TANDEM_RETURN_IF_ERROR(synthesizer.declare());
  return synthesizer.file_bytes();
}

}  // namespace tandem

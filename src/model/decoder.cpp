#include "model/decoder.h"

#include <string>
#include <utility>

#include "formats/gguf/gguf.h"

namespace tandem {
namespace {

std::string shape_text(int64_t rows, int64_t cols) {
  return rows == 1 ? "[" + std::to_string(cols) + "]"
                   : "[" + std::to_string(cols) + ", " + std::to_string(rows) + "]";
}

// The text of an error that a missing, misshapen or uncomputed tensor gives.
Status check_tensor(const TensorInfo& tensor, uint64_t rows, uint64_t cols) {
  const std::string name(tensor.name);
  if (tensor.row_length() != cols || tensor.rows() != rows) {
    return corrupt("tensor " + name + " has shape " +
                   shape_text(static_cast<int64_t>(tensor.rows()),
                              static_cast<int64_t>(tensor.row_length())) +
                   ", expected " +
                   shape_text(static_cast<int64_t>(rows), static_cast<int64_t>(cols)))
        .in_tensor(name);
  }
  if (!tensor.type.computed) {
    return unsupported("tensor " + name + " has type " + std::string(tensor.type.name) +
                       ", which is recognised but not computed; computed types are f32, f16, bf16, "
                       "q8_0, q4_0, q4_k "
                       "and q6_k")
        .in_tensor(name);
  }
  return ok_status();
}

// Collects values, operations and weights; the first error sticks and later calls do nothing of use.
class Builder {
 public:
  Builder(const GgufFile& file, const ModelShape& shape)
      : file_(file), used_(file.tensors().size(), false) {
    program_.shape = shape;
  }

  const ModelShape& shape() const { return program_.shape; }
  const Status& status() const { return status_; }
  void set_layer(int64_t layer) { layer_ = static_cast<int32_t>(layer); }
  std::string layer_name(const char* suffix) const {
    return "blk." + std::to_string(layer_) + "." + suffix;
  }

  bool has_tensor(const std::string& name) const { return file_.find_tensor(name) != nullptr; }

  ValueId value(ValueType type, RowSpace rows, int64_t width) {
    program_.values.push_back({type, rows, width});
    quantized_.push_back(kNoId);
    return static_cast<ValueId>(program_.values.size() - 1);
  }

  // A vector that operations read as float32.
  WeightId vector(const std::string& name, int64_t cols) {
    const TensorInfo* tensor = find(name, 1, cols);
    if (tensor != nullptr && tensor->type.id != static_cast<uint32_t>(DType::kF32)) {
      fail(unsupported("tensor " + name + " has type " + std::string(tensor->type.name) +
                       ", expected f32")
               .in_tensor(name));
    }
    return dense(tensor, 1, cols);
  }

  WeightId matrix(const std::string& name, int64_t rows, int64_t cols) {
    return dense(find(name, rows, cols), rows, cols);
  }

  // Gate, up and down of all experts of this layer, one block per expert; the ids of expert 0.
  struct Experts {
    WeightId gate = kNoId, up = kNoId, down = kNoId;
  };
  Experts experts();

  Op& emit(OpKind kind, ValueId in0, ValueId in1, ValueId out, WeightId weight = kNoId) {
    Op op;
    op.kind = kind;
    op.layer = layer_;
    op.in[0] = in0;
    op.in[1] = in1;
    op.out = out;
    op.weight = weight;
    program_.ops.push_back(op);
    return program_.ops.back();
  }

  // x in the form that products with this weight take: int8 blocks beside quantised weights, else itself.
  ValueId operand_for(ValueId x, WeightId weight) {
    if (status_.ok() && dtype_info(program_.weights[weight].type).block_weights == 1) return x;
    if (quantized_[x] == kNoId) {
      const Value& source = program_.values[x];
      const ValueId q = value(ValueType::kQ8A, source.rows, source.width);
      emit(OpKind::kQuantize, x, kNoId, q);
      quantized_[x] = q;
    }
    return quantized_[x];
  }

  // Operands are made before any of the products, so that products of one input stand together.
  void prepare(ValueId x, std::initializer_list<WeightId> weights) {
    for (WeightId weight : weights) operand_for(x, weight);
  }

  ValueId matmul(ValueId x, WeightId weight, int64_t rows) {
    const ValueId operand = operand_for(x, weight);
    const ValueId out = value(ValueType::kF32, program_.values[x].rows, rows);
    emit(OpKind::kMatmul, operand, kNoId, out, weight);
    return out;
  }

  ValueId norm(ValueId x, const std::string& name) {
    const WeightId weight = vector(name, shape().width);
    const ValueId out = value(ValueType::kF32, program_.values[x].rows, shape().width);
    emit(OpKind::kNorm, x, kNoId, out, weight);
    return out;
  }

  Program& program() { return program_; }

  // A tensor that nothing reads is part of a computation that is not done here.
  void refuse_unused_tensors() {
    for (size_t i = 0; i < used_.size(); ++i) {
      const std::string name(file_.tensors()[i].name);
      if (used_[i] || is_of_no_use(name)) continue;
      fail(unsupported("tensor " + name + " is not part of architecture " +
                       std::string(shape().architecture->name) +
                       " as it is computed here: leaving it out would give wrong answers")
               .in_tensor(name));
    }
  }

 private:
  // Tables that old converters stored and everybody computes.
  static bool is_of_no_use(std::string_view name) {
    return name.ends_with(".attn_rot_embd.weight") || name.ends_with(".attn_rot_embd") ||
           name.ends_with(".rotary_emb.inv_freq");
  }

  void fail(Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

  const TensorInfo* find(const std::string& name, int64_t rows, int64_t cols) {
    const TensorInfo* tensor = file_.find_tensor(name);
    if (tensor == nullptr) {
      fail(corrupt("tensor " + name + " is missing, expected shape " + shape_text(rows, cols))
               .in_tensor(name));
      return nullptr;
    }
    used_[static_cast<size_t>(tensor - file_.tensors().data())] = true;
    Status status = check_tensor(*tensor, static_cast<uint64_t>(rows), static_cast<uint64_t>(cols));
    if (status.ok()) return tensor;
    fail(std::move(status));
    return nullptr;
  }

  WeightId add_weight(BlockId block, uint32_t extent, DType type, int64_t rows, int64_t cols) {
    program_.weights.push_back({block, extent, type, rows, cols});
    return static_cast<WeightId>(program_.weights.size() - 1);
  }

  WeightId dense(const TensorInfo* tensor, int64_t rows, int64_t cols) {
    if (tensor == nullptr) return 0;
    const BlockId block = static_cast<BlockId>(program_.blocks.size());
    program_.blocks.push_back({std::string(tensor->name), {tensor->extent}});
    return add_weight(block, 0, static_cast<DType>(tensor->type.id), rows, cols);
  }

  WeightId expert_role(const char* role, BlockId first_block, uint32_t extent, int64_t rows,
                       int64_t cols);

  const GgufFile& file_;
  Program program_;
  std::vector<bool> used_;          // by tensor of the file
  std::vector<ValueId> quantized_;  // by ValueId: its int8 twin, if made
  Status status_;
  int32_t layer_ = -1;
};

// One of ffn_{gate,up,down}: either one tensor [X,rows,cols] or, in older files, one tensor per expert.
WeightId Builder::expert_role(const char* role, BlockId first_block, uint32_t extent, int64_t rows,
                              int64_t cols) {
  const WeightId first = static_cast<WeightId>(program_.weights.size());
  const std::string merged_name = layer_name("ffn_") + role + "_exps.weight";
  const bool merged =
      has_tensor(merged_name) || !has_tensor(layer_name("ffn_") + role + ".0.weight");
  const TensorInfo* all = merged ? find(merged_name, shape().n_experts * rows, cols) : nullptr;
  for (int64_t e = 0; e < shape().n_experts && status_.ok(); ++e) {
    const TensorInfo* tensor =
        merged ? all
               : find(layer_name("ffn_") + role + "." + std::to_string(e) + ".weight", rows, cols);
    if (tensor == nullptr) break;
    Extent part = tensor->extent;
    if (merged) {
      part.bytes /= static_cast<uint64_t>(shape().n_experts);
      part.offset += part.bytes * static_cast<uint64_t>(e);
    }
    const BlockId block = first_block + static_cast<BlockId>(e);
    program_.blocks[block].extents.push_back(part);
    add_weight(block, extent, static_cast<DType>(tensor->type.id), rows, cols);
  }
  if (program_.weights.size() > first) {
    for (WeightId w = first; w < program_.weights.size(); ++w) {
      if (program_.weights[w].type != program_.weights[first].type) {
        fail(unsupported("experts of layer " + std::to_string(layer_) + " have different types"));
      }
    }
  }
  return first;
}

Builder::Experts Builder::experts() {
  const BlockId first_block = static_cast<BlockId>(program_.blocks.size());
  for (int64_t e = 0; e < shape().n_experts; ++e) {
    program_.blocks.push_back({layer_name("expert.") + std::to_string(e), {}});
  }
  const int64_t f = shape().ffn_width;
  const int64_t d = shape().width;
  Experts experts;
  experts.gate = expert_role("gate", first_block, 0, f, d);
  experts.up = expert_role("up", first_block, 1, f, d);
  experts.down = expert_role("down", first_block, 2, d, f);
  return experts;
}

// ---- The layers, in the order of the computation ---------------------------------------------------

struct Attention {
  WeightId q, k, v, output;
};

Attention attention_weights(Builder& b) {
  const ModelShape& s = b.shape();
  return {b.matrix(b.layer_name("attn_q.weight"), s.query_width(), s.width),
          b.matrix(b.layer_name("attn_k.weight"), s.kv_width(), s.width),
          b.matrix(b.layer_name("attn_v.weight"), s.kv_width(), s.width),
          b.matrix(b.layer_name("attn_output.weight"), s.width, s.query_width())};
}

void bias_if_any(Builder& b, ValueId x, const char* suffix, int64_t width, bool required) {
  const std::string name = b.layer_name(suffix);
  if (!required && !b.has_tensor(name)) return;
  b.emit(OpKind::kBias, x, kNoId, x, b.vector(name, width));
}

void head_norm_if_used(Builder& b, ValueId x, const char* suffix) {
  if (!b.shape().architecture->head_norm) return;
  b.emit(OpKind::kHeadNorm, x, kNoId, x, b.vector(b.layer_name(suffix), b.shape().head_width));
}

void attention(Builder& b, ValueId x, ValueId angles) {
  const ModelShape& s = b.shape();
  const ValueId h = b.norm(x, b.layer_name("attn_norm.weight"));
  const Attention w = attention_weights(b);
  b.prepare(h, {w.q, w.k, w.v});
  const ValueId q = b.matmul(h, w.q, s.query_width());
  const ValueId k = b.matmul(h, w.k, s.kv_width());
  const ValueId v = b.matmul(h, w.v, s.kv_width());
  const bool qkv_bias = s.architecture->qkv_bias;
  bias_if_any(b, q, "attn_q.bias", s.query_width(), qkv_bias);
  bias_if_any(b, k, "attn_k.bias", s.kv_width(), qkv_bias);
  bias_if_any(b, v, "attn_v.bias", s.kv_width(), qkv_bias);
  head_norm_if_used(b, q, "attn_q_norm.weight");
  head_norm_if_used(b, k, "attn_k_norm.weight");
  b.emit(OpKind::kRope, q, angles, q);
  b.emit(OpKind::kRope, k, angles, k);
  b.emit(OpKind::kStoreKv, k, v, kNoId);
  const ValueId attended = b.value(ValueType::kF32, RowSpace::kTokens, s.query_width());
  b.emit(OpKind::kAttend, q, kNoId, attended);
  const ValueId output = b.matmul(attended, w.output, s.width);
  bias_if_any(b, output, "attn_output.bias", s.width, /*required=*/false);
  b.emit(OpKind::kAdd, x, output, x);
}

void dense_feed_forward(Builder& b, ValueId x) {
  const ModelShape& s = b.shape();
  const ValueId h = b.norm(x, b.layer_name("ffn_norm.weight"));
  const WeightId w_gate = b.matrix(b.layer_name("ffn_gate.weight"), s.ffn_width, s.width);
  const WeightId w_up = b.matrix(b.layer_name("ffn_up.weight"), s.ffn_width, s.width);
  const WeightId w_down = b.matrix(b.layer_name("ffn_down.weight"), s.width, s.ffn_width);
  b.prepare(h, {w_gate, w_up});
  const ValueId gate = b.matmul(h, w_gate, s.ffn_width);
  const ValueId up = b.matmul(h, w_up, s.ffn_width);
  bias_if_any(b, gate, "ffn_gate.bias", s.ffn_width, /*required=*/false);
  bias_if_any(b, up, "ffn_up.bias", s.ffn_width, /*required=*/false);
  const ValueId inner = b.value(ValueType::kF32, RowSpace::kTokens, s.ffn_width);
  b.emit(OpKind::kSiluMul, gate, up, inner);
  const ValueId down = b.matmul(inner, w_down, s.width);
  bias_if_any(b, down, "ffn_down.bias", s.width, /*required=*/false);
  b.emit(OpKind::kAdd, x, down, x);
}

void routed_feed_forward(Builder& b, ValueId x) {
  const ModelShape& s = b.shape();
  const ValueId h = b.norm(x, b.layer_name("ffn_norm.weight"));
  const WeightId w_router = b.matrix(b.layer_name("ffn_gate_inp.weight"), s.n_experts, s.width);
  const Builder::Experts w = b.experts();
  if (!b.status().ok()) return;
  const ValueId operand = b.operand_for(h, w.gate);
  const ValueId up_operand = b.operand_for(h, w.up);
  const ValueId scores = b.matmul(h, w_router, s.n_experts);
  const ValueId ids = b.value(ValueType::kI32, RowSpace::kTokens, s.n_experts_used);
  const ValueId shares = b.value(ValueType::kF32, RowSpace::kTokens, s.n_experts_used);
  b.emit(OpKind::kRoute, scores, kNoId, ids).out2 = shares;
  const ValueId lists = b.value(ValueType::kExpertLists, RowSpace::kStep, s.n_experts);
  b.emit(OpKind::kListPairs, ids, kNoId, lists, w.gate);

  const auto gathered = [&](ValueId source) {
    const ValueType type = b.program().values[source].type;
    const ValueId rows = b.value(type, RowSpace::kPairs, s.width);
    b.emit(OpKind::kGatherPairs, source, lists, rows);
    return rows;
  };
  const ValueId gate_in = gathered(operand);
  const ValueId up_in = up_operand == operand ? gate_in : gathered(up_operand);
  const ValueId gate = b.value(ValueType::kF32, RowSpace::kPairs, s.ffn_width);
  const ValueId up = b.value(ValueType::kF32, RowSpace::kPairs, s.ffn_width);
  b.emit(OpKind::kExpertMatmul, gate_in, lists, gate, w.gate);
  b.emit(OpKind::kExpertMatmul, up_in, lists, up, w.up);
  const ValueId inner = b.value(ValueType::kF32, RowSpace::kPairs, s.ffn_width);
  b.emit(OpKind::kSiluMul, gate, up, inner);
  const ValueId inner_operand = b.operand_for(inner, w.down);
  const ValueId down = b.value(ValueType::kF32, RowSpace::kPairs, s.width);
  b.emit(OpKind::kExpertMatmul, inner_operand, lists, down, w.down);
  const ValueId combined = b.value(ValueType::kF32, RowSpace::kTokens, s.width);
  b.emit(OpKind::kCombine, down, lists, combined).in[2] = shares;
  b.emit(OpKind::kAdd, x, combined, x);
}

void output_head(Builder& b, ValueId x, WeightId embeddings) {
  const ModelShape& s = b.shape();
  b.program().first_output_op = static_cast<uint32_t>(b.program().ops.size());
  const ValueId last = b.value(ValueType::kF32, RowSpace::kOutputs, s.width);
  b.emit(OpKind::kGatherOutputs, x, kNoId, last);
  const ValueId h = b.norm(last, "output_norm.weight");
  const bool tied = !b.has_tensor("output.weight");
  const WeightId w = tied ? embeddings : b.matrix("output.weight", s.n_vocabulary, s.width);
  b.program().logits = b.matmul(h, w, s.n_vocabulary);
}

}  // namespace

Result<Program> build_decoder(const GgufFile& file) {
  TANDEM_ASSIGN_OR_RETURN(const ModelShape shape, read_model_shape(file));
  Builder b(file, shape);
  if (b.has_tensor("rope_freqs.weight")) {
    b.program().rope_factors = b.vector("rope_freqs.weight", shape.n_rot / 2);
  }
  const WeightId embeddings = b.matrix("token_embd.weight", shape.n_vocabulary, shape.width);
  const ValueId angles = b.value(ValueType::kF32, RowSpace::kTokens, shape.n_rot);
  b.emit(OpKind::kRopeAngles, kNoId, kNoId, angles);
  const ValueId x = b.value(ValueType::kF32, RowSpace::kTokens, shape.width);
  b.emit(OpKind::kEmbed, kNoId, kNoId, x, embeddings);
  for (int64_t layer = 0; layer < shape.n_layers && b.status().ok(); ++layer) {
    b.set_layer(layer);
    attention(b, x, angles);
    if (shape.has_experts()) {
      routed_feed_forward(b, x);
    } else {
      dense_feed_forward(b, x);
    }
  }
  b.set_layer(-1);
  output_head(b, x, embeddings);
  b.refuse_unused_tensors();
  if (!b.status().ok()) return b.status();
  return std::move(b.program());
}

}  // namespace tandem

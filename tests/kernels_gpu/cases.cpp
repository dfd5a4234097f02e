// Operations over random numbers.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string_view>

#include "tests/kernels_gpu/case_builder.h"

namespace tandem::gpu::testing {
namespace {

constexpr double kU = 0x1p-24;    // rounding of float32
constexpr double kExp = 0x1p-22;  // of the kernels' exp
constexpr double kDouble = 0x1p-53;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::string type_name(DType type) { return std::string(dtype_info(type).name); }

const DType kTypes[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ8_0,
                        DType::kQ4_0, DType::kQ4_K, DType::kQ6_K};

bool is_float(DType type) {
  return type == DType::kF32 || type == DType::kF16 || type == DType::kBF16;
}

size_t row_bytes_of(DType type, int64_t n) {
  const DTypeInfo& info = dtype_info(type);
  return static_cast<size_t>(n) / info.block_weights * info.block_bytes;
}

Half small_half(std::mt19937& random) {  // about 2^-9 .. 2^-3, either sign
  return static_cast<Half>(((6 + random() % 6) << 10) | (random() & 0x83ff));
}

// A random row of weights in a format.
void fill_weights(DType type, int64_t n, std::byte* row, Builder& b) {
  std::mt19937& random = b.random();
  const DTypeInfo& info = dtype_info(type);
  if (type == DType::kF32 || type == DType::kBF16) {
    for (int64_t i = 0; i < n; ++i) {
      const float value = b.normal();
      const auto* bytes = reinterpret_cast<const std::byte*>(&value);
      if (type == DType::kF32) std::memcpy(row + 4 * i, bytes, 4);
      if (type == DType::kBF16) std::memcpy(row + 2 * i, bytes + 2, 2);
    }
    return;
  }
  for (size_t i = 0; i < row_bytes_of(type, n); ++i) row[i] = static_cast<std::byte>(random());
  const auto set = [&](std::byte* place) {
    const Half half = small_half(random);
    std::memcpy(place, &half, sizeof half);
  };
  for (int64_t block = 0; block < n / info.block_weights; ++block) {
    std::byte* at = row + static_cast<size_t>(block) * info.block_bytes;
    set(type == DType::kQ6_K ? at + offsetof(BlockQ6_K, d) : at);
    if (type == DType::kQ4_K) set(at + offsetof(BlockQ4_K, dmin));
  }
}

std::vector<float> dequantized(DType type, const std::byte* row, int64_t n) {
  std::vector<float> values(static_cast<size_t>(n));
  const auto with = [&](cpu::KernelTable::Dequantize* f) { f(row, values.data(), n); };
  switch (type) {
    case DType::kF32:
      with(scalar().dequantize_f32);
      break;
    case DType::kF16:
      with(scalar().dequantize_f16);
      break;
    case DType::kBF16:
      with(scalar().dequantize_bf16);
      break;
    case DType::kQ4_0:
      with(scalar().dequantize_q4_0);
      break;
    case DType::kQ8_0:
      with(scalar().dequantize_q8_0);
      break;
    case DType::kQ4_K:
      with(scalar().dequantize_q4_k);
      break;
    case DType::kQ6_K:
      with(scalar().dequantize_q6_k);
      break;
  }
  return values;
}

// A weight [rows,cols]; returns its offset.
size_t weight(Builder& b, DType type, int64_t rows, int64_t cols) {
  const size_t row_bytes = row_bytes_of(type, cols);
  const size_t offset = b.take(static_cast<size_t>(rows) * row_bytes);
  for (int64_t r = 0; r < rows; ++r)
    fill_weights(type, cols, b.at<std::byte>(offset + static_cast<size_t>(r) * row_bytes), b);
  b->op.weight_type = type;
  b->op.weight_rows = rows;
  b->op.weight_cols = cols;
  b->op.weight_row_bytes = row_bytes;
  return offset;
}

template <typename T>
void set_address(T*& member, size_t offset) {
  member = reinterpret_cast<T*>(offset);
}

// What a Q4_K weight may count beyond its own magnitude: its two parts are summed apart.
double part_beyond(DType type, const std::byte* row, int64_t n) {
  if (type != DType::kQ4_K) return 0;
  double largest = 0;
  for (int64_t block = 0; block < n / 256; ++block) {
    const Half dmin = reinterpret_cast<const BlockQ4_K*>(row)[block].dmin;
    float value;
    scalar().dequantize_f16(&dmin, &value, 1);
    largest = std::max(largest, 2 * 63 * std::abs(double{value}));
  }
  return largest;
}

// |row of the weight| . |row of in[0]|: what errors of a product are measured by.
double magnitude(Builder& b, const std::byte* row, int64_t x_row) {
  const DType type = b->op.weight_type;
  const int64_t K = b->op.weight_cols;
  const std::vector<float> w = dequantized(type, row, K);
  const double beyond = part_beyond(type, row, K);
  const size_t x = Builder::offset_of(b->op.in[0], x_row);
  double sum = 0;
  for (int64_t k = 0; k < K; ++k) {
    const BlockQ8A& block = b.at<BlockQ8A>(x)[is_float(type) ? 0 : k / 32];
    const double value =
        is_float(type) ? double{b.at<float>(x)[k]} : double{block.d} * block.qs[k % 32];
    sum += (std::abs(double{w[static_cast<size_t>(k)]}) + beyond) * std::abs(value);
  }
  return sum;
}

// Both sides round once, and a lane's sum is rounded K/32 times, in float32 or in double.
void bound_product(Builder& b, const std::byte* weight, int64_t first, int64_t n,
                   const std::vector<std::byte>& expected) {
  const double K = static_cast<double>(b->op.weight_cols);
  const double steps = is_float(b->op.weight_type) ? (K / 32 + 2) * kU : (K / 32 + 40) * kDouble;
  for (int64_t t = first; t < first + n; ++t) {
    for (int64_t row = 0; row < b->op.weight_rows; ++row) {
      const size_t offset = Builder::offset_of(b->op.out, t) + static_cast<size_t>(row) * 4;
      float value;
      std::memcpy(&value, expected.data() + offset, 4);
      const double S = magnitude(b, weight + static_cast<size_t>(row) * b->op.weight_row_bytes, t);
      b->bounded.push_back({offset, 2 * kU * std::abs(double{value}) + steps * S});
    }
  }
}

Case matmul(DType type, int64_t T, int64_t N, int64_t K) {
  Builder b("matmul_" + type_name(type) + "_T" + std::to_string(T) + "_N" + std::to_string(N) +
                "_K" + std::to_string(K),
            OpKind::kMatmul, 1);
  b.step.n_tokens = T;
  const int64_t capacity = T + 2;
  b->op.in[0] = is_float(type) ? b.floats(capacity, K, true) : b.blocks(capacity, K);
  b->op.out = b.floats(capacity, N, false);
  b->op.width = N;
  const size_t w = weight(b, type, N, K);
  set_address(b->op.weight, w);
  b.set_step();
  b->bytes_moved = static_cast<uint64_t>(N) * b->op.weight_row_bytes +
                   static_cast<uint64_t>(T) * (b->op.in[0].row_bytes + b->op.out.row_bytes);
  return b.done();
}

Case checked_matmul(DType type, int64_t T, int64_t N, int64_t K, float special = 0) {
  Case made = matmul(type, T, N, K);
  struct Reopened : Builder {
    explicit Reopened(Case c) : Builder("", OpKind::kMatmul, 1) { **this = std::move(c); }
  } b(std::move(made));
  if (special != 0) {  // in one row of in[0]
    b->name += std::isnan(special) ? "_nan" : "_infinity";
    float& value = *b.at<float>(Builder::offset_of(b->op.in[0], T / 2));  // a BlockQ8A's d
    value = special;
  }
  const std::vector<std::byte> expected = host_result(*b);
  const auto* w = b.at<std::byte>(reinterpret_cast<size_t>(b->op.weight));
  bound_product(b, w, 0, T, expected);
  for (Bounded& bounded : b->bounded)
    if (!(bounded.bound >= 0)) bounded.bound = 0;  // not a number: only kinds are compared
  return std::move(*b);
}

// Every third expert is the other processor's, if two compute.
bool is_other(int64_t expert, bool two) { return two && expert % 3 == 1; }

std::vector<int32_t> random_ids(int64_t T, int64_t X, int64_t U, std::mt19937& random) {
  std::vector<int32_t> ids;
  std::vector<int32_t> all(static_cast<size_t>(X));
  for (int64_t e = 0; e < X; ++e) all[static_cast<size_t>(e)] = static_cast<int32_t>(e);
  for (int64_t t = 0; t < T; ++t) {
    std::shuffle(all.begin(), all.end(), random);
    ids.insert(ids.end(), all.begin(), all.begin() + U);
  }
  return ids;
}

// Lists of the ids' pairs, for this processor's experts or for the other's.
Operand lists_of(Builder& b, const std::vector<int32_t>& ids, bool two, bool other) {
  const int64_t X = b->constants.n_experts, n_pairs = static_cast<int64_t>(ids.size());
  const Operand operand = b.rows_of(1, ExpertLists::count(X, n_pairs) * 4);
  const ExpertLists lists =
      ExpertLists::over(b.at<int32_t>(Builder::offset_of(operand, 0)), X, n_pairs);
  std::fill_n(lists.row_of, n_pairs, -1);
  *lists.n_active = 0;
  int32_t row = 0;
  lists.begin[0] = 0;
  for (int32_t e = 0; e < X; ++e) {
    for (int32_t p = 0; p < n_pairs && is_other(e, two) == other; ++p) {
      if (ids[static_cast<size_t>(p)] != e) continue;
      lists.pair_at[row] = p;
      lists.row_of[p] = row++;
    }
    if (row > lists.begin[e]) lists.active[(*lists.n_active)++] = e;
    lists.begin[e + 1] = row;
  }
  return operand;
}

// T tokens' random choice of U of X experts; its lists as in[1].
std::vector<int32_t> choose_experts(Builder& b, int64_t T, int64_t X, int64_t U, bool two) {
  b->constants.n_experts = X;
  b->constants.n_experts_used = U;
  b.step.n_tokens = T;
  std::vector<int32_t> ids = random_ids(T, X, U, b.random());
  b->op.in[1] = lists_of(b, ids, two, false);
  const size_t lists = Builder::offset_of(b->op.in[1], 0);
  b->op.n_pairs = reinterpret_cast<const int32_t*>(lists + static_cast<size_t>(1 + 2 * X) * 4);
  return ids;
}

ExpertLists lists_in(Builder& b) {
  return ExpertLists::over(b.at<int32_t>(Builder::offset_of(b->op.in[1], 0)),
                           b->constants.n_experts, b.step.n_tokens * b->constants.n_experts_used);
}

// [X] addresses of experts' matrices.
void expert_table(Builder& b, int64_t X, size_t matrices, size_t bytes, bool two) {
  const size_t table = b.take(static_cast<size_t>(X) * sizeof(std::byte*));
  for (int64_t e = 0; e < X; ++e) {
    const size_t target = matrices + static_cast<size_t>(e) * bytes;
    b.address(table + static_cast<size_t>(e) * sizeof(std::byte*), is_other(e, two) ? 0 : target);
  }
  set_address(b->op.experts, table);
}

Case expert_matmul(DType type, int64_t T, int64_t X, int64_t U, int64_t N, int64_t K, bool two,
                   bool bounded) {
  Builder b("expert_matmul_" + type_name(type) + "_T" + std::to_string(T) + "_X" +
                std::to_string(X) + "_U" + std::to_string(U) + (two ? "_shared" : ""),
            OpKind::kExpertMatmul, 2);
  b->op.rows = RowSpace::kPairs;
  choose_experts(b, T, X, U, two);
  b->op.in[0] = is_float(type) ? b.floats(T * U, K, true) : b.blocks(T * U, K);
  b->op.out = b.floats(T * U, N, false);
  b->op.width = N;
  const size_t w = weight(b, type, X * N, K);
  b->op.weight_rows = N;
  const size_t bytes = static_cast<size_t>(N) * b->op.weight_row_bytes;
  expert_table(b, X, w, bytes, two);
  b.set_step();
  const ExpertLists lists = lists_in(b);
  b->bytes_moved = static_cast<uint64_t>(*lists.n_active) * bytes +
                   static_cast<uint64_t>(T * U) * (b->op.in[0].row_bytes + b->op.out.row_bytes);
  if (!bounded) return b.done();
  const std::vector<std::byte> expected = host_result(*b);
  for (int64_t e = 0; e < X; ++e) {
    bound_product(b, b.at<std::byte>(w + static_cast<size_t>(e) * bytes), lists.begin[e],
                  lists.begin[e + 1] - lists.begin[e], expected);
  }
  return b.done();
}

Case embed(DType type) {
  Builder b("embed_" + type_name(type), OpKind::kEmbed, 3);
  const int64_t T = 5, D = 512, V = 11;
  b.step.n_tokens = T;
  b->op.width = D;
  b->op.out = b.floats(T + 1, D, false);
  set_address(b->op.weight, weight(b, type, V, D));
  const size_t ids = b.take(static_cast<size_t>(T) * 4);
  for (int64_t t = 0; t < T; ++t) b.at<int32_t>(ids)[t] = static_cast<int32_t>((t * 7 + 10) % V);
  b.step_address(offsetof(StepInput, ids), ids);
  return b.done();
}

// Kinds whose operands are rows of floats.  T tokens; values that are special stand in one row.
Case row_wise(std::string name, OpKind kind, int64_t T, int64_t width, float special) {
  Builder b(std::move(name), kind, 4);
  OperationConstants& c = b->constants;
  c.n_heads = c.n_kv_heads = 4;
  c.head_width = width / 4;
  c.norm_epsilon = 1e-5f;
  c.n_rot = c.head_width / 4 * 2;
  b.step.n_tokens = T;
  b.step.first_position = 1234;
  b->op.width = width;
  const bool updates = kind == OpKind::kBias || kind == OpKind::kHeadNorm ||
                       kind == OpKind::kRope || kind == OpKind::kAdd;
  b->op.in[0] = b.floats(T + 1, width, true);
  b->op.in[1] = b.floats(T + 1, width, true);
  b->op.out = updates ? b->op.in[0] : b.floats(T + 1, width, false);
  if (kind == OpKind::kQuantize)
    b->op.out = b.rows_of(T + 1, static_cast<size_t>(width / 32) * sizeof(BlockQ8A));
  if (special != 0) *b.at<float>(Builder::offset_of(b->op.in[0], T / 2) + 40) = special;
  const size_t w = b.take(static_cast<size_t>(width) * 4);
  b.fill(w, width);
  set_address(b->op.weight, w);
  b.set_step();
  b->bytes_moved = static_cast<uint64_t>(T * width) * 4 * 3;
  if (kind == OpKind::kNorm || kind == OpKind::kHeadNorm)
    b.bound_by_share(b->op.out, T, width, 8 * kU, 0x1p-148);
  if (kind == OpKind::kSiluMul) b.bound_by_share(b->op.out, T, width, kExp + 8 * kU, 0x1p-125);
  for (Bounded& bounded : b->bounded)
    if (!(bounded.bound >= 0) || std::isinf(bounded.bound)) bounded.bound = 0;
  return b.done();
}

Case rope(RopeStyle style) {
  Case made = row_wise(style == RopeStyle::kNeox ? "rope_neox" : "rope_normal", OpKind::kRope, 3,
                       4 * 48, 0);
  made.constants.rope = style;
  return made;
}

Case rope_angles(int64_t first_position) {
  Builder b("rope_angles_" + std::to_string(first_position), OpKind::kRopeAngles, 5);
  const int64_t T = 7, n_rot = 64;
  b.step.n_tokens = T;
  b.step.first_position = first_position;
  b->constants.n_rot = n_rot;
  b->constants.rope_magnitude = 1.25;
  b->op.width = n_rot;
  b->op.out = b.floats(T, n_rot, false);
  const size_t w = b.take(n_rot / 2 * sizeof(double));
  for (int64_t i = 0; i < n_rot / 2; ++i)
    b.at<double>(w)[i] = std::pow(10000.0, -2.0 * static_cast<double>(i) / n_rot);
  set_address(b->op.weight, w);
  b.set_step();
  b.bound_by_share(b->op.out, T, n_rot, 2 * kU, 0);  // one ulp: the card's cos and sin are its own
  return b.done();
}

struct KvShape {
  int64_t heads, kv_heads, head_width;
  KvType type;
  int64_t window;
};

// The pages of two layers, in no order, filled with numbers.  present[i] == '-': the processor does not have page i.
void pages(Builder& b, const KvShape& shape, int64_t n_positions, float special,
           std::string_view present = {}) {
  OperationConstants& c = b->constants;
  c.n_heads = shape.heads;
  c.n_kv_heads = shape.kv_heads;
  c.head_width = shape.head_width;
  c.kv_type = shape.type;
  c.sliding_window = shape.window;
  const int64_t n_pages = (n_positions + kPageTokens - 1) / kPageTokens;
  const size_t group_bytes = 4 * c.kv_page_bytes();
  const size_t table = b.take(static_cast<size_t>(n_pages) * sizeof(std::byte*));
  const size_t groups = b.take(static_cast<size_t>(n_pages) * group_bytes);
  for (int64_t page = 0; page < n_pages; ++page) {
    const size_t entry = table + static_cast<size_t>(page) * sizeof(std::byte*);
    std::memset(b.at<uint64_t>(entry), 0, sizeof(uint64_t));
    if (!present.empty() && present[static_cast<size_t>(page)] == '-') continue;
    b.address(entry, groups + static_cast<size_t>(n_pages - 1 - page) * group_bytes);
  }
  const auto n_rows =
      static_cast<int64_t>(static_cast<size_t>(n_pages) * group_bytes / c.kv_row_bytes());
  const int64_t n_values = n_rows * c.head_width;
  std::vector<float> values(static_cast<size_t>(n_values));
  for (float& value : values) value = b.normal();
  if (special != 0) values[values.size() / 2 + 3] = special;
  if (c.kv_type == KvType::kF16) {
    scalar().store_f16(values.data(), b.at<Half>(groups), n_values);
  } else if (c.kv_type == KvType::kQ8_0) {
    auto* const blocks = b.at<BlockQ8_0>(groups);
    for (int64_t i = 0; i < n_values / 32; ++i) {
      BlockQ8A rounded;
      scalar().quantize_q8a(values.data() + i * 32, &rounded, 32);
      scalar().store_f16(&rounded.d, &blocks[i].d, 1);
      std::copy(std::begin(rounded.qs), std::end(rounded.qs), blocks[i].qs);
    }
  } else {
    std::memcpy(b.at<float>(groups), values.data(), values.size() * 4);
  }
  b.step_address(offsetof(StepInput, pages), table);
  b->op.kv_slot = 1;
}

Case attend(const std::string& name, const KvShape& shape, int64_t T, int64_t first_position,
            float special, bool bounded) {
  Builder b("attend_" + name, OpKind::kAttend, 6);
  const int64_t width = shape.heads * shape.head_width, n_keys = first_position + T;
  b.step.n_tokens = T;
  b.step.first_position = first_position;
  b->op.width = width;
  b->op.in[0] = b.floats(T, width, true);
  b->op.out = b.floats(T, width, false);
  pages(b, shape, n_keys, special);
  b.set_step();
  b->bytes_moved = static_cast<uint64_t>(T * n_keys) * 2 * b->constants.kv_page_bytes() / 64;
  if (!bounded) return b.done();
  // Each weight, and each factor of a merged page, is off by exp's error on both sides; sums have the same order and
  // add their roundings.  An output is a mean of values below 6 in magnitude.
  const double n = static_cast<double>(n_keys), n_pages = n / 64 + 1;
  const double share = 2 * (n_pages + 1) * (kExp + 2 * kU) + 4 * (n + 4) * kU;
  for (int64_t t = 0; t < T; ++t)
    for (int64_t i = 0; i < width; ++i) b.bound(b->op.out, t, i, share * 6);
  return b.done();
}

// Partials of the pages that are present, as many as there are slots for.
Case attend_pages(const std::string& name, const KvShape& shape, int64_t T, int64_t first_position,
                  std::string_view present, int64_t n_slots) {
  Builder b("attend_pages_" + name, OpKind::kAttendPages, 9);
  const int64_t width = shape.heads * shape.head_width;
  const int64_t n_keys = first_position + T;
  const int64_t slot = Partials::slot_floats(shape.heads, shape.head_width);
  b.step.n_tokens = T;
  b.step.first_position = first_position;
  b->op.width = n_slots * slot;
  b->op.in[0] = b.floats(T, width, true);
  b->op.out = b.floats(T, n_slots * slot, false);
  pages(b, shape, n_keys, 0, present);
  b.set_step();
  // Maxima have the bits; sums and values are as far off as in attend(), times the weights that they sum, each at most 1.
  const double n = static_cast<double>(n_keys), n_pages = n / 64 + 1;
  const double share = 2 * (n_pages + 1) * (kExp + 2 * kU) + 4 * (n + 4) * kU;
  const int64_t R = shape.heads / shape.kv_heads;
  for (int64_t t = 0; t < T; ++t) {
    for (int64_t i = 0; i < n_slots * slot; ++i) {
      const int64_t within = i % slot % (R * (2 + shape.head_width));
      if (within < R) continue;
      const double weights = i < slot ? n : 64;
      b.bound(b->op.out, t, i, share * weights * (within < 2 * R ? 1 : 6));
    }
  }
  return b.done();
}

Case store_kv(KvType type, std::string_view present) {
  const int64_t head_width = type == KvType::kQ8_0 ? 32 : 20;
  Builder b((type == KvType::kF16   ? "store_kv_f16"
             : type == KvType::kF32 ? "store_kv_f32"
                                    : "store_kv_q8_0") +
                std::string(present == "+++" ? "" : "_split"),
            OpKind::kStoreKv, 7);
  const int64_t T = 70, width = 3 * head_width;
  b.step.n_tokens = T;
  b.step.first_position = 60;  // over two pages' ends
  b->op.width = width;
  b->op.in[0] = b.floats(T, width, true);
  b->op.in[1] = b.floats(T, width, true);
  float* values = b.at<float>(Builder::offset_of(b->op.in[0], 1));
  const float special[] = {kInfinity,  -kInfinity, 65519.0f,     65520.0f, 0x1p-25f,
                           0x1.8p-25f, -0x1p-14f,  0x1.ffcp-15f, -0.0f};
  std::copy(std::begin(special), std::end(special), values);
  pages(b, {6, 3, head_width, type, 0}, 60 + T, 0, present);
  return b.done();
}

Case route(int64_t T, int64_t X, int64_t U, float special) {
  Builder b("route_X" + std::to_string(X) + "_U" + std::to_string(U) +
                (std::isnan(special) ? "_nan"
                 : special != 0      ? "_infinity"
                                     : ""),
            OpKind::kRoute, 8);
  b.step.n_tokens = T;
  b->constants.n_experts = X;
  b->constants.n_experts_used = U;
  b->op.width = U;
  b->op.in[0] = b.floats(T, X, true);
  b->op.out = b.floats(T, U, false);
  b->op.out2 = b.floats(T, U, false);
  if (special != 0) *b.at<float>(Builder::offset_of(b->op.in[0], 1) + 8) = special;
  if (X >= 8) {  // equal logits: the lower id first
    float* row = b.at<float>(Builder::offset_of(b->op.in[0], 0));
    row[5] = row[2] = row[7] = 9.0f;
  }
  b.set_step();
  // A probability's exp and the two sums it is divided by, on both sides.
  const double share = 2 * (2 * kExp + 2 * (static_cast<double>(X) + 10) * kU);
  b.bound_by_share(b->op.out2, T, U, share, 0);
  for (Bounded& bounded : b->bounded)
    if (!(bounded.bound >= 0)) bounded.bound = 0;
  return b.done();
}

Case list_pairs(int64_t T, int64_t X, int64_t U, bool two) {
  Builder b("list_pairs_T" + std::to_string(T) + "_X" + std::to_string(X) + (two ? "_shared" : ""),
            OpKind::kListPairs, 9);
  b->op.rows = RowSpace::kStep;
  b.step.n_tokens = T;
  b->constants.n_experts = X;
  b->constants.n_experts_used = U;
  const std::vector<int32_t> ids = random_ids(T, X, U, b.random());
  b->op.in[0] = b.rows_of(T, static_cast<size_t>(U) * 4);
  std::copy(ids.begin(), ids.end(), b.at<int32_t>(Builder::offset_of(b->op.in[0], 0)));
  b->op.out = b.rows_of(1, ExpertLists::count(X, T * U) * 4);
  expert_table(b, X, b.take(static_cast<size_t>(X) * 4), 4, two);
  return b.done();
}

Case pairs(std::string name, OpKind kind, int64_t T, bool two) {
  Builder b(std::move(name), kind, 10);
  const int64_t X = 9, U = 3, D = 40;
  b->op.rows = kind == OpKind::kCombine ? RowSpace::kTokens : RowSpace::kPairs;
  const std::vector<int32_t> ids = choose_experts(b, T, X, U, two);
  b->op.in[0] = b.floats(T * U, D, true);
  b->op.in[2] = b.floats(T, U, true);
  b->op.out = b.floats(T * U + 1, D, false);
  b->op.width = D;
  if (kind == OpKind::kCombine && two) {
    b->op.other_rows = b.floats(T * U, D, true);
    b->op.other_lists = lists_of(b, ids, two, true);
  }
  return b.done();
}

Case gather_outputs() {
  Builder b("gather_outputs", OpKind::kGatherOutputs, 11);
  b->op.rows = RowSpace::kOutputs;
  b.step.n_tokens = 9;
  b.step.first_output = 4;
  b.step.n_outputs = 5;
  b->op.width = 40;
  b->op.in[0] = b.floats(9, 40, true);
  b->op.out = b.floats(6, 40, false);
  return b.done();
}

}  // namespace

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  const auto add = [&](Case made) { cases.push_back(std::move(made)); };
  for (const DType type : kTypes) {
    add(embed(type));
    add(checked_matmul(type, 1, 7, 256));
    add(checked_matmul(type, 13, 18, 1280));
    add(checked_matmul(type, 0, 5, 256));
    add(checked_matmul(type, 4, 6, 512, kNaN));
    add(expert_matmul(type, 1, 16, 4, 10, 256, false, true));
    add(expert_matmul(type, 12, 7, 3, 9, 256, true, true));
  }
  add(checked_matmul(DType::kF32, 3, 5, 37));  // no multiple of anything
  add(checked_matmul(DType::kF32, 4, 6, 512, kInfinity));
  for (const float special : {0.0f, kNaN, kInfinity}) {
    const std::string tail = std::isnan(special) ? "_nan" : special != 0 ? "_infinity" : "";
    add(row_wise("norm" + tail, OpKind::kNorm, 3, 608, special));
    add(row_wise("head_norm" + tail, OpKind::kHeadNorm, 3, 608, special));
    add(row_wise("quantize" + tail, OpKind::kQuantize, 3, 608, special));
    add(row_wise("silu_mul" + tail, OpKind::kSiluMul, 3, 608, special));
    add(row_wise("add" + tail, OpKind::kAdd, 3, 608, special));
    add(route(3, 60, 4, special));
    add(attend("special" + tail, {4, 2, 32, KvType::kF32, 0}, 2, 130, special, true));
  }
  add(row_wise("quantize_tiny", OpKind::kQuantize, 2, 32, 0x1p-119f));
  add(row_wise("silu_mul_large", OpKind::kSiluMul, 3, 608, -200.0f));
  add(row_wise("bias", OpKind::kBias, 3, 608, 0));
  add(row_wise("no_rows", OpKind::kAdd, 0, 64, 0));
  add(rope(RopeStyle::kNormal));
  add(rope(RopeStyle::kNeox));
  add(rope_angles(0));
  add(rope_angles(123456));
  add(store_kv(KvType::kF16, "+++"));
  add(store_kv(KvType::kF32, "+++"));
  add(store_kv(KvType::kF16, "+-+"));
  add(store_kv(KvType::kQ8_0, "+++"));
  add(store_kv(KvType::kQ8_0, "+-+"));
  add(attend("blocks", {8, 2, 64, KvType::kQ8_0, 0}, 5, 300, 0, true));
  add(attend_pages("blocks", {8, 2, 128, KvType::kQ8_0, 100}, 3, 300, "+-+++", 3));
  add(attend("first_token", {4, 4, 64, KvType::kF16, 0}, 1, 0, 0, true));
  add(attend("grouped", {8, 2, 128, KvType::kF16, 0}, 5, 300, 0, true));
  add(attend("window", {4, 2, 80, KvType::kF32, 100}, 70, 95, 0, true));
  add(attend_pages("first", {8, 2, 128, KvType::kF16, 0}, 5, 300, "+++--", 1));
  add(attend_pages("last", {4, 2, 64, KvType::kF32, 0}, 3, 300, "---++", 2));
  add(attend_pages("mixed", {8, 2, 64, KvType::kF16, 0}, 2, 440, "+-++-+++", 3));
  add(attend_pages("window", {4, 2, 80, KvType::kF32, 100}, 70, 95, "+-+", 2));
  add(attend("wide", {2, 1, 256, KvType::kF16, 0}, 3, 62, 0, true));
  add(route(5, 8, 8, 0));
  add(route(4, 300, 8, 0));
  add(list_pairs(1, 16, 4, false));
  add(list_pairs(50, 300, 6, false));
  add(list_pairs(50, 300, 6, true));
  add(pairs("gather_pairs", OpKind::kGatherPairs, 6, false));
  add(pairs("gather_pairs_shared", OpKind::kGatherPairs, 6, true));
  add(pairs("combine", OpKind::kCombine, 6, false));
  add(pairs("combine_shared", OpKind::kCombine, 6, true));
  add(gather_outputs());
  return cases;
}

std::vector<Case> timed_cases() {
  std::vector<Case> cases;
  for (const DType type : kTypes) {
    cases.push_back(matmul(type, 1, 4096, 4096));
    cases.push_back(matmul(type, 32, 4096, 4096));
    cases.push_back(expert_matmul(type, 1, 16, 8, 768, 2048, false, false));
  }
  cases.push_back(attend("decode_4096", {32, 8, 128, KvType::kF16, 0}, 1, 4095, 0, false));
  cases.push_back(row_wise("norm_T128", OpKind::kNorm, 128, 4096, 0));
  cases.push_back(row_wise("silu_mul_T128", OpKind::kSiluMul, 128, 4096, 0));
  cases.push_back(row_wise("quantize_T128", OpKind::kQuantize, 128, 4096, 0));
  return cases;
}

}  // namespace tandem::gpu::testing

// Attention cut by pages: whichever side has which page, and however many partials fit, the bits are those of attention by
// one side, and these are attention.
#include "device/host_compute.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "base/progress.h"
#include "kernels_cpu/dispatch.h"

namespace tandem::host {
namespace {

constexpr int64_t kLayers = 2;  // the second is attended to

struct Shape {
  const char* name;
  int64_t n_heads, n_kv_heads, head_width, sliding_window, n_held;
};

using Parameters = std::tuple<Shape, int64_t, KvType, cpu::Isa>;

// A layer's keys, values and queries, and its attention in whole and in parts.
class Layer {
 public:
  Layer(const Shape& shape, int64_t n_tokens, KvType type, const cpu::KernelTable& kernels)
      : kernels_(kernels), n_positions_(shape.n_held + n_tokens) {
    constants_.n_heads = shape.n_heads;
    constants_.n_kv_heads = shape.n_kv_heads;
    constants_.head_width = shape.head_width;
    constants_.sliding_window = shape.sliding_window;
    constants_.kv_type = type;
    scratch_.resize(attend_scratch_floats(constants_));
    const auto n_pages = static_cast<size_t>((n_positions_ + kPageTokens - 1) / kPageTokens);
    groups_.assign(n_pages, std::vector<std::byte>(kLayers * 2 * constants_.kv_page_bytes()));
    for (std::vector<std::byte>& group : groups_) all_.push_back(group.data());
    queries_ = numbers(n_tokens * query_width());
    fill(shape.n_held, n_tokens);
  }

  int64_t n_pages() const { return static_cast<int64_t>(all_.size()); }
  int64_t query_width() const { return constants_.n_heads * constants_.head_width; }
  int64_t n_tokens() const { return step_.n_tokens; }
  int64_t n_heads() const { return constants_.n_heads; }

  std::vector<float> whole() {
    std::vector<float> out(queries_.size());
    run(OpKind::kAttend, all_, {rows_of(queries_)}, rows_of(out));
    return out;
  }

  // Of pages [i] mine[i] is the merging side's, which has n_slots for partials.
  std::vector<float> in_parts(const std::vector<bool>& mine, int64_t n_slots) {
    std::vector<std::byte*> here = all_, there = all_;
    for (size_t i = 0; i < all_.size(); ++i) (mine[i] ? there : here)[i] = nullptr;
    const int64_t slot = Partials::slot_floats(constants_.n_heads, constants_.head_width);
    const auto partials = [&](int64_t slots) {
      return std::vector<float>(static_cast<size_t>(n_tokens() * slots * slot), NAN);
    };
    std::vector<float> own = partials(n_slots), other = partials(n_pages());
    std::vector<float> out(queries_.size());
    run(OpKind::kAttendPages, here, {rows_of(queries_)}, rows_of(own));
    run(OpKind::kAttendPages, there, {rows_of(queries_)}, rows_of(other));
    run(OpKind::kMergePages, here, {rows_of(own), rows_of(other), rows_of(queries_)}, rows_of(out));
    return out;
  }

  // A head's output by definition, in double.
  std::vector<double> expected(int64_t token, int64_t head) const {
    const int64_t E = constants_.head_width, window = constants_.sliding_window;
    const int64_t kv_head = head / (constants_.n_heads / constants_.n_kv_heads);
    const int64_t end = step_.first_position + token + 1;
    std::vector<double> result(static_cast<size_t>(E));
    double sum = 0;
    for (int64_t p = window > 0 ? std::max<int64_t>(0, end - window) : 0; p < end; ++p) {
      double score = 0;
      for (int64_t e = 0; e < E; ++e) {
        const auto at = static_cast<size_t>(token * query_width() + head * E + e);
        score += static_cast<double>(queries_[at]) * stored(0, p, kv_head * E + e);
      }
      const double weight = std::exp(score / std::sqrt(static_cast<double>(E)));
      sum += weight;
      for (int64_t e = 0; e < E; ++e)
        result[static_cast<size_t>(e)] += weight * stored(1, p, kv_head * E + e);
    }
    for (double& x : result) x /= sum;
    return result;
  }

 private:
  std::vector<float> numbers(int64_t n) {
    std::vector<float> result(static_cast<size_t>(n));
    for (float& x : result) x = normal_(random_);
    return result;
  }

  Operand rows_of(std::vector<float>& values) const {
    return {reinterpret_cast<std::byte*>(values.data()),
            values.size() * sizeof(float) / static_cast<size_t>(step_.n_tokens)};
  }

  // Stores every position through kStoreKv.
  void fill(int64_t n_held, int64_t n_tokens) {
    const int64_t width = constants_.n_kv_heads * constants_.head_width;
    keys_ = numbers(n_positions_ * width);
    values_ = numbers(n_positions_ * width);
    step_.n_tokens = n_positions_;
    Operand none;
    run(OpKind::kStoreKv, all_, {rows_of(keys_), rows_of(values_)}, none);
    step_.first_position = n_held;
    step_.n_tokens = n_tokens;
  }

  double stored(int which, int64_t position, int64_t i) const {
    const float x = (which == 0 ? keys_ : values_)[static_cast<size_t>(
        position * constants_.n_kv_heads * constants_.head_width + i)];
    if (constants_.kv_type == KvType::kF32) return static_cast<double>(x);
    if (constants_.kv_type == KvType::kQ8_0) return stored_in_block(which, position, i);
    Half half;
    float back;
    kernels_.store_f16(&x, &half, 1);
    kernels_.dequantize_f16(&half, &back, 1);
    return static_cast<double>(back);
  }

  // What the block of 32 values holds of one.
  double stored_in_block(int which, int64_t position, int64_t i) const {
    const float* const row = (which == 0 ? keys_ : values_).data() +
                             position * constants_.n_kv_heads * constants_.head_width;
    BlockQ8A block;
    Half half;
    float scale;
    kernels_.quantize_q8a(row + i / 32 * 32, &block, 32);
    kernels_.store_f16(&block.d, &half, 1);
    kernels_.dequantize_f16(&half, &scale, 1);
    return static_cast<double>(scale * static_cast<float>(block.qs[i % 32]));
  }

  void run(OpKind kind, const std::vector<std::byte*>& pages, const std::vector<Operand>& in,
           const Operand& out) {
    step_.pages = pages.data();
    Operation op;
    op.kind = kind;
    op.kv_slot = kLayers - 1;
    op.width = query_width();
    for (size_t i = 0; i < in.size(); ++i) op.in[i] = in[i];
    op.out = out;
    op.constants = &constants_;
    op.step = &step_;
    compute(op, kernels_, scratch_.data());
  }

  const cpu::KernelTable& kernels_;
  const int64_t n_positions_;
  std::mt19937 random_{7};
  std::normal_distribution<float> normal_{0, 1};
  OperationConstants constants_;
  StepInput step_;
  std::vector<float> scratch_, queries_, keys_, values_;
  std::vector<std::vector<std::byte>> groups_;
  std::vector<std::byte*> all_;
};

class AttentionInParts : public ::testing::TestWithParam<Parameters> {
 protected:
  void SetUp() override {
    const cpu::KernelTable* kernels = cpu::table_for(std::get<3>(GetParam()));
    if (kernels == nullptr) GTEST_SKIP() << "this machine does not have it";
    layer_ = std::make_unique<Layer>(std::get<0>(GetParam()), std::get<1>(GetParam()),
                                     std::get<2>(GetParam()), *kernels);
  }
  static bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  }
  std::unique_ptr<Layer> layer_;
};

TEST_P(AttentionInParts, IsAttention) {
  std::vector<bool> mine;
  for (int64_t i = 0; i < layer_->n_pages(); ++i) mine.push_back(i % 3 == 1);
  const std::vector<float> out = layer_->in_parts(mine, 1);
  auto given = out.begin();
  for (int64_t t = 0; t < layer_->n_tokens(); ++t) {
    for (int64_t head = 0; head < layer_->n_heads(); ++head) {
      for (const double x : layer_->expected(t, head)) {
        ASSERT_NEAR(x, static_cast<double>(*given++), 1e-5) << "token " << t << ", head " << head;
      }
    }
  }
}

TEST_P(AttentionInParts, HasTheBitsOfTheWholeWhereverPagesLie) {
  const std::vector<float> whole = layer_->whole();
  const auto n_pages = static_cast<size_t>(layer_->n_pages());
  std::mt19937 random(11);
  for (int round = 0; round < 40; ++round) {
    std::vector<bool> mine(n_pages);
    for (size_t i = 0; i < n_pages; ++i) mine[i] = random() % 2 == 0;
    const auto n_slots = static_cast<int64_t>(1 + random() % n_pages);
    EXPECT_TRUE(same_bits(whole, layer_->in_parts(mine, n_slots)))
        << "round " << round << ", " << n_slots << " slots";
  }
}

TEST_P(AttentionInParts, HasTheBitsOfTheWholeForEveryCut) {
  const std::vector<float> whole = layer_->whole();
  for (int64_t cut = 0; cut <= layer_->n_pages(); ++cut) {
    for (const bool first_is_mine : {false, true}) {
      std::vector<bool> mine;
      for (int64_t i = 0; i < layer_->n_pages(); ++i) mine.push_back((i < cut) == first_is_mine);
      EXPECT_TRUE(same_bits(whole, layer_->in_parts(mine, 2))) << "cut before page " << cut;
    }
  }
}

std::string name_of(const ::testing::TestParamInfo<Parameters>& instance) {
  const auto& [shape, n_tokens, type, isa] = instance.param;
  return std::string(shape.name) + "_T" + std::to_string(n_tokens) +
         (type == KvType::kF16   ? "_f16_"
          : type == KvType::kF32 ? "_f32_"
                                 : "_q8_0_") +
         std::string(cpu::name_of(isa));
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, AttentionInParts,
    ::testing::Combine(::testing::Values(Shape{"short", 4, 4, 32, 0, 3},
                                         Shape{"grouped", 8, 2, 64, 0, 500},
                                         Shape{"window", 4, 2, 40, 150, 420},
                                         Shape{"page_window", 4, 1, 32, 64, 320}),
                       ::testing::Values(1, 16), ::testing::Values(KvType::kF16, KvType::kF32),
                       ::testing::Values(cpu::Isa::kScalar, cpu::Isa::kAvx2, cpu::Isa::kAvx512)),
    name_of);
INSTANTIATE_TEST_SUITE_P(
    ShapesOfBlocks, AttentionInParts,
    ::testing::Combine(::testing::Values(Shape{"short", 4, 4, 32, 0, 3},
                                         Shape{"grouped", 8, 2, 64, 0, 500},
                                         Shape{"window", 4, 2, 96, 150, 420}),
                       ::testing::Values(1, 16), ::testing::Values(KvType::kQ8_0),
                       ::testing::Values(cpu::Isa::kScalar, cpu::Isa::kAvx2, cpu::Isa::kAvx512)),
    name_of);

}  // namespace
}  // namespace tandem::host

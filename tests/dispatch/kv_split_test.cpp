// A sequence whose keys and values lie on both sides: whatever the device has room for, and whenever that changes, the bits
// of the results are those of the CPU alone.
#include <atomic>
#include <cstring>
#include <random>
#include <string>
#include <thread>

#include "base/checked.h"
#include "dispatch/hybrid.h"

namespace tandem {
namespace {

using hybrid::Model;
using mirror::MirrorOptions;
using mirror::Order;
using testing::is_ok;

constexpr int64_t kContext = 320;
constexpr uint64_t kPlenty = uint64_t{1} << 30;

// A text.
std::vector<int32_t> ids_of(const Program& program) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < kContext; ++i) {
    ids.push_back((i * 37 + 11) % static_cast<int32_t>(program.shape.n_vocabulary));
  }
  return ids;
}

// The weights of layer l, and its attention, on the device if on_device[l]; all others if all of these are.
Placement placement_of(const Model& model, const std::vector<bool>& on_device) {
  const bool all = std::find(on_device.begin(), on_device.end(), false) == on_device.end();
  Placement placement;
  placement.blocks.assign(model.program.blocks.size(), all ? kOnDevice : kInDram);
  for (const Op& op : model.program.ops) {
    if (op.weight == kNoId || op.layer < 0 || !on_device[static_cast<size_t>(op.layer)]) continue;
    placement.blocks[model.program.weights[op.weight].block] = kOnDevice;
  }
  placement.kv_on_device = on_device;
  placement.cached_layers.assign(on_device.size(), false);
  return placement;
}

Placement all_on_device(const Model& model) {
  return placement_of(model,
                      std::vector<bool>(static_cast<size_t>(model.program.shape.n_layers), true));
}

// What evaluates a model; with no placement, the CPU alone.
class Engine {
 public:
  explicit Engine(Model& model) : model_(model) { create({}); }
  Engine(Model& model, const Placement& placement, const MirrorOptions& options)
      : model_(model), placement_(placement), faulty_(options.faults.copy > 0) {
    auto made = mirror::create_device(options, *cpu::table_for(cpu::best_isa()));
    EXPECT_THAT(made, is_ok());
    device_ = check_order(std::move(made).value());
    Executor::Options executor_options;
    executor_options.device = device_.get();
    executor_options.placement = &placement_;
    executor_options.max_context = kContext;
    create(executor_options);
    fixed_bytes_ = device_->used_bytes();
  }

  std::unique_ptr<SequenceState> sequence(KvType type = KvType::kF16) {
    const ModelShape& s = model_.program.shape;
    auto made = SequenceState::create({s.n_layers, s.n_kv_heads, s.head_width, type}, kContext);
    EXPECT_THAT(made, is_ok());
    executor_->adopt(**made);
    return std::move(made).value();
  }

  ~Engine() {
    if (device_ != nullptr && !faulty_) {
      EXPECT_THAT(device_->check(), is_ok());
    }
  }

  // Room for so many page groups beside what the model takes.
  void make_room(const SequenceState& sequence, int64_t n_pages) {
    const size_t group = sequence.device()->group_bytes();
    device_->set_budget(fixed_bytes_ + static_cast<uint64_t>(n_pages) * align_up(group, 256));
  }
  bool within_budget() const { return device_->used_bytes() <= device_->budget_bytes(); }

  // Evaluates the next n tokens of the model's text; the last one's logits.
  std::vector<float> step(SequenceState& sequence, int64_t n) {
    const Status status = try_step(sequence, n, model_.never);
    EXPECT_THAT(status, is_ok());
    const auto logits = executor_->last_logits();
    return {logits.begin(), logits.end()};
  }
  Status try_step(SequenceState& sequence, int64_t n, const CancelFlag& cancel) {
    const int32_t* next = ids_.data() + sequence.size();
    return executor_->forward({next, static_cast<size_t>(n)}, sequence, true, cancel);
  }

 private:
  void create(Executor::Options options) {
    options.max_tokens = 16;
    options.max_outputs = 4;
    auto created = Executor::create(model_.program, *model_.store, *model_.team,
                                    *cpu::table_for(cpu::best_isa()), options);
    EXPECT_THAT(created, is_ok());
    executor_ = std::move(created).value();
  }

  Model& model_;
  const std::vector<int32_t> ids_ = ids_of(model_.program);
  Placement placement_;
  std::unique_ptr<CheckedDevice> device_;
  std::unique_ptr<Executor> executor_;
  uint64_t fixed_bytes_ = 0;
  bool faulty_ = false;  // a wait that tells of an error counts for none
};

// Prompts' and single tokens' sizes, over five pages and their ends.
std::vector<int64_t> step_sizes() {
  std::vector<int64_t> sizes;
  for (int i = 0; i < 9; ++i) sizes.push_back(i == 4 ? 13 : 16);
  for (int i = 0; i < 20; ++i) sizes.push_back(1);
  for (int i = 0; i < 6; ++i) sizes.push_back(16);
  for (int i = 0; i < 30; ++i) sizes.push_back(1);
  return sizes;  // 287 tokens
}

MirrorOptions mirror_of(uint64_t seed) {
  MirrorOptions options;
  options.memory_bytes = kPlenty;
  options.poison = true;
  options.order = seed % 3 == 0 ? Order::kThreads : seed % 3 == 1 ? Order::kLazy : Order::kRandom;
  options.seed = seed;
  return options;
}

class KvSplitTest : public ::testing::TestWithParam<const char*> {
 protected:
  std::vector<std::vector<float>> expected(KvType type) {
    Engine alone(model_);
    const auto sequence = alone.sequence(type);
    std::vector<std::vector<float>> result;
    for (const int64_t n : step_sizes()) result.push_back(alone.step(*sequence, n));
    return result;
  }
  // Matrices, and tables of experts.
  uint64_t n_copies_of_weights() const {
    uint64_t n = 0;
    for (const BlockSpec& block : model_.program.blocks) n += block.extents.size();
    for (const Op& op : model_.program.ops) n += op.kind == OpKind::kExpertMatmul ? 1 : 0;
    return n;
  }
  Model model_{GetParam()};
};

TEST_P(KvSplitTest, AContextThatExceedsTheDevicesRoomGoesOnWithTheBitsOfTheCpu) {
  for (const KvType type : {KvType::kF16, KvType::kF32}) {
    const std::vector<std::vector<float>> logits = expected(type);
    for (int64_t n_pages = 0; n_pages <= 5; ++n_pages) {
      Engine engine(model_, all_on_device(model_), mirror_of(static_cast<uint64_t>(n_pages)));
      const auto sequence = engine.sequence(type);
      engine.make_room(*sequence, n_pages);
      const std::vector<int64_t> sizes = step_sizes();
      for (size_t i = 0; i < sizes.size(); ++i) {
        ASSERT_EQ(logits[i], engine.step(*sequence, sizes[i])) << n_pages << " pages, step " << i;
        ASSERT_TRUE(engine.within_budget());
      }
      EXPECT_EQ(static_cast<size_t>(n_pages), sequence->device()->pages().size());
    }
  }
}

TEST_P(KvSplitTest, LayersMayBeOnDifferentSides) {
  const std::vector<std::vector<float>> logits = expected(KvType::kF16);
  std::vector<bool> on_device(static_cast<size_t>(model_.program.shape.n_layers), false);
  for (size_t layer = 1; layer < on_device.size(); layer += 2) on_device[layer] = true;
  Engine engine(model_, placement_of(model_, on_device), mirror_of(5));
  const auto sequence = engine.sequence();
  engine.make_room(*sequence, 2);
  const std::vector<int64_t> sizes = step_sizes();
  for (size_t i = 0; i < sizes.size(); ++i) {
    ASSERT_EQ(logits[i], engine.step(*sequence, sizes[i])) << "step " << i;
  }
  EXPECT_EQ(2u, sequence->device()->pages().size());
}

TEST_P(KvSplitTest, ABudgetThatShrinksAndGrowsLeavesTheBitsAlone) {
  const std::vector<std::vector<float>> logits = expected(KvType::kF16);
  const std::vector<int64_t> sizes = step_sizes();
  for (uint64_t seed = 0; seed < 6; ++seed) {
    Engine engine(model_, all_on_device(model_), mirror_of(seed));
    const auto sequence = engine.sequence();
    std::mt19937_64 random(seed);
    for (size_t i = 0; i < sizes.size(); ++i) {
      if (random() % 4 == 0) engine.make_room(*sequence, static_cast<int64_t>(random() % 7));
      ASSERT_EQ(logits[i], engine.step(*sequence, sizes[i])) << "seed " << seed << ", step " << i;
      ASSERT_TRUE(engine.within_budget()) << "seed " << seed << ", step " << i;
    }
  }
}

TEST_P(KvSplitTest, ParkedPagesHaveTheBytesOfTheCpuAndTravelOnce) {
  Engine alone(model_), engine(model_, all_on_device(model_), mirror_of(0));
  const auto expected = alone.sequence(), sequence = engine.sequence();
  engine.make_room(*sequence, 3);
  const auto step = [&](int64_t n) {
    alone.step(*expected, n);
    engine.step(*sequence, n);
  };
  const auto same_bytes = [&] {
    expected->clear_unused();
    sequence->clear_unused();
    return std::memcmp(expected->used().data(), sequence->used().data(), sequence->used().size()) ==
           0;
  };
  DeviceKv& kv = *sequence->device();
  for (int i = 0; i < 6; ++i) step(16);  // a page and a half
  EXPECT_THAT(sequence->park(), is_ok());
  EXPECT_TRUE(same_bytes());
  EXPECT_EQ(2 * kv.group_bytes(), kv.bytes_copied_down());
  EXPECT_THAT(sequence->park(), is_ok());
  EXPECT_EQ(2 * kv.group_bytes(), kv.bytes_copied_down()) << "nothing is new";
  for (int i = 0; i < 6; ++i) step(16);  // three pages
  EXPECT_THAT(sequence->park(), is_ok());
  EXPECT_EQ(4 * kv.group_bytes(), kv.bytes_copied_down())
      << "the second page's rest, and the third";
  for (int i = 0; i < 4; ++i) step(16);  // one more, in DRAM
  EXPECT_THAT(sequence->park(), is_ok());
  EXPECT_EQ(4 * kv.group_bytes(), kv.bytes_copied_down()) << "the fourth is there already";
  EXPECT_TRUE(same_bytes());
  EXPECT_EQ(0u, kv.bytes_copied_up());
}

// So that no token waits for all of them.
TEST_P(KvSplitTest, AfterTheBudgetGrewAFewPagesTravelPerStep) {
  Engine engine(model_, all_on_device(model_), mirror_of(0));
  const auto sequence = engine.sequence();
  DeviceKv& kv = *sequence->device();
  const uint64_t most = static_cast<uint64_t>(DeviceKv::kCopiesPerStep) * kv.group_bytes();
  engine.make_room(*sequence, 0);
  for (int i = 0; i < 18; ++i) engine.step(*sequence, 16);  // four pages and a half
  EXPECT_EQ(0u, kv.bytes_copied_up());
  engine.make_room(*sequence, 5);
  for (uint64_t n_steps = 1; n_steps <= 3; ++n_steps) {
    const uint64_t before = kv.bytes_copied_up();
    engine.step(*sequence, 1);
    EXPECT_EQ(n_steps < 3 ? most : kv.group_bytes(), kv.bytes_copied_up() - before);
  }
  EXPECT_TRUE(kv.holds(sequence->size()));
}

TEST_P(KvSplitTest, WhenTheBudgetShrinksOnlyThePageThatIsBeingFilledTravels) {
  Engine engine(model_, all_on_device(model_), mirror_of(1));
  const auto sequence = engine.sequence();
  DeviceKv& kv = *sequence->device();
  const auto copied_down_by_a_step = [&] {
    const uint64_t before = kv.bytes_copied_down();
    engine.step(*sequence, 1);
    return kv.bytes_copied_down() - before;
  };
  engine.make_room(*sequence, 5);
  for (int i = 0; i < 18; ++i) engine.step(*sequence, 16);  // four pages and a half
  EXPECT_EQ(4 * kv.group_bytes(), kv.bytes_copied_down()) << "while nothing asked for it";
  engine.make_room(*sequence, 0);
  EXPECT_EQ(kv.group_bytes(), copied_down_by_a_step());
  engine.make_room(*sequence, 5);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(0u, copied_down_by_a_step());
  ASSERT_TRUE(kv.holds(sequence->size()));
  engine.make_room(*sequence, 0);
  EXPECT_EQ(kv.group_bytes(), copied_down_by_a_step()) << "what the last page got since";
  EXPECT_EQ(0u, copied_down_by_a_step());
}

// A page that is copied to DRAM by a step that fails is not there for that.
TEST_P(KvSplitTest, PagesThatAFailedStepCopiedToDramAreCopiedAgain) {
  Engine alone(model_), engine(model_, all_on_device(model_), mirror_of(2));
  const auto expected = alone.sequence(), sequence = engine.sequence();
  engine.make_room(*sequence, 3);
  for (int i = 0; i < 4; ++i) {
    alone.step(*expected, 16);
    engine.step(*sequence, 16);
  }
  CancelFlag cancel;
  cancel.cancel();
  EXPECT_EQ(Code::kCancelled, engine.try_step(*sequence, 1, cancel).code());
  EXPECT_EQ(alone.step(*expected, 1), engine.step(*sequence, 1));
  EXPECT_EQ(2 * sequence->device()->group_bytes(), sequence->device()->bytes_copied_down());
  engine.make_room(*sequence, 0);
  EXPECT_EQ(alone.step(*expected, 1), engine.step(*sequence, 1));
}

TEST_P(KvSplitTest, AResumedSequenceGoesOnWithTheBitsOfTheCpu) {
  Engine alone(model_), engine(model_, all_on_device(model_), mirror_of(1));
  const auto expected = alone.sequence(), first = engine.sequence(), second = engine.sequence();
  engine.make_room(*first, 2);
  for (int i = 0; i < 12; ++i) {
    alone.step(*expected, 16);
    engine.step(*first, 16);
  }
  ASSERT_THAT(first->park(), is_ok());
  second->restore(first->used(), first->size());
  for (int i = 0; i < 20; ++i) {
    const std::vector<float> logits = alone.step(*expected, 1);
    ASSERT_EQ(logits, engine.step(*first, 1)) << "step " << i;
    ASSERT_EQ(logits, engine.step(*second, 1)) << "step " << i;
  }
}

TEST_P(KvSplitTest, ATruncatedSequenceGoesOnWithTheBitsOfTheCpu) {
  Engine alone(model_), engine(model_, all_on_device(model_), mirror_of(2));
  const auto expected = alone.sequence(), sequence = engine.sequence();
  engine.make_room(*sequence, 2);
  for (const int64_t n_kept : {int64_t{150}, int64_t{70}, int64_t{3}}) {
    while (sequence->size() < 192) {
      ASSERT_EQ(alone.step(*expected, 1), engine.step(*sequence, 1)) << sequence->size();
    }
    engine.make_room(*sequence, n_kept == 70 ? 1 : 2);
    expected->truncate(n_kept);
    sequence->truncate(n_kept);
  }
  ASSERT_EQ(alone.step(*expected, 16), engine.step(*sequence, 16));
}

// Its pages are taken meanwhile, and given back.
TEST_P(KvSplitTest, ASequenceIsTruncatedBesideTheStepsOfAnother) {
  Engine alone(model_), engine(model_, all_on_device(model_), mirror_of(0));
  const auto expected = alone.sequence(), stepping = engine.sequence(), cut = engine.sequence();
  engine.make_room(*cut, 5);
  for (int i = 0; i < 16; ++i) {
    alone.step(*expected, 16);
    engine.step(*cut, 16);
  }
  std::atomic<bool> done = false;
  std::thread cutter([&] {
    do cut->truncate(190);
    while (!done.load(std::memory_order_relaxed));
  });
  std::vector<std::vector<float>> logits;
  for (int i = 0; i < 16; ++i) {
    engine.make_room(*stepping, i % 4 < 2 ? 5 : i % 4 - 2);
    logits.push_back(engine.step(*stepping, 16));
  }
  done.store(true, std::memory_order_relaxed);
  cutter.join();
  EXPECT_EQ(190, cut->size());
  expected->truncate(190);
  EXPECT_EQ(alone.step(*expected, 1), engine.step(*cut, 1));
  expected->truncate(0);
  for (const std::vector<float>& result : logits) EXPECT_EQ(alone.step(*expected, 16), result);
}

TEST_P(KvSplitTest, SequencesThatTakeTurnsShareTheRoom) {
  Engine alone(model_), engine(model_, all_on_device(model_), mirror_of(3));
  const auto expected = alone.sequence(), a = engine.sequence(), b = engine.sequence();
  engine.make_room(*a, 4);
  for (int i = 0; i < 16; ++i) {
    alone.step(*expected, 16);
    engine.step(*a, 16);
  }
  for (int i = 0; i < 16; ++i) engine.step(*b, 16);
  const uint64_t down = a->device()->bytes_copied_down() + b->device()->bytes_copied_down();
  const uint64_t up = a->device()->bytes_copied_up() + b->device()->bytes_copied_up();
  for (int i = 0; i < 30; ++i) {
    const std::vector<float> logits = alone.step(*expected, 1);
    ASSERT_EQ(logits, engine.step(*a, 1)) << "step " << i;
    ASSERT_EQ(logits, engine.step(*b, 1)) << "step " << i;
  }
  EXPECT_EQ(2u, a->device()->pages().size());
  EXPECT_EQ(2u, b->device()->pages().size());
  EXPECT_EQ(down, a->device()->bytes_copied_down() + b->device()->bytes_copied_down());
  EXPECT_EQ(up, a->device()->bytes_copied_up() + b->device()->bytes_copied_up());
}

TEST_P(KvSplitTest, ASequenceThatIsLeftAloneGivesItsRoomAway) {
  Engine engine(model_, all_on_device(model_), mirror_of(0));
  const auto left = engine.sequence(), used = engine.sequence();
  engine.make_room(*left, 4);
  for (int i = 0; i < 16; ++i) engine.step(*left, 16);
  for (int i = 0; i < 12; ++i) engine.step(*used, 16);
  EXPECT_EQ(2u, left->device()->pages().size());
  while (used->size() < 256) engine.step(*used, 1);
  EXPECT_EQ(0u, left->device()->pages().size());
  EXPECT_EQ(4u, used->device()->pages().size());
}

// The n-th copy fails, whichever it is: that step says so, and the sequence goes on as if it had not been tried.
TEST_P(KvSplitTest, AFailedCopyOfAPageIsNotTakenForThePage) {
  Engine alone(model_);
  const auto expected = alone.sequence();
  std::vector<float> logits;
  for (int i = 0; i < 8; ++i) logits = alone.step(*expected, 16);
  const std::vector<float> next = alone.step(*expected, 1);
  int n_failed = 0;
  for (uint64_t nth = 1; nth < 8; ++nth) {
    MirrorOptions options = mirror_of(0);
    Engine first(model_, all_on_device(model_), options);
    const auto source = first.sequence();
    for (int i = 0; i < 8; ++i) first.step(*source, 16);
    ASSERT_THAT(source->park(), is_ok());
    options.faults.copy = n_copies_of_weights() + nth;
    Engine engine(model_, all_on_device(model_), options);
    const auto sequence = engine.sequence();
    sequence->restore(source->used(), source->size());
    if (!engine.try_step(*sequence, 1, model_.never).ok()) {
      ++n_failed;
      ASSERT_EQ(next, engine.step(*sequence, 1)) << "copy " << nth;
    }
  }
  EXPECT_GT(n_failed, 2);
}

INSTANTIATE_TEST_SUITE_P(Models, KvSplitTest,
                         ::testing::Values("llama-mha", "qwen3moe", "mistral-window"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace tandem

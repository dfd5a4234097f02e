#include "dispatch/placement.h"

#include <algorithm>
#include <functional>

#include "formats/gguf/gguf.h"
#include "golden.h"
#include "model/decoder.h"
#include "status_matchers.h"

namespace tandem {
namespace {

using testing::fails_with;
using ::testing::HasSubstr;
using testing::is_ok;

Program program_of(const std::string& model) {
  auto file = GgufFile::open(testing::golden_model(model));
  EXPECT_THAT(file, is_ok());
  auto program = build_decoder(*file);
  EXPECT_THAT(program, is_ok());
  return std::move(program).value();
}

class PlacementTest : public ::testing::Test {
 protected:
  BlockId block(const std::string& name, const Program& program) {
    for (BlockId b = 0; b < program.blocks.size(); ++b) {
      if (program.blocks[b].name == name) return b;
    }
    ADD_FAILURE() << name;
    return 0;
  }
  BlockPlace place(const std::string& name, const Program& program, const Placement& placement) {
    return placement.blocks[block(name, program)];
  }

  uint64_t bytes_of(const Program& program, const std::string& pattern) {
    uint64_t bytes = 0;
    for (const BlockSpec& spec : program.blocks) {
      if (matches(pattern, spec.name)) bytes += device_bytes(spec);
    }
    return bytes;
  }
  uint64_t experts(const Program& program) { return bytes_of(program, "blk.*.expert.*"); }
  uint64_t dense_layer(const Program& program, int64_t layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    return bytes_of(program, prefix + "*") - bytes_of(program, prefix + "expert.*");
  }
  uint64_t dense_layers(const Program& program) {
    uint64_t bytes = 0;
    for (int64_t l = 0; l < program.shape.n_layers; ++l) bytes += dense_layer(program, l);
    return bytes;
  }
  uint64_t head(const Program& program) { return bytes_of(program, "output*.weight"); }

  DeviceSpace space(uint64_t budget) { return {budget, kWork, kKv}; }

  Placement chosen(const Program& program, uint64_t budget, const PlacementOptions& options = {}) {
    auto placement = choose_placement(program, options, space(budget));
    EXPECT_THAT(placement, is_ok());
    if (!placement.ok()) return {};
    check(program, *placement, budget);
    return *placement;
  }

  // Slots that need none of the room of keys and values, in bytes.  All slots have room in both.
  uint64_t slots_beside_kv(const Placement& placement, uint64_t budget) {
    const uint64_t bytes = placement.expert_slot_bytes;
    if (bytes == 0) return 0;
    const DeviceBytes& all = placement.bytes;
    const uint64_t left = budget - (all.total() - all.expert_slots);
    EXPECT_LE(placement.n_expert_slots * bytes, left + all.kv);
    return std::min(placement.n_expert_slots, left / bytes) * bytes;
  }

  // What holds for every placement.
  void check(const Program& program, const Placement& placement, uint64_t budget) {
    EXPECT_LE(placement.bytes.total(), budget);
    uint64_t weights = 0, largest_streamed = 0;
    bool any = false;
    for (BlockId b = 0; b < program.blocks.size(); ++b) {
      const BlockPlace& p = placement.blocks[b];
      EXPECT_FALSE(p.tier == Tier::kDevice && !p.on_device());
      if (p.tier == Tier::kDevice) weights += device_bytes(program.blocks[b]);
      if (p.streamed())
        largest_streamed = std::max(largest_streamed, device_bytes(program.blocks[b]));
      any = any || p.on_device();
    }
    const auto n_kv = static_cast<uint64_t>(
        std::count(placement.kv_on_device.begin(), placement.kv_on_device.end(), true));
    const DeviceBytes bytes{weights, n_kv * kKv, slots_beside_kv(placement, budget),
                            2 * largest_streamed, any ? kWork : 0};
    EXPECT_EQ(placement.bytes, bytes);
    EXPECT_EQ(placement.stream_buffer_bytes, largest_streamed);
    const std::vector<Processor> processors = processors_of(program, placement);
    ASSERT_EQ(processors.size(), program.ops.size());
    for (size_t i = 0; i < processors.size(); ++i) {
      const Op& op = program.ops[i];
      if (op.kind != OpKind::kMatmul && op.kind != OpKind::kBias && op.kind != OpKind::kHeadNorm) {
        continue;
      }
      EXPECT_EQ(processors[i], placement.blocks[program.weights[op.weight].block].processor) << i;
    }
  }

  // Reads what to_json() wrote under options that would choose something else.
  void expect_reads_back(const Program& program, const Placement& placement, uint64_t budget) {
    const std::string text = to_json(program, placement);
    auto file = read_place_file(text);
    ASSERT_THAT(file, is_ok());
    for (PlacementOptions other :
         {PlacementOptions{}, PlacementOptions{.gpu_layers = 0},
          PlacementOptions{.cpu_experts = kAllLayers, .expert_cache = false}}) {
      other.file = *file;
      auto again = choose_placement(program, other, space(budget));
      ASSERT_THAT(again, is_ok()) << text;
      EXPECT_EQ(again->blocks, placement.blocks) << text;
      EXPECT_EQ(again->kv_on_device, placement.kv_on_device);
      EXPECT_EQ(again->n_expert_slots, placement.n_expert_slots);
      EXPECT_EQ(again->expert_slot_bytes, placement.expert_slot_bytes);
      EXPECT_EQ(again->cached_layers, placement.cached_layers);
      EXPECT_EQ(again->bytes, placement.bytes);
    }
  }

  Status refusal(const Program& program, const PlacementOptions& options, uint64_t budget) {
    return choose_placement(program, options, space(budget)).status();
  }
  PlacementOptions with_rules(std::vector<PlaceRule> rules) {
    PlacementOptions options;
    options.file.rules = std::move(rules);
    return options;
  }

  static constexpr uint64_t kWork = 10000, kKv = 20000, kPlenty = uint64_t{1} << 40;
  const Program dense_ = program_of("llama-mha");
  const Program tied_ = program_of("qwen2-tied");
  const Program moe_ = program_of("qwen3moe");
};

TEST_F(PlacementTest, AModelThatFitsIsWhollyOnTheDevice) {
  for (const Program* program : {&dense_, &tied_, &moe_}) {
    const Placement p = chosen(*program, kPlenty);
    for (BlockId b = 0; b < program->blocks.size(); ++b) {
      const bool host = program->blocks[b].name == "token_embd.weight" && program != &tied_;
      EXPECT_EQ(p.blocks[b], host ? kInDram : kOnDevice) << program->blocks[b].name;
    }
    EXPECT_EQ(p.bytes.kv, kKv * static_cast<uint64_t>(program->shape.n_layers));
    EXPECT_EQ(p.n_expert_slots, 0u);
    EXPECT_THAT(p.notes, ::testing::IsEmpty());
    const std::vector<Processor> processors = processors_of(*program, p);
    for (size_t i = 0; i < processors.size(); ++i) {
      const OpKind kind = program->ops[i].kind;
      const bool cpu = kind == OpKind::kEmbed || kind == OpKind::kRopeAngles;
      EXPECT_EQ(processors[i], cpu ? Processor::kCpu : Processor::kDevice) << i;
    }
  }
}

TEST_F(PlacementTest, ExactlyAsManyBytesAsAreNeededSuffice) {
  const uint64_t needed = chosen(moe_, kPlenty).bytes.total();
  EXPECT_EQ(chosen(moe_, needed).bytes.total(), needed);
  EXPECT_THAT(chosen(moe_, needed).notes, ::testing::IsEmpty());
  EXPECT_LT(chosen(moe_, needed - 1).bytes.total(), needed);
}

TEST_F(PlacementTest, LayersAreTakenFromTheLastOne) {
  const int64_t last = dense_.shape.n_layers - 1;
  const Placement p = chosen(dense_, kWork + dense_layer(dense_, last));
  EXPECT_EQ(place("blk." + std::to_string(last) + ".attn_q.weight", dense_, p), kOnDevice);
  EXPECT_EQ(place("blk.0.attn_q.weight", dense_, p), kInDram);
  EXPECT_EQ(place("output.weight", dense_, p), kInDram);
  EXPECT_EQ(p.bytes.kv, 0u);
  EXPECT_THAT(p.notes, ::testing::Contains(HasSubstr("the first")));
}

TEST_F(PlacementTest, DensePartsComeBeforeTheHeadAndThatBeforeKeysAndValues) {
  const uint64_t layers = kWork + dense_layers(moe_);
  const Placement no_head = chosen(moe_, layers);
  EXPECT_EQ(place("blk.0.attn_q.weight", moe_, no_head), kOnDevice);
  EXPECT_EQ(place("output.weight", moe_, no_head), kInDram);
  const Placement no_kv = chosen(moe_, layers + head(moe_));
  EXPECT_EQ(place("output.weight", moe_, no_kv), kOnDevice);
  EXPECT_EQ(no_kv.bytes.kv, 0u);
  const Placement one_kv = chosen(moe_, layers + head(moe_) + kKv);
  EXPECT_TRUE(one_kv.kv_on_device.back());
  EXPECT_FALSE(one_kv.kv_on_device.front());
  EXPECT_EQ(one_kv.bytes.expert_slots, 0u);
}

TEST_F(PlacementTest, OfAContextThatDoesNotFitEveryLayersFirstPagesDo) {
  const auto n_layers = static_cast<uint64_t>(moe_.shape.n_layers);
  constexpr uint64_t kPage = kKv / 20;
  DeviceSpace room = space(kWork + dense_layers(moe_) + head(moe_) + n_layers * 7 * kPage + 1);
  room.kv_page_bytes = kPage;
  const auto p = choose_placement(moe_, {}, room);
  ASSERT_THAT(p, is_ok());
  EXPECT_EQ(p->kv_on_device, std::vector<bool>(n_layers, true));
  EXPECT_EQ(p->bytes.kv, n_layers * 7 * kPage);
  EXPECT_LE(p->bytes.total(), room.budget_bytes);
  EXPECT_THAT(p->notes, ::testing::Contains(HasSubstr("first 448 tokens")));
  const auto file = read_place_file(to_json(moe_, *p));
  ASSERT_THAT(file, is_ok());
  const auto again = choose_placement(moe_, {.file = *file}, room);
  ASSERT_THAT(again, is_ok());
  EXPECT_EQ(again->kv_on_device, p->kv_on_device);
  EXPECT_EQ(again->bytes, p->bytes);
  room.budget_bytes = kWork + dense_layers(moe_) + head(moe_) + kKv;
  room.kv_page_bytes = kKv / 4;
  const auto whole = choose_placement(moe_, {}, room);
  ASSERT_THAT(whole, is_ok());
  EXPECT_TRUE(whole->kv_on_device.back());
  EXPECT_FALSE(whole->kv_on_device.front());
}

TEST_F(PlacementTest, WhatIsLeftBecomesSlotsOfTheLargestExpert) {
  const uint64_t before =
      kWork + dense_layers(moe_) + head(moe_) + kKv * static_cast<uint64_t>(moe_.shape.n_layers);
  const uint64_t expert = device_bytes(moe_.blocks[block("blk.0.expert.0", moe_)]);
  const Placement p = chosen(moe_, before + 3 * expert + expert - 1);
  EXPECT_EQ(p.bytes.expert_slots, 3 * expert);
  EXPECT_EQ(p.expert_slot_bytes, expert);
  EXPECT_EQ(p.cached_layers, std::vector<bool>(static_cast<size_t>(moe_.shape.n_layers), true));
  EXPECT_EQ(place("blk.0.expert.0", moe_, p), kInDram);
}

// They make way when the context grows.
TEST_F(PlacementTest, SlotsAlsoUseTheRoomOfAContextThatIsNotThereYet) {
  const uint64_t kv = kKv * static_cast<uint64_t>(moe_.shape.n_layers);
  const uint64_t before = kWork + dense_layers(moe_) + head(moe_) + kv;
  const uint64_t expert = device_bytes(moe_.blocks[block("blk.0.expert.0", moe_)]);
  const auto all = static_cast<uint64_t>(moe_.shape.n_layers * moe_.shape.n_experts);
  const Placement p = chosen(moe_, before + expert);
  EXPECT_EQ(p.bytes.kv, kv) << "the context has room";
  EXPECT_EQ(p.n_expert_slots, std::min(1 + kv / expert, all));
  EXPECT_GT(p.n_expert_slots, 1u);
  expect_reads_back(moe_, p, before + expert);
  PlacementOptions more = with_rules({{"*", kOnDevice}, {"blk.*.expert.*", kInDram}});
  more.file.kv_layers.emplace();
  for (int64_t layer = 0; layer < moe_.shape.n_layers; ++layer)
    more.file.kv_layers->push_back(layer);
  more.file.expert_slots = 1 + kv / expert;
  EXPECT_EQ(chosen(moe_, before + expert, more).n_expert_slots, p.n_expert_slots);
  EXPECT_THAT(refusal(moe_, more, before - kv + (1 + kv / expert) * expert - 1),
              fails_with(Code::kOutOfMemory, HasSubstr("")));
}

TEST_F(PlacementTest, WithoutTheCacheWholeLayersOfExpertsStay) {
  const uint64_t before =
      kWork + dense_layers(moe_) + head(moe_) + kKv * static_cast<uint64_t>(moe_.shape.n_layers);
  const uint64_t one_layer = bytes_of(moe_, "blk.0.expert.*");
  const Placement p = chosen(moe_, before + one_layer, {.expert_cache = false});
  const std::string last = std::to_string(moe_.shape.n_layers - 1);
  EXPECT_EQ(place("blk." + last + ".expert.0", moe_, p), kOnDevice);
  EXPECT_EQ(place("blk.0.expert.0", moe_, p), kInDram);
  EXPECT_EQ(p.n_expert_slots, 0u);
}

TEST_F(PlacementTest, CpuExpertsKeepTheFirstLayersExpertsInDram) {
  const Placement p = chosen(moe_, kPlenty, {.cpu_experts = 1, .expert_cache = false});
  EXPECT_EQ(place("blk.0.expert.0", moe_, p), kInDram);
  EXPECT_EQ(place("blk.1.expert.0", moe_, p), kOnDevice);
  const Placement all = chosen(moe_, kPlenty, {.cpu_experts = kAllLayers});
  EXPECT_EQ(place("blk.1.expert.0", moe_, all), kInDram);
  // No more slots than experts that could lie in them.
  EXPECT_EQ(all.n_expert_slots, static_cast<uint64_t>(moe_.shape.n_layers * moe_.shape.n_experts));
}

TEST_F(PlacementTest, WantedLayersAreWhole) {
  const Placement p = chosen(moe_, kPlenty, {.gpu_layers = 1});
  const std::string last = "blk." + std::to_string(moe_.shape.n_layers - 1);
  EXPECT_EQ(place(last + ".attn_q.weight", moe_, p), kOnDevice);
  EXPECT_EQ(place(last + ".expert.1", moe_, p), kOnDevice);
  EXPECT_TRUE(p.kv_on_device.back());
  EXPECT_EQ(place("blk.0.attn_q.weight", moe_, p), kInDram);
  EXPECT_EQ(place("output.weight", moe_, p), kOnDevice);
}

TEST_F(PlacementTest, NoLayersMeansTheDeviceIsNotTouched) {
  const Placement p = chosen(moe_, kPlenty, {.gpu_layers = 0});
  EXPECT_FALSE(p.uses_device());
  EXPECT_EQ(p.blocks, std::vector<BlockPlace>(moe_.blocks.size(), kInDram));
  for (Processor processor : processors_of(moe_, p)) EXPECT_EQ(processor, Processor::kCpu);
}

TEST_F(PlacementTest, WantingTooMuchIsRefusedWithTheNumbersAndWhatFits) {
  const uint64_t all = chosen(dense_, kPlenty, {.gpu_layers = kAllLayers}).bytes.total();
  const Status status = refusal(dense_, {.gpu_layers = kAllLayers}, all - 1);
  EXPECT_THAT(status, fails_with(Code::kOutOfMemory, HasSubstr("--gpu-layers all")));
  EXPECT_EQ(status.bytes_needed(), all);
  EXPECT_EQ(status.bytes_available(), all - 1);
  const int64_t n = dense_.shape.n_layers;
  EXPECT_THAT(status.suggestion(), HasSubstr("--gpu-layers " + std::to_string(n)));
  // What is suggested fits, one more does not.
  const uint64_t one = chosen(dense_, kPlenty, {.gpu_layers = 1}).bytes.total() - head(dense_);
  const Status two = refusal(dense_, {.gpu_layers = 2}, one);
  EXPECT_THAT(two.suggestion(), HasSubstr("--gpu-layers 1,"));
  chosen(dense_, one, {.gpu_layers = 1});
  EXPECT_THAT(refusal(dense_, {.gpu_layers = 1}, one - 1).suggestion(), HasSubstr("not one layer"));
}

TEST_F(PlacementTest, LayersAreStreamedWhereNoneStays) {
  uint64_t largest = 0, vectors = 0;
  for (const Weight& weight : dense_.weights) {
    const std::string& name = dense_.blocks[weight.block].name;
    if (!name.starts_with("blk.")) continue;
    const uint64_t bytes = device_bytes(dense_.blocks[weight.block]);
    if (weight.rows == 1) vectors += bytes;
    if (weight.rows > 1) largest = std::max(largest, bytes);
  }
  const uint64_t budget = kWork + vectors + 2 * largest;
  ASSERT_LT(budget - kWork, dense_layer(dense_, 0)) << "the fixture no longer shows this";
  const Placement p = chosen(dense_, budget);
  EXPECT_EQ(place("blk.0.attn_q.weight", dense_, p), kStreamed);
  EXPECT_EQ(place("blk.0.attn_norm.weight", dense_, p), kOnDevice);
  EXPECT_THAT(p.notes, ::testing::Contains(HasSubstr("streamed")));
  expect_reads_back(dense_, p, budget);
  const Placement none = chosen(dense_, budget - 1);
  EXPECT_FALSE(none.uses_device());
  EXPECT_THAT(none.notes, ::testing::Contains(HasSubstr("the device is not used")));
}

TEST_F(PlacementTest, EveryBudgetIsKeptAndReadsBackTheSame) {
  for (const Program* program : {&dense_, &tied_, &moe_}) {
    const uint64_t whole = chosen(*program, kPlenty).bytes.total();
    for (uint64_t i = 0; i <= 40; ++i) {
      const uint64_t budget = whole * i / 40;
      for (const bool cache : {true, false}) {
        const Placement p = chosen(*program, budget, {.expert_cache = cache});
        expect_reads_back(*program, p, budget);
      }
    }
  }
}

// ---- operations ----

TEST_F(PlacementTest, OperationsWithoutWeightsStayBesideThoseTheyBelongTo) {
  // Dense parts on the device, keys and values not, experts on both sides.
  PlacementOptions options = with_rules({{"*", kOnDevice}, {"blk.*.expert.1", kInDram}});
  options.file.kv_layers.emplace();
  options.file.expert_slots = 0;
  const Placement p = chosen(moe_, kPlenty, options);
  const std::vector<Processor> processors = processors_of(moe_, p);
  for (size_t i = 0; i < processors.size(); ++i) {
    Processor expected = Processor::kDevice;
    switch (moe_.ops[i].kind) {
      case OpKind::kEmbed:
      case OpKind::kRopeAngles:
      case OpKind::kStoreKv:
      case OpKind::kAttend:
        expected = Processor::kCpu;
        break;
      case OpKind::kListPairs:
      case OpKind::kGatherPairs:
      case OpKind::kExpertMatmul:
      case OpKind::kSiluMul:
        expected = Processor::kBoth;
        break;
      default:
        break;
    }
    EXPECT_EQ(processors[i], expected) << i << " kind " << static_cast<int>(moe_.ops[i].kind);
  }
}

TEST_F(PlacementTest, CachedExpertsAreComputedOnBothSidesAndSummedBesideTheRouter) {
  const Placement p = chosen(moe_, kPlenty, {.cpu_experts = kAllLayers});
  const std::vector<Processor> processors = processors_of(moe_, p);
  for (size_t i = 0; i < processors.size(); ++i) {
    if (moe_.ops[i].kind == OpKind::kExpertMatmul) {
      EXPECT_EQ(processors[i], Processor::kBoth);
    }
    if (moe_.ops[i].kind == OpKind::kCombine) {
      EXPECT_EQ(processors[i], Processor::kDevice);
    }
  }
  const Placement uncached =
      chosen(moe_, kPlenty, {.cpu_experts = kAllLayers, .expert_cache = false});
  const std::vector<Processor> without = processors_of(moe_, uncached);
  for (size_t i = 0; i < without.size(); ++i) {
    if (moe_.ops[i].kind == OpKind::kCombine) {
      EXPECT_EQ(without[i], Processor::kCpu);
    }
    if (moe_.ops[i].kind == OpKind::kAdd) {
      EXPECT_EQ(without[i], Processor::kDevice);
    }
  }
}

// ---- place files ----

TEST_F(PlacementTest, LaterRulesWin) {
  const Placement p = chosen(
      dense_, kPlenty,
      with_rules({{"*", kInDram}, {"blk.1.*", kOnDevice}, {"blk.1.ffn_up.weight", kStreamed}}));
  EXPECT_EQ(place("blk.0.attn_q.weight", dense_, p), kInDram);
  EXPECT_EQ(place("blk.1.attn_q.weight", dense_, p), kOnDevice);
  EXPECT_EQ(place("blk.1.ffn_up.weight", dense_, p), kStreamed);
  EXPECT_EQ(place("output.weight", dense_, p), kInDram);
}

TEST_F(PlacementTest, BlocksThatTheFileLeavesOpenAreChosen) {
  const Placement p = chosen(dense_, kPlenty, with_rules({{"blk.0.ffn_*", kInDram}}));
  EXPECT_EQ(place("blk.0.ffn_up.weight", dense_, p), kInDram);
  EXPECT_EQ(place("blk.0.attn_q.weight", dense_, p), kOnDevice);
}

TEST_F(PlacementTest, AttentionProjectionsAgreeOrAreRefused) {
  const Placement p = chosen(tied_, kPlenty, with_rules({{"blk.0.attn_k.weight", kInDram}}));
  for (const char* name : {"blk.0.attn_q.weight", "blk.0.attn_v.weight", "blk.0.attn_output.weight",
                           "blk.0.attn_q.bias"}) {
    EXPECT_EQ(place(name, tied_, p), kInDram) << name;
  }
  EXPECT_FALSE(p.kv_on_device[0]);
  EXPECT_THAT(
      refusal(tied_,
              with_rules({{"blk.0.attn_k.weight", kInDram}, {"blk.0.attn_v.weight", kOnDevice}}),
              kPlenty),
      fails_with(Code::kInvalidArgument,
                 ::testing::AllOf(HasSubstr("attn_k.weight"), HasSubstr("attn_v.weight"))));
  EXPECT_THAT(refusal(tied_, with_rules({{"blk.0.attn_q.bias", kInDram}}), kPlenty),
              fails_with(Code::kInvalidArgument, HasSubstr("attn_q.bias")));
}

TEST_F(PlacementTest, RulesThatNothingCanFollowAreRefused) {
  EXPECT_THAT(refusal(dense_, with_rules({{"*", kInDram}, {"blk.99.*", kInDram}}), kPlenty),
              fails_with(Code::kInvalidArgument, HasSubstr("blocks[1].match: \"blk.99.*\"")));
  EXPECT_THAT(refusal(dense_, with_rules({{"token_embd.weight", kOnDevice}}), kPlenty),
              fails_with(Code::kInvalidArgument, HasSubstr("the CPU alone reads")));
  EXPECT_THAT(refusal(moe_, with_rules({{"blk.0.expert.3", kStreamed}}), kPlenty),
              fails_with(Code::kInvalidArgument, HasSubstr("blk.0.expert.3")));
  EXPECT_THAT(refusal(dense_, with_rules({{"*", kOnDevice}}), kWork),
              fails_with(Code::kOutOfMemory, HasSubstr("place file")));
  PlacementOptions kv = with_rules({{"blk.0.*", kInDram}});
  kv.file.kv_layers = {{0}};
  EXPECT_THAT(refusal(dense_, kv, kPlenty),
              fails_with(Code::kInvalidArgument, HasSubstr("layer 0")));
  kv.file.kv_layers = {{500}};
  EXPECT_THAT(refusal(dense_, kv, kPlenty), fails_with(Code::kInvalidArgument, HasSubstr("500")));
  PlacementOptions slots = with_rules({{"*", kInDram}});
  slots.file.expert_slots = 4;
  EXPECT_THAT(refusal(moe_, slots, kPlenty),
              fails_with(Code::kInvalidArgument, HasSubstr("expert_slots")));
}

TEST_F(PlacementTest, WrittenFilesArePatternsWhereTheyCanBe) {
  const Placement p = chosen(moe_, kPlenty, {.cpu_experts = kAllLayers});
  auto file = read_place_file(to_json(moe_, p));
  ASSERT_THAT(file, is_ok());
  EXPECT_LE(file->rules.size(), 4u);
  // Anything goes, though: every second expert.
  PlacementOptions odd = with_rules({{"*", kOnDevice}});
  for (int e = 0; e < moe_.shape.n_experts; e += 2) {
    odd.file.rules.push_back({"blk.0.expert." + std::to_string(e), kInDram});
  }
  expect_reads_back(moe_, chosen(moe_, kPlenty, odd), kPlenty);
}

std::string file_with(const std::string& rule) {
  return R"({"version": 1, "blocks": [)" + rule + "]}";
}

TEST(PlaceFile, IsReadWithItsRulesInOrder) {
  auto file = read_place_file(
      R"({"version": 1, "blocks": [{"match": "a*", "tier": "dram", "processor": "cpu"},
          {"match": "b?", "tier": "dram", "processor": "device"},
          {"match": "c", "tier": "device", "processor": "device"}], "kv_layers": [0, 3], "expert_slots": 7})");
  ASSERT_THAT(file, is_ok());
  ASSERT_EQ(file->rules.size(), 3u);
  EXPECT_EQ(file->rules[0].place, kInDram);
  EXPECT_EQ(file->rules[1].place, kStreamed);
  EXPECT_EQ(file->rules[2].place, kOnDevice);
  EXPECT_EQ(file->rules[1].match, "b?");
  EXPECT_EQ(*file->kv_layers, (std::vector<int64_t>{0, 3}));
  EXPECT_EQ(*file->expert_slots, 7u);
}

TEST(PlaceFile, TheExampleInTheDocumentationIsOne) {
  std::ifstream page(TANDEM_SOURCE_DIR "/docs/place-file.md");
  std::string example;
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with("    ")) example += line + "\n";
  }
  auto file = read_place_file(example);
  ASSERT_THAT(file, is_ok()) << example;
  EXPECT_EQ(file->rules.size(), 3u);
}

TEST(PlaceFile, HostileTextIsRefusedByName) {
  const std::string rest = R"("tier": "dram", "processor": "cpu"})";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "not JSON at byte 0"},
      {"[]", "the whole: expected an object"},
      {"{}", "version: expected 1"},
      {R"({"version": "1", "blocks": []})", "version: expected 1, found \"1\""},
      {R"({"version": 2, "blocks": []})", "version 2"},
      {R"({"version": 1})", "blocks: expected a list"},
      {R"({"version": 1, "blocks": [], "block": 1})", "unknown key \"block\""},
      {R"({"version": 1, "version": 1, "blocks": []})", "\"version\" stands twice"},
      {file_with("3"), "blocks[0]: expected an object"},
      {file_with(R"({"match": "a", "tier": "dram", "processor": "cpu", "x": 1})"),
       "blocks[0]: unknown key \"x\""},
      {file_with("{" + rest), "blocks[0].match: expected a text"},
      {file_with(R"({"match": "", )" + rest), "blocks[0].match"},
      {file_with(R"({"match": ")" + std::string(129, 'a') + "\", " + rest), "blocks[0].match"},
      {file_with(R"({"match": "a", "processor": "cpu"})"), "blocks[0].tier: expected \"dram\""},
      {file_with(R"({"match": "a", "tier": "vram", "processor": "cpu"})"), "blocks[0].tier"},
      {file_with(R"({"match": "a", "tier": "dram", "processor": 1})"), "blocks[0].processor"},
      {file_with(R"({"match": "a", "tier": "device", "processor": "cpu"})"), "does not compute"},
      {R"({"version": 1, "blocks": [], "kv_layers": [1, 1]})", "kv_layers[1]"},
      {R"({"version": 1, "blocks": [], "kv_layers": [-1]})", "kv_layers[0]"},
      {R"({"version": 1, "blocks": [], "kv_layers": [1024]})", "kv_layers[0]"},
      {R"({"version": 1, "blocks": [], "expert_slots": 18446744073709551615})", "expert_slots"},
      {R"({"version": 1, "blocks": [], "expert_slots": 1e999})", "number"},
      {R"({"version": 1, "blocks": [[[[[[1]]]]]]})", "nested deeper"},
      {std::string(100000, '['), "nested deeper"},
      {std::string((8 << 20) + 1, ' '), "are read"},
  };
  for (const auto& [text, message] : cases) {
    EXPECT_THAT(read_place_file(text).status().message(), HasSubstr(message))
        << text.substr(0, 200);
  }
}

TEST(PlaceFile, EveryPrefixIsRefused) {
  const std::string whole = file_with(R"({"match": "a*", "tier": "dram", "processor": "cpu"})");
  ASSERT_THAT(read_place_file(whole), is_ok());
  for (size_t n = 0; n < whole.size(); ++n) {
    const std::vector<char> exact(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(n));
    EXPECT_FALSE(read_place_file({exact.data(), n}).ok()) << n;
  }
}

// The definition, word by word.
bool slow_matches(std::string_view pattern, std::string_view name) {
  if (pattern.empty()) return name.empty();
  if (pattern[0] == '*') {
    return slow_matches(pattern.substr(1), name) ||
           (!name.empty() && slow_matches(pattern, name.substr(1)));
  }
  return !name.empty() && (pattern[0] == '?' || pattern[0] == name[0]) &&
         slow_matches(pattern.substr(1), name.substr(1));
}

TEST(PlacePatterns, MatchAsDefined) {
  const std::string letters = "ab*?";
  const auto for_all = [](const std::string& alphabet, size_t length,
                          const std::function<void(const std::string&)>& use) {
    size_t count = 1;
    for (size_t i = 0; i < length; ++i) count *= alphabet.size();
    for (size_t n = 0; n < count; ++n) {
      std::string text;
      for (size_t i = 0, rest = n; i < length; ++i, rest /= alphabet.size()) {
        text += alphabet[rest % alphabet.size()];
      }
      use(text);
    }
  };
  for (size_t p = 0; p <= 4; ++p) {
    for_all(letters, p, [&](const std::string& pattern) {
      for (size_t n = 0; n <= 5; ++n) {
        for_all("ab", n, [&](const std::string& name) {
          ASSERT_EQ(matches(pattern, name), slow_matches(pattern, name)) << pattern << " " << name;
        });
      }
    });
  }
}

}  // namespace
}  // namespace tandem

#include "dispatch/expert_chooser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "dispatch/hybrid.h"

namespace tandem {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class ExpertChooserTest : public ::testing::Test {
 protected:
  // Slots of an expert that the device has.
  std::vector<int32_t> slots_with(std::initializer_list<int32_t> experts) const {
    std::vector<int32_t> slots(static_cast<size_t>(model_.program.shape.n_experts), -1);
    for (const int32_t expert : experts) slots[static_cast<size_t>(expert)] = expert;
    return slots;
  }

  hybrid::Model model_{"qwen3moe"};
  // Two experts for each of four tokens: expert 1 four times, 2 twice, 3 and 5 once.
  const std::vector<int32_t> ids_ = {1, 2, 1, 2, 1, 3, 1, 5};
};

TEST_F(ExpertChooserTest, WithoutAPredictorFetchesAllThatIsLackingTheMostUsedFirst) {
  ExpertChooser chooser(model_.program, 16, nullptr);
  const auto choice = chooser.choose(0, ids_, slots_with({2, 7}));
  EXPECT_THAT(choice.fetched, ElementsAre(1, 3, 5));
  EXPECT_THAT(choice.left, IsEmpty());
}

TEST_F(ExpertChooserTest, LeavesEverythingToTheCpuWhenTheDeviceIsVerySlow) {
  const Predictor predictor(hybrid::rates(1e-6, 1e12));
  ExpertChooser chooser(model_.program, 16, &predictor);
  const auto choice = chooser.choose(0, ids_, slots_with({2}));
  EXPECT_THAT(choice.fetched, IsEmpty());
  EXPECT_THAT(choice.left, ElementsAre(2));
}

TEST_F(ExpertChooserTest, FetchesWhenDeviceAndLinkAreFast) {
  const Predictor predictor(hybrid::rates(1e6, 1e15));
  ExpertChooser chooser(model_.program, 16, &predictor);
  const auto choice = chooser.choose(0, ids_, slots_with({}));
  EXPECT_FALSE(choice.fetched.empty());
  EXPECT_EQ(choice.fetched.front(), 1) << "the heaviest goes first";
}

TEST_F(ExpertChooserTest, FetchesNothingOverASlowLink) {
  const Predictor predictor(hybrid::rates(1e6, 1e3));
  ExpertChooser chooser(model_.program, 16, &predictor);
  const auto choice = chooser.choose(0, ids_, slots_with({1, 2}));
  EXPECT_THAT(choice.fetched, IsEmpty());
  EXPECT_THAT(choice.left, IsEmpty());
}

TEST_F(ExpertChooserTest, ForgetsWhatItWasAskedBefore) {
  ExpertChooser chooser(model_.program, 16, nullptr);
  chooser.choose(0, ids_, slots_with({}));
  const auto choice = chooser.choose(1, {ids_.data() + 6, 2}, slots_with({}));
  EXPECT_THAT(choice.fetched, UnorderedElementsAre(1, 5));
}

}  // namespace
}  // namespace tandem

#include "dispatch/weight_copier.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "device/mirror/mirror_device.h"
#include "kernels_cpu/dispatch.h"
#include "status_matchers.h"

namespace tandem {
namespace {

using testing::fails_with;
using ::testing::HasSubstr;
using testing::is_ok;

class WeightCopierTest : public ::testing::Test {
 protected:
  static constexpr size_t kBytes = size_t{3} << 20;

  // Of 256 KiB pieces: what 5 MB/s pass in 50 ms.
  void SetUp() override {
    mirror::MirrorOptions options;
    options.link_gb_per_s = 0.005;
    auto made = mirror::create_device(options, *cpu::table_for(cpu::best_isa()));
    ASSERT_THAT(made, is_ok());
    device_ = std::move(made).value();
    auto stream = device_->create_stream("weights");
    ASSERT_THAT(stream, is_ok());
    stream_ = *stream;
    auto memory = device_->allocate(kBytes, "weights");
    ASSERT_THAT(memory, is_ok());
    there_ = *memory;
    auto host = device_->allocate_host(kBytes);
    ASSERT_THAT(host, is_ok());
    back_ = *host;
    for (size_t i = 0; i < kBytes; ++i) weights_[i] = static_cast<std::byte>(i * 7 / 5);
  }
  void TearDown() override {
    device_->free_host(back_);
    device_->free(there_);
  }

  Status copy(size_t bytes, const ProgressCallback& progress) {
    auto copier = WeightCopier::create(*device_, stream_, bytes, progress, cancel_);
    if (!copier.ok()) return copier.status();
    return copier->copy(there_, weights_.data(), bytes);
  }

  std::unique_ptr<Device> device_;
  StreamId stream_{};
  std::byte* there_ = nullptr;
  std::byte* back_ = nullptr;
  std::vector<std::byte> weights_ = std::vector<std::byte>(kBytes);
  CancelFlag cancel_;
};

TEST_F(WeightCopierTest, BringsEveryByteAndTellsHowFarItIs) {
  constexpr size_t kSome = (size_t{1} << 20) + 12345;  // no whole number of pieces
  std::vector<Progress> told;
  ASSERT_THAT(copy(kSome, [&](const Progress& progress) { told.push_back(progress); }), is_ok());
  ASSERT_THAT(device_->copy(stream_, back_, there_, kSome), is_ok());
  ASSERT_THAT(device_->synchronize(stream_), is_ok());
  EXPECT_EQ(0, std::memcmp(back_, weights_.data(), kSome));
  ASSERT_GE(told.size(), 2u);
  EXPECT_EQ(told.back().done, kSome);
  EXPECT_EQ(told.back().total, kSome);
  EXPECT_EQ(told.back().stage, Stage::kCopy);
}

TEST_F(WeightCopierTest, StopsWithinAPieceWhenItIsCancelled) {
  const ProgressCallback cancel_soon = [&](const Progress&) { cancel_.cancel(); };
  const Clock::time_point start = Clock::now();
  EXPECT_THAT(copy(kBytes, cancel_soon), fails_with(Code::kCancelled, HasSubstr("cancelled")));
  EXPECT_LT(seconds_since(start), 0.4) << "all of it would take 0.6 s";
}

}  // namespace
}  // namespace tandem

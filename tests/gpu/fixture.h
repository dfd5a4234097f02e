// A device, a stream and page-locked memory for every test of a suite.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "tests/gpu/device_under_test.h"

namespace tandem::gpu::testing {

class OnDevice : public ::testing::Test {
 protected:
  void SetUp() override {
    Result<OpenedDevice> opened = open_device_under_test();
    ASSERT_TRUE(opened.ok()) << opened.status().to_string();
    device_ = std::move(opened->device);
    ASSERT_NE(device_, nullptr);
    stream_ = stream("first");
  }

  // Whatever the test has left to do is done first.
  void TearDown() override {
    if (device_ == nullptr) return;
    (void)device_->synchronize();
    free_host();
  }

  bool is_card() const { return device_->info().backend == "cuda"; }

  StreamId stream(const char* name) { return value_of(device_->create_stream(name)); }
  EventId event() { return value_of(device_->create_event()); }
  FlagId flag() { return value_of(device_->create_flag()); }
  std::byte* on_device(size_t bytes) { return value_of(device_->allocate(bytes, "a test")); }
  // Given back with the test.
  std::byte* on_host(size_t bytes) {
    host_.push_back(value_of(device_->allocate_host(bytes)));
    return host_.back();
  }
  void free_host() {
    for (std::byte* memory : host_) device_->free_host(memory);
    host_.clear();
  }

  static void expect_ok(const Status& status) { ASSERT_TRUE(status.ok()) << status.to_string(); }

  template <typename T>
  static T value_of(Result<T> result) {
    EXPECT_TRUE(result.ok()) << result.status().to_string();
    return result.ok() ? *result : T{};
  }

  std::unique_ptr<Device> device_;
  StreamId stream_{};

 private:
  std::vector<std::byte*> host_;
};

}  // namespace tandem::gpu::testing

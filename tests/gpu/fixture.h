// A device, a stream and page-locked memory for every test of a suite.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>

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

  bool is_card() const { return device_->info().backend == "cuda"; }

  StreamId stream(const char* name) { return value_of(device_->create_stream(name)); }
  EventId event() { return value_of(device_->create_event()); }
  FlagId flag() { return value_of(device_->create_flag()); }
  std::byte* on_device(size_t bytes) { return value_of(device_->allocate(bytes, "a test")); }
  std::byte* on_host(size_t bytes) { return value_of(device_->allocate_host(bytes)); }

  static void expect_ok(const Status& status) { ASSERT_TRUE(status.ok()) << status.to_string(); }

  template <typename T>
  static T value_of(Result<T> result) {
    EXPECT_TRUE(result.ok()) << result.status().to_string();
    return result.ok() ? *result : T{};
  }

  std::unique_ptr<Device> device_;
  StreamId stream_{};
};

}  // namespace tandem::gpu::testing

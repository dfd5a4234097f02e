// gmock matchers for Status and Result<T>, and a temporary folder.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "base/result.h"

namespace tandem::testing {

inline Status status_of(const Status& status) { return status; }
template <typename T>
Status status_of(const Result<T>& result) {
  return result.status();
}

MATCHER(is_ok, "is ok") {
  const Status status = status_of(arg);
  *result_listener << status.to_string();
  return status.ok();
}

MATCHER_P2(fails_with, code, message_matcher, "fails with the code and a matching message") {
  const Status status = status_of(arg);
  *result_listener << status.to_string();
  return status.code() == code && ::testing::SafeMatcherCast<const std::string&>(message_matcher)
                                      .MatchAndExplain(status.message(), result_listener);
}

// A folder that goes away with the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "tandem-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace tandem::testing

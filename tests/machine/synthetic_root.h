// A folder that stands for "/": /proc and /sys files as a test writes them.
#pragma once

#include <fstream>
#include <string>

#include "status_matchers.h"

namespace tandem::testing {

class SyntheticRoot {
 public:
  std::filesystem::path path() const { return folder_.path(); }

  void write(const std::string& name, const std::string& text) {
    const std::filesystem::path file = path() / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text << "\n";
  }
  void mount(const std::string& point, const std::string& type, const std::string& options,
             const std::string& mounted_root = "/") {
    mounts_ += "30 24 0:27 " + mounted_root + " " + point + " rw,nosuid shared:9 - " + type +
               " cgroup " + options + "\n";
    write("proc/self/mountinfo", mounts_);
  }

 private:
  TemporaryFolder folder_;
  std::string mounts_;
};

}  // namespace tandem::testing

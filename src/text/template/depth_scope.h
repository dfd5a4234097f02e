// Counts one nested evaluation while it lives.
#pragma once

#include <string>

#include "text/template/interpreter.h"

namespace tandem::jinja {

class DepthScope {
 public:
  explicit DepthScope(Interpreter& interpreter) : interpreter_(interpreter) {
    ++interpreter_.depth_;
  }
  ~DepthScope() { --interpreter_.depth_; }
  DepthScope(const DepthScope&) = delete;
  DepthScope& operator=(const DepthScope&) = delete;

  Status status() const {
    const uint32_t limit = interpreter_.limits_.recursion;
    if (interpreter_.depth_ <= limit) return ok_status();
    return unsupported("the limit of recursion (" + std::to_string(limit) + " levels) is reached");
  }

 private:
  Interpreter& interpreter_;
};

}  // namespace tandem::jinja

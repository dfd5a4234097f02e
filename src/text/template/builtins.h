// The filters, tests, methods and functions that templates can use, by name.
#pragma once

#include <string_view>

#include "text/template/callable.h"

namespace tandem::jinja {

// `input` is what stands before the bar.
struct Filter {
  std::string_view name;
  Result<Value> (*run)(Interpreter&, const Value& input, const Arguments&);
};

struct Test {
  std::string_view name;
  Result<bool> (*run)(Interpreter&, const Value& input, const Arguments&);
};

struct NamedMethod {
  std::string_view name;
  Method run;
};

struct NamedFunction {
  std::string_view name;
  Builtin run;
};

// Null when there is none of that name.
const Filter* find_filter(std::string_view name);
const Test* find_test(std::string_view name);
const NamedMethod* find_method(const Value& self, std::string_view name);
// "append": exists in Python, but changes the value, which the sandbox of the reference forbids.
bool is_forbidden_method(const Value& self, std::string_view name);
const NamedFunction* global_functions(size_t& count);

}  // namespace tandem::jinja

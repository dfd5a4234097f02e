// What a template can call: functions of the environment, macros, methods bound to a value.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "text/template/value.h"

namespace tandem::jinja {

class Interpreter;
struct Macro;
struct Scope;

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The argument at this place or with this name; null when it was not given.
  const Value* find(size_t place, std::string_view name) const;
  // A sentence that names what a function with these parameters does not take; empty when all fits.
  std::string unexpected(std::vector<std::string_view> parameters) const;
};

using Builtin = Result<Value> (*)(Interpreter&, const Arguments&);
using Method = Result<Value> (*)(Interpreter&, const Value& self, const Arguments&);

// Exactly one of the three pointers is set.
struct Callable {
  std::string name;
  Builtin builtin = nullptr;
  Method method = nullptr;  // with `self`
  Value self;
  const Macro* macro = nullptr;  // with the variables that were visible where it was defined
  std::shared_ptr<Scope> closure;
};

}  // namespace tandem::jinja

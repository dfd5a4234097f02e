// object.name and object[key], in Jinja's order: the dot asks for a method first, the bracket for
// an item first.
#include <string>

#include "text/template/interpreter.h"
#include "text/template/operations.h"
#include "text/template/unicode.h"

namespace tandem::jinja {
namespace {

Value loop_attribute(const Loop& loop, std::string_view name) {
  const auto count = static_cast<int64_t>(loop.items.size());
  const auto index0 = static_cast<int64_t>(loop.index0);
  if (name == "index") return Value::integer(index0 + 1);
  if (name == "index0") return Value::integer(index0);
  if (name == "first") return Value::boolean(index0 == 0);
  if (name == "last") return Value::boolean(index0 + 1 == count);
  if (name == "length") return Value::integer(count);
  if (name == "revindex") return Value::integer(count - index0);
  if (name == "revindex0") return Value::integer(count - index0 - 1);
  if (name == "depth") return Value::integer(loop.depth0 + 1);
  if (name == "depth0") return Value::integer(loop.depth0);
  if (name == "previtem") {
    return index0 > 0 ? loop.items[loop.index0 - 1] : Value::undefined("there is no previous item");
  }
  if (name == "nextitem") {
    return index0 + 1 < count ? loop.items[loop.index0 + 1]
                              : Value::undefined("there is no next item");
  }
  return Value::undefined("'loop' has no attribute '" + std::string(name) + "'");
}

Value no_attribute(const Value& object, std::string_view name) {
  const std::string type = object.is_none() ? "None" : std::string(object.type_name()) + " object";
  return Value::undefined("'" + type + "' has no attribute '" + std::string(name) + "'");
}

}  // namespace

Result<Value> Interpreter::method_or_undefined(const Value& object, std::string_view name) {
  if (const NamedMethod* method = find_method(object, name)) {
    Callable callable;
    callable.name = name;
    callable.method = method->run;
    callable.self = object;
    return make_callable(std::move(callable));
  }
  if (is_forbidden_method(object, name)) {
    return Value::undefined("'" + std::string(name) + "' would change a " +
                            std::string(object.type_name()) + ", which templates may not");
  }
  return no_attribute(object, name);
}

Result<Value> Interpreter::attribute(const Value& object, std::string_view name) {
  switch (object.kind()) {
    case Value::Kind::kUndefined:
      return invalid_argument(object.undefined_reason());
    case Value::Kind::kNamespace:
      TANDEM_RETURN_IF_ERROR(charge(object.as_namespace().attributes.size() / 16));
      if (const Value* value = object.as_namespace().find(name)) return *value;
      return no_attribute(object, name);
    case Value::Kind::kLoop:
      if (find_method(object, name) != nullptr) return method_or_undefined(object, name);
      return loop_attribute(object.as_loop(), name);
    case Value::Kind::kMap: {
      TANDEM_ASSIGN_OR_RETURN(Value method, method_or_undefined(object, name));
      if (!method.is_undefined() || is_forbidden_method(object, name)) return method;
      TANDEM_RETURN_IF_ERROR(charge(1 + object.as_map().entries.size() / 16));
      if (const Value* value = object.as_map().find(name)) return *value;
      return method;
    }
    case Value::Kind::kCallable:
      if (name == "name") return Value::trusted(object.as_callable().name);
      return no_attribute(object, name);
    default:
      return method_or_undefined(object, name);
  }
}

Result<Value> Interpreter::item(const Value& object, const Value& key) {
  if (object.is_undefined()) return invalid_argument(object.undefined_reason());
  if (object.is_map()) {
    TANDEM_RETURN_IF_ERROR(charge(1 + object.as_map().entries.size() / 16));
    if (key.is_list() || key.is_map()) {
      return Value::undefined("a " + std::string(key.type_name()) + " is no key");
    }
    if (const Value* value = object.as_map().find(key)) return *value;
  } else if (key.is_integral() && (object.is_list() || object.is_string())) {
    const bool is_list = object.is_list();
    if (!is_list) TANDEM_RETURN_IF_ERROR(charge_bytes(object.view().size()));
    const auto size = static_cast<int64_t>(is_list ? object.as_list().items.size()
                                                   : count_characters(object.view()));
    int64_t index = key.as_integer();
    if (index < 0) index += size;
    if (index < 0 || index >= size) {
      return Value::undefined("'" + std::string(object.type_name()) + " object' has no element " +
                              std::to_string(key.as_integer()));
    }
    if (is_list) return object.as_list().items[static_cast<size_t>(index)];
    const size_t begin = byte_of_character(object.view(), static_cast<size_t>(index));
    return substring(object.as_text(), begin, begin + character_bytes(object.view(), begin));
  }
  if (key.is_string()) return attribute(object, key.view());
  return Value::undefined("'" + std::string(object.type_name()) + " object' has no such element");
}

}  // namespace tandem::jinja

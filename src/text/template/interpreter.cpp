#include "text/template/interpreter.h"

#include <algorithm>

#include "text/template/depth_scope.h"
#include "text/template/lexer.h"
#include "text/template/operations.h"
#include "text/template/unicode.h"

namespace tandem::jinja {
namespace {

using Kind = Expression::Kind;

// Estimates of what the allocator takes besides the content.
constexpr uint64_t kTextBytes = 128;
constexpr uint64_t kContainerBytes = 128;

Status limit_error(std::string_view name, uint64_t value) {
  return unsupported("the limit of " + std::string(name) + " (" + std::to_string(value) +
                     ") is reached");
}

// Adds the place to an error that has none yet.
Status located(const Status& status, const Expression& at, const std::string& construct) {
  if (status.ok() || status.offset() != Status::kNoOffset) return status;
  return template_error(status.code(), at.line, at.offset,
                        construct.empty() ? status.message() : construct + ": " + status.message());
}

std::string construct_name(const Expression& expression) {
  switch (expression.kind) {
    case Kind::kFilter:
      return "filter '" + expression.text + "'";
    case Kind::kTest:
      return "test '" + expression.text + "'";
    case Kind::kCall: {
      const Expression& callee = *expression.children[0];
      return callee.kind == Kind::kAttribute ? "call of '" + callee.text + "'" : "call";
    }
    default:
      return "";
  }
}

}  // namespace

Value* Scope::find(uint32_t name) {
  for (auto& [key, value] : variables) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Scope::set(uint32_t name, Value value) {
  if (Value* old = find(name)) {
    *old = std::move(value);
  } else {
    variables.emplace_back(name, std::move(value));
  }
}

Interpreter::Interpreter(const Syntax& syntax, const Limits& limits, const std::tm* now,
                         const CancelFlag& cancel)
    : syntax_(syntax),
      limits_(limits),
      now_(now),
      cancel_(cancel),
      steps_left_(limits.steps),
      memory_left_(limits.memory_bytes) {}

Interpreter::~Interpreter() {
  for (const auto& object : namespaces_) object->attributes.clear();
  for (const auto& scope : captured_scopes_) scope->variables.clear();
}

Result<Text> Interpreter::run(const std::vector<std::pair<std::string, Value>>& variables) {
  scope_ = std::make_shared<Scope>();
  const auto define = [&](std::string_view name, const Value& value) {
    const auto found = std::find(syntax_.names.begin(), syntax_.names.end(), name);
    if (found == syntax_.names.end()) return;  // never mentioned
    scope_->set(static_cast<uint32_t>(found - syntax_.names.begin()), value);
  };
  size_t n_functions = 0;
  const NamedFunction* functions = global_functions(n_functions);
  for (size_t i = 0; i < n_functions; ++i) {
    if (functions[i].name == "strftime_now" && now_ == nullptr) continue;
    Callable callable;
    callable.name = functions[i].name;
    callable.builtin = functions[i].run;
    TANDEM_ASSIGN_OR_RETURN(const Value function, make_callable(std::move(callable)));
    define(functions[i].name, function);
  }
  for (const auto& [name, value] : variables) {
    if (value.depth() > limits_.nesting) return limit_error("nested lists", limits_.nesting);
    define(name, value);
  }
  // Sets of the template go to a scope of their own.
  scope_ = push_scope(scope_);
  TextBuilder out = builder();
  out_ = &out;
  TANDEM_RETURN_IF_ERROR(execute(syntax_.body));
  return out.take();
}

Status Interpreter::charge(uint64_t steps) {
  if (cancel_.cancelled()) return cancelled("cancelled while rendering the chat template");
  if (steps > steps_left_) return limit_error("steps", limits_.steps);
  steps_left_ -= steps;
  return ok_status();
}

Status Interpreter::charge_inputs(const Value* input, const Arguments& arguments) {
  size_t bytes = 0;
  const auto add = [&bytes](const Value& value) {
    if (value.is_string()) bytes += value.view().size();
  };
  if (input != nullptr) add(*input);
  for (const Value& value : arguments.positional) add(value);
  for (const auto& [name, value] : arguments.named) add(value);
  return charge_bytes(bytes);
}

Status Interpreter::charge_memory(uint64_t bytes) {
  if (bytes > memory_left_) return limit_error("memory in bytes", limits_.memory_bytes);
  memory_left_ -= bytes;
  return ok_status();
}

Result<Value> Interpreter::make_text(TextBuilder& text_builder) {
  if (text_builder.overflowed()) return limit_error("bytes in one text", limits_.text_bytes);
  return make_text(text_builder.take());
}

Result<Value> Interpreter::make_text(Text text) {
  if (text.bytes.size() > limits_.text_bytes) {
    return limit_error("bytes in one text", limits_.text_bytes);
  }
  TANDEM_RETURN_IF_ERROR(
      charge_memory(kTextBytes + text.bytes.size() + text.runs.size() * sizeof(Run)));
  TANDEM_RETURN_IF_ERROR(charge_bytes(text.bytes.size()));
  return Value::text(std::move(text));
}

Result<Value> Interpreter::substring(const Text& text, size_t begin, size_t end) {
  TextBuilder out = builder();
  out.append(text, begin, end);
  Text part = out.take();
  part.markup = text.markup;
  return make_text(std::move(part));
}

Result<Value> Interpreter::make_list(std::vector<Value> items, List::Form form) {
  TANDEM_RETURN_IF_ERROR(charge(1 + items.size() / 8));
  TANDEM_RETURN_IF_ERROR(charge_memory(kContainerBytes + items.size() * 2 * sizeof(Value)));
  Value value = form == List::Form::kTuple  ? Value::tuple(std::move(items))
                : form == List::Form::kList ? Value::list(std::move(items))
                                            : Value::generator(std::move(items));
  if (value.depth() > limits_.nesting) return limit_error("nested lists", limits_.nesting);
  return value;
}

Result<Value> Interpreter::make_map(std::vector<Value::Entry> entries) {
  TANDEM_RETURN_IF_ERROR(charge(1 + entries.size()));
  TANDEM_RETURN_IF_ERROR(
      charge_memory(kContainerBytes + entries.size() * 3 * sizeof(Value::Entry)));
  uint64_t n_compared = 0;  // keys that are looked up one by one
  for (const Value::Entry& entry : entries) {
    const Value& key = entry.first;
    if (key.is_list() || key.is_map()) {
      return invalid_argument("a " + std::string(key.type_name()) + " cannot be a key");
    }
    n_compared += key.is_string() ? 0 : 1;
  }
  TANDEM_RETURN_IF_ERROR(charge(n_compared * entries.size() / 16));
  Value value = Value::map(std::move(entries));
  if (value.depth() > limits_.nesting) return limit_error("nested lists", limits_.nesting);
  return value;
}

Result<Value> Interpreter::make_namespace(std::vector<Value::Entry> entries) {
  TANDEM_RETURN_IF_ERROR(charge_memory(kContainerBytes + entries.size() * 100));
  auto object = std::make_shared<Namespace>();
  for (Value::Entry& entry : entries) {
    if (!entry.first.is_string()) return invalid_argument("an attribute's name must be a string");
    object->set(entry.first.view(), std::move(entry.second));
  }
  namespaces_.push_back(object);
  return Value::of(std::move(object));
}

Result<Value> Interpreter::make_callable(Callable callable) {
  TANDEM_RETURN_IF_ERROR(charge_memory(kContainerBytes + sizeof(Callable)));
  Value value = Value::of(std::make_shared<const Callable>(std::move(callable)));
  if (value.depth() > limits_.nesting) return limit_error("nested lists", limits_.nesting);
  return value;
}

Result<std::vector<Value>> Interpreter::items_of(const Value& value) {
  std::vector<Value> items;
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      return items;
    case Value::Kind::kList:
      TANDEM_RETURN_IF_ERROR(charge(1 + value.as_list().items.size() / 8));
      TANDEM_RETURN_IF_ERROR(charge_memory(value.as_list().items.size() * sizeof(Value)));
      return value.as_list().items;
    case Value::Kind::kMap:
      TANDEM_RETURN_IF_ERROR(charge(1 + value.as_map().entries.size() / 8));
      TANDEM_RETURN_IF_ERROR(charge_memory(value.as_map().entries.size() * sizeof(Value)));
      for (const auto& entry : value.as_map().entries) items.push_back(entry.first);
      return items;
    case Value::Kind::kString: {
      const Text& text = value.as_text();
      for (size_t at = 0; at < text.bytes.size();) {
        const size_t end = at + character_bytes(text.bytes, at);
        TANDEM_ASSIGN_OR_RETURN(Value character, substring(text, at, end));
        TANDEM_RETURN_IF_ERROR(charge_memory(2 * sizeof(Value)));
        items.push_back(std::move(character));
        at = end;
      }
      return items;
    }
    default:
      return invalid_argument("a value of type " + std::string(value.type_name()) +
                              " cannot be looped over");
  }
}

std::shared_ptr<Scope> Interpreter::push_scope(std::shared_ptr<Scope> parent) {
  auto scope = std::make_shared<Scope>();
  scope->parent = std::move(parent);
  return scope;
}

Result<Value> Interpreter::evaluate(const Expression& expression) {
  const DepthScope depth(*this);
  auto status = depth.status();
  if (status.ok()) status = charge(1);
  if (!status.ok()) return located(status, expression, "");
  auto result = evaluate_unlocated(expression);
  if (result.ok()) return result;
  return located(result.status(), expression, construct_name(expression));
}

Result<Value> Interpreter::evaluate_unlocated(const Expression& expression) {
  switch (expression.kind) {
    case Kind::kConstant:
      return expression.constant;
    case Kind::kName:
      return evaluate_name(expression);
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict:
      return evaluate_container(expression);
    case Kind::kAttribute: {
      TANDEM_ASSIGN_OR_RETURN(const Value object, evaluate(*expression.children[0]));
      return attribute(object, expression.text);
    }
    case Kind::kItem:
      return evaluate_item(expression);
    case Kind::kSlice:
      return evaluate_slice(expression);
    case Kind::kCall:
      return evaluate_call(expression);
    case Kind::kFilter:
      return evaluate_filter(expression, nullptr);
    case Kind::kTest:
      return evaluate_test(expression);
    case Kind::kNegate:
    case Kind::kPlus:
    case Kind::kNot:
      return evaluate_unary(expression);
    case Kind::kBinary: {
      TANDEM_ASSIGN_OR_RETURN(const Value left, evaluate(*expression.children[0]));
      TANDEM_ASSIGN_OR_RETURN(const Value right, evaluate(*expression.children[1]));
      return binary_operation(*this, expression.operators[0], left, right);
    }
    case Kind::kCompare:
      return evaluate_compare(expression);
    case Kind::kAnd:
    case Kind::kOr: {
      TANDEM_ASSIGN_OR_RETURN(Value left, evaluate(*expression.children[0]));
      if (left.truthy() == (expression.kind == Kind::kOr)) return left;
      return evaluate(*expression.children[1]);
    }
    case Kind::kConcat:
      return evaluate_concat(expression);
    case Kind::kConditional: {
      TANDEM_ASSIGN_OR_RETURN(const Value condition, evaluate(*expression.children[1]));
      if (condition.truthy()) return evaluate(*expression.children[0]);
      if (expression.children[2]) return evaluate(*expression.children[2]);
      return Value::undefined("the inline if is false and has no else");
    }
  }
  return internal_error("unknown expression");
}

Result<Value> Interpreter::evaluate_name(const Expression& expression) {
  for (Scope* scope = scope_.get(); scope != nullptr; scope = scope->parent.get()) {
    TANDEM_RETURN_IF_ERROR(charge(scope->variables.size() / 16));
    if (const Value* value = scope->find(expression.name)) return *value;
  }
  return Value::undefined("'" + syntax_.names[expression.name] + "' is undefined");
}

Result<Value> Interpreter::evaluate_container(const Expression& expression) {
  std::vector<Value> items;
  for (const ExpressionPtr& child : expression.children) {
    TANDEM_ASSIGN_OR_RETURN(Value value, evaluate(*child));
    items.push_back(std::move(value));
  }
  if (expression.kind == Kind::kList) return make_list(std::move(items));
  if (expression.kind == Kind::kTuple) return make_list(std::move(items), List::Form::kTuple);
  std::vector<Value::Entry> entries;
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    entries.emplace_back(std::move(items[i]), std::move(items[i + 1]));
  }
  return make_map(std::move(entries));
}

Result<Value> Interpreter::evaluate_item(const Expression& expression) {
  TANDEM_ASSIGN_OR_RETURN(const Value object, evaluate(*expression.children[0]));
  TANDEM_ASSIGN_OR_RETURN(const Value key, evaluate(*expression.children[1]));
  return item(object, key);
}

Result<Value> Interpreter::evaluate_slice(const Expression& expression) {
  TANDEM_ASSIGN_OR_RETURN(const Value object, evaluate(*expression.children[0]));
  Value bounds[3];
  const Value* given[3] = {};
  for (size_t i = 0; i < 3; ++i) {
    if (!expression.children[i + 1]) continue;
    TANDEM_ASSIGN_OR_RETURN(bounds[i], evaluate(*expression.children[i + 1]));
    if (!bounds[i].is_none()) given[i] = &bounds[i];
  }
  return slice(*this, object, given[0], given[1], given[2]);
}

Result<Arguments> Interpreter::evaluate_arguments(const Expression& expression, size_t first) {
  Arguments arguments;
  for (size_t i = first; i < expression.children.size(); ++i) {
    TANDEM_ASSIGN_OR_RETURN(Value value, evaluate(*expression.children[i]));
    arguments.positional.push_back(std::move(value));
  }
  for (const auto& [name, child] : expression.keywords) {
    TANDEM_ASSIGN_OR_RETURN(Value value, evaluate(*child));
    arguments.named.emplace_back(name, std::move(value));
  }
  return arguments;
}

Result<Value> Interpreter::evaluate_call(const Expression& expression) {
  const Expression& callee = *expression.children[0];
  // The common "text.method(...)": no function object is made for it.
  if (callee.kind == Kind::kAttribute) {
    TANDEM_ASSIGN_OR_RETURN(const Value object, evaluate(*callee.children[0]));
    if (object.is_string() || object.is_map() || object.is_list()) {
      if (const NamedMethod* method = find_method(object, callee.text)) {
        TANDEM_ASSIGN_OR_RETURN(const Arguments arguments, evaluate_arguments(expression, 1));
        TANDEM_RETURN_IF_ERROR(charge_inputs(&object, arguments));
        return method->run(*this, object, arguments);
      }
    }
    TANDEM_ASSIGN_OR_RETURN(const Value function, attribute(object, callee.text));
    TANDEM_ASSIGN_OR_RETURN(const Arguments arguments, evaluate_arguments(expression, 1));
    return call(function, arguments);
  }
  TANDEM_ASSIGN_OR_RETURN(const Value function, evaluate(callee));
  TANDEM_ASSIGN_OR_RETURN(const Arguments arguments, evaluate_arguments(expression, 1));
  return call(function, arguments);
}

Result<Value> Interpreter::call(const Value& callee, const Arguments& arguments) {
  if (callee.is_undefined()) return invalid_argument(callee.undefined_reason());
  if (!callee.is(Value::Kind::kCallable)) {
    return invalid_argument("a value of type " + std::string(callee.type_name()) +
                            " cannot be called");
  }
  const Callable& function = callee.as_callable();
  if (function.macro == nullptr) {
    TANDEM_RETURN_IF_ERROR(
        charge_inputs(function.method != nullptr ? &function.self : nullptr, arguments));
  }
  if (function.builtin != nullptr) return function.builtin(*this, arguments);
  if (function.method != nullptr) return function.method(*this, function.self, arguments);
  return call_macro(function, arguments);
}

Result<Value> Interpreter::evaluate_filter(const Expression& expression, const Value* input) {
  Value value;
  if (input != nullptr && !expression.children[0]) {
    value = *input;
  } else if (input != nullptr) {
    TANDEM_ASSIGN_OR_RETURN(value, evaluate_filter(*expression.children[0], input));
  } else {
    TANDEM_ASSIGN_OR_RETURN(value, evaluate(*expression.children[0]));
  }
  if (expression.filter == nullptr) return invalid_argument("there is no such filter");
  TANDEM_ASSIGN_OR_RETURN(const Arguments arguments, evaluate_arguments(expression, 1));
  TANDEM_RETURN_IF_ERROR(charge_inputs(&value, arguments));
  return expression.filter->run(*this, value, arguments);
}

Result<Value> Interpreter::evaluate_test(const Expression& expression) {
  TANDEM_ASSIGN_OR_RETURN(const Value input, evaluate(*expression.children[0]));
  if (expression.test == nullptr) return invalid_argument("there is no such test");
  TANDEM_ASSIGN_OR_RETURN(const Arguments arguments, evaluate_arguments(expression, 1));
  TANDEM_RETURN_IF_ERROR(charge_inputs(&input, arguments));
  TANDEM_ASSIGN_OR_RETURN(const bool answer, expression.test->run(*this, input, arguments));
  return Value::boolean(answer);
}

Result<Value> Interpreter::apply_filter(std::string_view name, const Value& input,
                                        const Arguments& arguments) {
  const Filter* filter = find_filter(name);
  if (filter == nullptr) {
    return invalid_argument("there is no filter '" + std::string(name) + "'");
  }
  const DepthScope depth(*this);
  TANDEM_RETURN_IF_ERROR(depth.status());
  TANDEM_RETURN_IF_ERROR(charge_inputs(&input, arguments));
  return filter->run(*this, input, arguments);
}

Result<bool> Interpreter::apply_test(std::string_view name, const Value& input,
                                     const Arguments& arguments) {
  const Test* test = find_test(name);
  if (test == nullptr) return invalid_argument("there is no test '" + std::string(name) + "'");
  const DepthScope depth(*this);
  TANDEM_RETURN_IF_ERROR(depth.status());
  TANDEM_RETURN_IF_ERROR(charge_inputs(&input, arguments));
  return test->run(*this, input, arguments);
}

Result<Value> Interpreter::evaluate_unary(const Expression& expression) {
  TANDEM_ASSIGN_OR_RETURN(const Value value, evaluate(*expression.children[0]));
  if (expression.kind == Kind::kNot) return Value::boolean(!value.truthy());
  if (value.is_undefined()) return invalid_argument(value.undefined_reason());
  if (!value.is_number()) {
    return invalid_argument("a sign before a value of type " + std::string(value.type_name()));
  }
  const bool negate = expression.kind == Kind::kNegate;
  if (!value.is_integral()) {
    return Value::floating(negate ? -value.as_double() : value.as_double());
  }
  int64_t result = value.as_integer();
  if (negate && __builtin_sub_overflow(int64_t{0}, result, &result)) {
    return invalid_argument("integer overflow");
  }
  return Value::integer(result);
}

Result<Value> Interpreter::evaluate_compare(const Expression& expression) {
  TANDEM_ASSIGN_OR_RETURN(Value left, evaluate(*expression.children[0]));
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    TANDEM_ASSIGN_OR_RETURN(Value right, evaluate(*expression.children[i + 1]));
    TANDEM_ASSIGN_OR_RETURN(const bool holds, compare(*this, expression.operators[i], left, right));
    if (!holds) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Result<Value> Interpreter::evaluate_concat(const Expression& expression) {
  TextBuilder out = builder();
  for (const ExpressionPtr& child : expression.children) {
    TANDEM_ASSIGN_OR_RETURN(const Value value, evaluate(*child));
    TANDEM_RETURN_IF_ERROR(append_string(*this, out, value));
  }
  return make_text(out);
}

}  // namespace tandem::jinja

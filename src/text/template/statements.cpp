#include <algorithm>

#include "text/template/depth_scope.h"
#include "text/template/interpreter.h"
#include "text/template/lexer.h"
#include "text/template/operations.h"

namespace tandem::jinja {
namespace {

using Kind = Statement::Kind;

Status located(const Status& status, const Statement& at) {
  if (status.ok() || status.offset() != Status::kNoOffset) return status;
  return template_error(status.code(), at.line, at.offset, status.message());
}

// Puts a variable of the interpreter back when the block ends.
template <typename T>
class Restore {
 public:
  explicit Restore(T& variable) : variable_(variable), before_(variable) {}
  ~Restore() { variable_ = std::move(before_); }
  Restore(const Restore&) = delete;
  Restore& operator=(const Restore&) = delete;

 private:
  T& variable_;
  T before_;
};

}  // namespace

Status Interpreter::execute(const Body& body) {
  const DepthScope depth(*this);
  for (const Statement& statement : body) {
    Status status = depth.status();
    if (status.ok()) status = charge(1);
    if (status.ok()) status = execute(statement);
    if (!status.ok()) return located(status, statement);
    if (flow_ != Flow::kNormal) break;
  }
  return ok_status();
}

Status Interpreter::execute(const Statement& statement) {
  switch (statement.kind) {
    case Kind::kData:
      out_->append(statement.text);
      return check_output();
    case Kind::kOutput: {
      TANDEM_ASSIGN_OR_RETURN(const Value value, evaluate(*statement.expression));
      return output(value);
    }
    case Kind::kIf:
      for (const Statement::Branch& branch : statement.branches) {
        if (branch.condition) {
          TANDEM_ASSIGN_OR_RETURN(const Value condition, evaluate(*branch.condition));
          if (!condition.truthy()) continue;
        }
        return execute(branch.body);
      }
      return ok_status();
    case Kind::kFor:
      return execute_for(statement);
    case Kind::kSet:
    case Kind::kSetBlock:
      return execute_set(statement);
    case Kind::kMacro:
      return execute_macro(statement);
    case Kind::kCallBlock:
      return execute_call_block(statement);
    case Kind::kFilterBlock:
      return execute_filter_block(statement);
    case Kind::kWith:
    case Kind::kScope:
      return execute_with(statement);
    case Kind::kBreak:
      flow_ = Flow::kBreak;
      return ok_status();
    case Kind::kContinue:
      flow_ = Flow::kContinue;
      return ok_status();
  }
  return internal_error("unknown statement");
}

Status Interpreter::check_output() {
  if (!out_->overflowed()) return ok_status();
  return unsupported("the limit of output (" + std::to_string(limits_.text_bytes) +
                     " bytes) is reached");
}

Status Interpreter::output(const Value& value) {
  TANDEM_RETURN_IF_ERROR(append_string(*this, *out_, value));
  return check_output();
}

Status Interpreter::execute_for(const Statement& statement) {
  TANDEM_ASSIGN_OR_RETURN(const Value iterable, evaluate(*statement.expression));
  TANDEM_ASSIGN_OR_RETURN(std::vector<Value> items, items_of(iterable));
  const Restore scope_restored(scope_);
  const std::shared_ptr<Scope> outside = scope_;
  if (statement.condition) {
    std::vector<Value> kept;
    for (Value& candidate : items) {
      scope_ = push_scope(outside);
      TANDEM_RETURN_IF_ERROR(assign(statement.target, candidate, statement));
      TANDEM_ASSIGN_OR_RETURN(const Value condition, evaluate(*statement.condition));
      if (condition.truthy()) kept.push_back(std::move(candidate));
    }
    items = std::move(kept);
  }
  if (items.empty()) {
    scope_ = push_scope(outside);
    return execute(statement.otherwise);
  }
  auto loop = std::make_shared<Loop>();
  for (const Value& item : items) loop->depth = std::max(loop->depth, item.depth() + 1);
  loop->items = std::move(items);
  loop->depth0 = loop_depth_;
  const Restore depth_restored(loop_depth_);
  ++loop_depth_;
  const Value loop_value = Value::of(loop);
  for (; loop->index0 < loop->items.size(); ++loop->index0) {
    TANDEM_RETURN_IF_ERROR(charge(1));
    scope_ = push_scope(outside);
    scope_->set(kLoopName, loop_value);
    TANDEM_RETURN_IF_ERROR(assign(statement.target, loop->items[loop->index0], statement));
    TANDEM_RETURN_IF_ERROR(execute(statement.body));
    const bool stop = flow_ == Flow::kBreak;
    flow_ = Flow::kNormal;
    if (stop) break;
  }
  return ok_status();
}

Status Interpreter::assign(const Target& target, Value value, const Statement& at) {
  if (!target.attribute.empty()) {
    Value* object = nullptr;
    for (Scope* scope = scope_.get(); scope != nullptr && object == nullptr;
         scope = scope->parent.get()) {
      object = scope->find(target.names[0]);
    }
    if (object == nullptr || !object->is(Value::Kind::kNamespace)) {
      return located(invalid_argument("'" + syntax_.names[target.names[0]] +
                                      "' is no namespace, its attributes cannot be set"),
                     at);
    }
    TANDEM_RETURN_IF_ERROR(charge_memory(2 * sizeof(Value) + target.attribute.size()));
    TANDEM_RETURN_IF_ERROR(charge(1 + object->as_namespace().attributes.size() / 16));
    object->as_namespace().set(target.attribute, std::move(value));
    return ok_status();
  }
  TANDEM_RETURN_IF_ERROR(charge(1 + scope_->variables.size() / 16));
  if (!target.unpack) {
    scope_->set(target.names[0], std::move(value));
    return ok_status();
  }
  if (value.is_undefined()) return invalid_argument(value.undefined_reason());
  TANDEM_ASSIGN_OR_RETURN(std::vector<Value> parts, items_of(value));
  if (parts.size() != target.names.size()) {
    return located(invalid_argument("expected " + std::to_string(target.names.size()) +
                                    " values to unpack, found " + std::to_string(parts.size())),
                   at);
  }
  for (size_t i = 0; i < parts.size(); ++i) scope_->set(target.names[i], std::move(parts[i]));
  return ok_status();
}

Status Interpreter::execute_set(const Statement& statement) {
  Value value;
  if (statement.kind == Kind::kSet) {
    TANDEM_ASSIGN_OR_RETURN(value, evaluate(*statement.expression));
  } else {
    TANDEM_ASSIGN_OR_RETURN(value, captured(statement.body));
    if (statement.expression) {
      TANDEM_ASSIGN_OR_RETURN(value, evaluate_filter(*statement.expression, &value));
    }
  }
  return assign(statement.target, std::move(value), statement);
}

Result<Value> Interpreter::captured(const Body& body) {
  TextBuilder inner = builder();
  const Restore out_restored(out_);
  const Restore scope_restored(scope_);
  out_ = &inner;
  scope_ = push_scope(scope_);
  TANDEM_RETURN_IF_ERROR(execute(body));
  return make_text(inner);
}

Status Interpreter::execute_macro(const Statement& statement) {
  Callable callable;
  callable.name = statement.macro->name;
  callable.macro = statement.macro.get();
  callable.closure = scope_;
  captured_scopes_.push_back(scope_);
  TANDEM_ASSIGN_OR_RETURN(Value macro, make_callable(std::move(callable)));
  scope_->set(statement.name, std::move(macro));
  return ok_status();
}

Status Interpreter::execute_call_block(const Statement& statement) {
  const Expression& call_expression = *statement.expression;
  Callable callable;
  callable.name = "caller";
  callable.macro = statement.macro.get();
  callable.closure = scope_;
  captured_scopes_.push_back(scope_);
  TANDEM_ASSIGN_OR_RETURN(Value caller, make_callable(std::move(callable)));
  TANDEM_ASSIGN_OR_RETURN(const Value callee, evaluate(*call_expression.children[0]));
  TANDEM_ASSIGN_OR_RETURN(Arguments arguments, evaluate_arguments(call_expression, 1));
  arguments.named.emplace_back("caller", std::move(caller));
  TANDEM_ASSIGN_OR_RETURN(const Value result, call(callee, arguments));
  return output(result);
}

Status Interpreter::execute_filter_block(const Statement& statement) {
  TANDEM_ASSIGN_OR_RETURN(const Value inner, captured(statement.body));
  TANDEM_ASSIGN_OR_RETURN(const Value result, evaluate_filter(*statement.expression, &inner));
  return output(result);
}

Status Interpreter::execute_with(const Statement& statement) {
  const Restore scope_restored(scope_);
  const std::shared_ptr<Scope> inside = push_scope(scope_);
  std::vector<Value> values;
  for (const auto& [target, expression] : statement.bindings) {
    TANDEM_ASSIGN_OR_RETURN(Value value, evaluate(*expression));
    values.push_back(std::move(value));
  }
  scope_ = inside;
  for (size_t i = 0; i < values.size(); ++i) {
    TANDEM_RETURN_IF_ERROR(assign(statement.bindings[i].first, std::move(values[i]), statement));
  }
  return execute(statement.body);
}

Status Interpreter::bind_parameters(const Macro& macro, const Arguments& arguments, Scope& scope) {
  const std::string who = "macro '" + macro.name + "'";
  const size_t n = macro.parameters.size();
  const size_t first_default = n - macro.defaults.size();
  if (arguments.positional.size() > n && !macro.takes_varargs) {
    return invalid_argument(who + " takes not more than " + std::to_string(n) + " arguments");
  }
  std::vector<Value::Entry> rest;
  for (const auto& [name, value] : arguments.named) {
    const auto begin = macro.parameter_names.begin();
    const auto found = std::find(begin, macro.parameter_names.end(), name);
    if (found != macro.parameter_names.end()) {
      if (static_cast<size_t>(found - begin) < arguments.positional.size()) {
        return invalid_argument(who + " got two values for '" + name + "'");
      }
    } else if (name == "caller" && macro.takes_caller) {
      scope.set(kCallerName, value);
    } else if (macro.takes_kwargs) {
      rest.emplace_back(Value::trusted(name), value);
    } else {
      return invalid_argument(who + " has no parameter '" + name + "'");
    }
  }
  for (size_t i = 0; i < n; ++i) {
    Value value = Value::undefined("parameter '" + macro.parameter_names[i] + "' was not provided");
    if (const Value* given = arguments.find(i, macro.parameter_names[i])) {
      value = *given;
    } else if (i >= first_default) {
      TANDEM_ASSIGN_OR_RETURN(value, evaluate(*macro.defaults[i - first_default]));
    }
    scope.set(macro.parameters[i], std::move(value));
  }
  if (macro.takes_varargs) {
    std::vector<Value> extra;
    for (size_t i = n; i < arguments.positional.size(); ++i) {
      extra.push_back(arguments.positional[i]);
    }
    TANDEM_ASSIGN_OR_RETURN(Value list, make_list(std::move(extra), List::Form::kTuple));
    scope.set(kVarargsName, std::move(list));
  }
  if (macro.takes_kwargs) {
    TANDEM_ASSIGN_OR_RETURN(Value map, make_map(std::move(rest)));
    scope.set(kKwargsName, std::move(map));
  }
  return ok_status();
}

Result<Value> Interpreter::call_macro(const Callable& callee, const Arguments& arguments) {
  const DepthScope depth(*this);
  TANDEM_RETURN_IF_ERROR(depth.status());
  const Restore scope_restored(scope_);
  const Restore out_restored(out_);
  const Restore depth_restored(loop_depth_);
  loop_depth_ = 0;
  scope_ = push_scope(callee.closure);
  TANDEM_RETURN_IF_ERROR(bind_parameters(*callee.macro, arguments, *scope_));
  TextBuilder inner = builder();
  out_ = &inner;
  TANDEM_RETURN_IF_ERROR(execute(callee.macro->body));
  return make_text(inner);
}

}  // namespace tandem::jinja

// Runs a parsed template once, within limits.
//
// Threading: one interpreter per call; the Syntax may be shared.
// Errors: kInvalidArgument for what the template or its input does wrong, kUnsupported for a limit;
// each names the template's line, limits also their name.  kCancelled.
#pragma once

#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "text/template/ast.h"
#include "text/template/callable.h"

namespace tandem::jinja {

// What one rendering may use.  They bound the time (about 0.1 s) and the memory that a hostile
// template can take.
struct Limits {
  uint64_t steps = 500'000;                    // nodes evaluated, plus one per 256 bytes looked at
  uint64_t memory_bytes = uint64_t{32} << 20;  // of all values ever made
  size_t text_bytes = size_t{16} << 20;        // of one string, and of the output
  uint32_t recursion = 400;                    // nested evaluations, macro calls included
  uint32_t nesting = 100;                      // of lists in lists
  uint64_t range_items = 100'000;              // as Jinja's sandbox has it
};

struct Scope {
  std::shared_ptr<Scope> parent;
  std::vector<std::pair<uint32_t, Value>> variables;  // by index in Syntax::names

  Value* find(uint32_t name);
  void set(uint32_t name, Value value);
};

class Interpreter {
 public:
  // `now` is what strftime_now() tells; null leaves that function undefined.
  Interpreter(const Syntax& syntax, const Limits& limits, const std::tm* now,
              const CancelFlag& cancel);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  Result<Text> run(const std::vector<std::pair<std::string, Value>>& variables);

  // For the built-in functions.
  const Limits& limits() const { return limits_; }
  const std::tm* now() const { return now_; }
  // Also where a cancelled rendering ends.
  Status charge(uint64_t steps);
  // For loops over text whose steps were charged before: looks at the cancel flag now and then.
  Status go_on(size_t n_done) { return n_done % 65536 == 65535 ? charge(0) : ok_status(); }
  Status charge_bytes(size_t bytes) { return charge(1 + bytes / 256); }
  // For looking at every string that a filter, test, function or method is given; here and not in each of them, so that
  // none forgets.
  Status charge_inputs(const Value* input, const Arguments& arguments);
  Status charge_memory(uint64_t bytes);
  TextBuilder builder() const { return TextBuilder(limits_.text_bytes); }
  Result<Value> make_text(TextBuilder& builder);
  Result<Value> make_text(Text text);
  Result<Value> substring(const Text& text, size_t begin, size_t end);
  Result<Value> make_list(std::vector<Value> items, List::Form form = List::Form::kList);
  Result<Value> make_map(std::vector<Value::Entry> entries);
  Result<Value> make_namespace(std::vector<Value::Entry> entries);
  Result<Value> make_callable(Callable callable);
  // What a loop over the value visits.
  Result<std::vector<Value>> items_of(const Value& value);
  Result<Value> attribute(const Value& object, std::string_view name);
  Result<Value> item(const Value& object, const Value& key);
  Result<Value> call(const Value& callee, const Arguments& arguments);
  Result<Value> apply_filter(std::string_view name, const Value& input, const Arguments& arguments);
  Result<bool> apply_test(std::string_view name, const Value& input, const Arguments& arguments);

 private:
  friend class DepthScope;
  enum class Flow : uint8_t { kNormal, kBreak, kContinue };

  // statements.cpp
  Status execute(const Body& body);
  Status execute(const Statement& statement);
  Status execute_for(const Statement& statement);
  Status execute_set(const Statement& statement);
  Status execute_macro(const Statement& statement);
  Status execute_call_block(const Statement& statement);
  Status execute_filter_block(const Statement& statement);
  Status execute_with(const Statement& statement);
  Status assign(const Target& target, Value value, const Statement& at);
  Status output(const Value& value);
  Status check_output();
  // Runs the body with its own output.
  Result<Value> captured(const Body& body);
  Result<Value> call_macro(const Callable& callee, const Arguments& arguments);
  Status bind_parameters(const Macro& macro, const Arguments& arguments, Scope& scope);

  // interpreter.cpp
  Result<Value> evaluate(const Expression& expression);
  Result<Value> evaluate_unlocated(const Expression& expression);
  Result<Value> evaluate_name(const Expression& expression);
  Result<Value> evaluate_container(const Expression& expression);
  Result<Value> evaluate_item(const Expression& expression);
  Result<Value> evaluate_slice(const Expression& expression);
  Result<Value> evaluate_call(const Expression& expression);
  Result<Value> evaluate_filter(const Expression& expression, const Value* input);
  Result<Value> evaluate_test(const Expression& expression);
  Result<Value> evaluate_unary(const Expression& expression);
  Result<Value> evaluate_compare(const Expression& expression);
  Result<Value> evaluate_concat(const Expression& expression);
  Result<Arguments> evaluate_arguments(const Expression& expression, size_t first);
  Result<Value> method_or_undefined(const Value& object, std::string_view name);
  std::shared_ptr<Scope> push_scope(std::shared_ptr<Scope> parent);

  const Syntax& syntax_;
  const Limits limits_;
  const std::tm* now_;
  const CancelFlag& cancel_;
  uint64_t steps_left_;
  uint64_t memory_left_;
  uint32_t depth_ = 0;
  Flow flow_ = Flow::kNormal;
  std::shared_ptr<Scope> scope_;
  TextBuilder* out_ = nullptr;
  int64_t loop_depth_ = 0;
  // Emptied at the end: these are what cycles of references go through.
  std::vector<std::shared_ptr<Namespace>> namespaces_;
  std::vector<std::shared_ptr<Scope>> captured_scopes_;
};

}  // namespace tandem::jinja

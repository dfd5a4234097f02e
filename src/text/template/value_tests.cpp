// What may stand after `is`.
#include <algorithm>

#include "text/template/builtin_helpers.h"
#include "text/template/unicode.h"

namespace tandem::jinja {
namespace {

using Args = Arguments;
using Kind = Value::Kind;

template <Kind kind>
Result<bool> is_kind(Interpreter&, const Value& input, const Args&) {
  return input.is(kind);
}

Result<bool> is_defined(Interpreter&, const Value& input, const Args&) {
  return !input.is_undefined();
}

Result<bool> is_true(Interpreter&, const Value& input, const Args&) {
  return input.is(Kind::kBool) && input.as_bool();
}

Result<bool> is_false(Interpreter&, const Value& input, const Args&) {
  return input.is(Kind::kBool) && !input.as_bool();
}

Result<bool> is_number(Interpreter&, const Value& input, const Args&) { return input.is_number(); }

Result<bool> is_sequence(Interpreter&, const Value& input, const Args&) {
  if (input.is_list()) return input.as_list().form != List::Form::kGenerator;
  return input.is_string() || input.is_map() || input.is_undefined();
}

Result<bool> is_iterable(Interpreter&, const Value& input, const Args&) {
  return input.is_list() || input.is_string() || input.is_map() || input.is_undefined() ||
         input.is(Kind::kLoop);
}

Result<int64_t> integer_input(const Value& input) {
  if (!input.is_integral()) return expected_type("an integer", input);
  return input.as_integer();
}

Result<bool> is_odd(Interpreter&, const Value& input, const Args&) {
  TANDEM_ASSIGN_OR_RETURN(const int64_t value, integer_input(input));
  return value % 2 != 0;
}

Result<bool> is_even(Interpreter&, const Value& input, const Args&) {
  TANDEM_ASSIGN_OR_RETURN(const int64_t value, integer_input(input));
  return value % 2 == 0;
}

Result<bool> is_divisible(Interpreter&, const Value& input, const Args& args) {
  TANDEM_ASSIGN_OR_RETURN(const int64_t value, integer_input(input));
  TANDEM_ASSIGN_OR_RETURN(const int64_t by, integer_argument(args, 0, "num", 0));
  if (by == 0) return invalid_argument("division by zero");
  return by == -1 || value % by == 0;
}

template <Operator operation>
Result<bool> compares(Interpreter& in, const Value& input, const Args& args) {
  if (args.positional.size() != 1) return invalid_argument("expected one argument");
  return compare(in, operation, input, args.positional[0]);
}

Result<bool> is_same(Interpreter& in, const Value& input, const Args& args) {
  if (args.positional.size() != 1) return invalid_argument("expected one argument");
  const Value& other = args.positional[0];
  if (input.kind() != other.kind()) return false;
  return equal(in, input, other);
}

template <bool (*has_case)(uint32_t), bool (*has_other)(uint32_t)>
Result<bool> is_case(Interpreter& in, const Value& input, const Args&) {
  TANDEM_ASSIGN_OR_RETURN(const Value text, to_string(in, input));
  bool any = false;
  for (size_t at = 0; at < text.view().size(); at += character_bytes(text.view(), at)) {
    const uint32_t c = character_at(text.view(), at);
    if (has_other(c)) return false;
    any = any || has_case(c);
  }
  return any;
}

Result<bool> is_escaped(Interpreter&, const Value& input, const Args&) {
  return input.is_string() && input.as_text().markup;
}

Result<bool> is_filter(Interpreter&, const Value& input, const Args&) {
  return input.is_string() && find_filter(input.view()) != nullptr;
}

Result<bool> is_test(Interpreter&, const Value& input, const Args&) {
  return input.is_string() && find_test(input.view()) != nullptr;
}

constexpr Test kTests[] = {
    {"!=", compares<Operator::kNotEqual>},
    {"<", compares<Operator::kLess>},
    {"<=", compares<Operator::kLessEqual>},
    {"==", compares<Operator::kEqual>},
    {">", compares<Operator::kGreater>},
    {">=", compares<Operator::kGreaterEqual>},
    {"boolean", is_kind<Kind::kBool>},
    {"callable", is_kind<Kind::kCallable>},
    {"defined", is_defined},
    {"divisibleby", is_divisible},
    {"eq", compares<Operator::kEqual>},
    {"equalto", compares<Operator::kEqual>},
    {"escaped", is_escaped},
    {"even", is_even},
    {"false", is_false},
    {"filter", is_filter},
    {"float", is_kind<Kind::kFloat>},
    {"ge", compares<Operator::kGreaterEqual>},
    {"greaterthan", compares<Operator::kGreater>},
    {"gt", compares<Operator::kGreater>},
    {"in", compares<Operator::kIn>},
    {"integer", is_kind<Kind::kInteger>},
    {"iterable", is_iterable},
    {"le", compares<Operator::kLessEqual>},
    {"lessthan", compares<Operator::kLess>},
    {"lower", is_case<is_lower, is_upper>},
    {"lt", compares<Operator::kLess>},
    {"mapping", is_kind<Kind::kMap>},
    {"ne", compares<Operator::kNotEqual>},
    {"none", is_kind<Kind::kNone>},
    {"number", is_number},
    {"odd", is_odd},
    {"sameas", is_same},
    {"sequence", is_sequence},
    {"string", is_kind<Kind::kString>},
    {"test", is_test},
    {"true", is_true},
    {"undefined", is_kind<Kind::kUndefined>},
    {"upper", is_case<is_upper, is_lower>},
};

}  // namespace

const Test* find_test(std::string_view name) {
  const auto* found = std::find_if(std::begin(kTests), std::end(kTests),
                                   [&](const Test& test) { return test.name == name; });
  return found == std::end(kTests) ? nullptr : found;
}

}  // namespace tandem::jinja

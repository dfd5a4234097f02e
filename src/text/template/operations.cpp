#include "text/template/operations.h"

#include <string.h>  // memmem

#include <algorithm>
#include <cmath>

#include "text/template/depth_scope.h"
#include "text/template/unicode.h"

namespace tandem::jinja {
namespace {

Status type_error(std::string_view sign, const Value& left, const Value& right) {
  return invalid_argument("'" + std::string(sign) + "' between " + std::string(left.type_name()) +
                          " and " + std::string(right.type_name()));
}

std::string_view sign_of(Operator operation) {
  static constexpr std::string_view kSigns[] = {
      "+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};
  return kSigns[static_cast<size_t>(operation)];
}

Result<Value> repeated(Interpreter& interpreter, const Value& sequence, int64_t times) {
  const auto n = static_cast<uint64_t>(std::max<int64_t>(times, 0));
  if (sequence.is_string()) {
    const Text& text = sequence.as_text();
    const size_t most = interpreter.limits().text_bytes;
    if (!text.bytes.empty() && n > most / text.bytes.size()) {
      return unsupported("the limit of bytes in one text (" + std::to_string(most) +
                         ") is reached");
    }
    TANDEM_RETURN_IF_ERROR(interpreter.charge(n / 16));
    TextBuilder out = interpreter.builder();
    if (!text.bytes.empty()) {
      for (uint64_t i = 0; i < n; ++i) out.append(text);
    }
    return interpreter.make_text(out);
  }
  const List& list = sequence.as_list();
  std::vector<Value> items;
  if (!list.items.empty()) {
    const uint64_t most = interpreter.limits().memory_bytes / sizeof(Value);
    if (n > most / list.items.size()) return interpreter.charge_memory(UINT64_MAX);
    TANDEM_RETURN_IF_ERROR(interpreter.charge_memory(n * list.items.size() * sizeof(Value)));
    TANDEM_RETURN_IF_ERROR(interpreter.charge(n * list.items.size() / 8));
    for (uint64_t i = 0; i < n; ++i) {
      items.insert(items.end(), list.items.begin(), list.items.end());
    }
  }
  return interpreter.make_list(std::move(items), list.form);
}

// "+" of two texts.  Text that went through `safe` escapes what it is joined with, as Markup does.
Result<Value> joined(Interpreter& interpreter, const Text& left, const Text& right) {
  TextBuilder out = interpreter.builder();
  const bool markup = left.markup || right.markup;
  for (const Text* part : {&left, &right}) {
    if (markup && !part->markup) {
      append_escaped(out, *part);
    } else {
      out.append(*part);
    }
  }
  if (out.overflowed()) return interpreter.make_text(out);
  Text text = out.take();
  text.markup = markup;
  return interpreter.make_text(std::move(text));
}

Result<Value> add(Interpreter& interpreter, const Value& left, const Value& right) {
  if (left.is_string() && right.is_string()) {
    return joined(interpreter, left.as_text(), right.as_text());
  }
  if (left.is_list() && right.is_list() && left.as_list().form == right.as_list().form) {
    const auto& first = left.as_list().items;
    const auto& second = right.as_list().items;
    TANDEM_RETURN_IF_ERROR(
        interpreter.charge_memory((first.size() + second.size()) * sizeof(Value)));
    std::vector<Value> items;
    items.reserve(first.size() + second.size());
    items.insert(items.end(), first.begin(), first.end());
    items.insert(items.end(), second.begin(), second.end());
    return interpreter.make_list(std::move(items), left.as_list().form);
  }
  return type_error("+", left, right);
}

int64_t floor_divide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return quotient * b != a && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

Result<Value> integer_power(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) return invalid_argument("division by zero");
    return Value::floating(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  if (base == 0 || base == 1) return Value::integer(exponent == 0 ? 1 : base);
  if (base == -1) return Value::integer(exponent % 2 == 0 ? 1 : -1);
  int64_t result = 1;
  for (; exponent > 0; --exponent) {
    if (__builtin_mul_overflow(result, base, &result)) return invalid_argument("integer overflow");
  }
  return Value::integer(result);
}

Result<Value> integer_operation(Operator operation, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  switch (operation) {
    case Operator::kAdd:
      overflow = __builtin_add_overflow(a, b, &result);
      break;
    case Operator::kSubtract:
      overflow = __builtin_sub_overflow(a, b, &result);
      break;
    case Operator::kMultiply:
      overflow = __builtin_mul_overflow(a, b, &result);
      break;
    case Operator::kPower:
      return integer_power(a, b);
    default:
      if (b == 0) return invalid_argument("division by zero");
      if (operation == Operator::kDivide) {
        return Value::floating(static_cast<double>(a) / static_cast<double>(b));
      }
      if (b == -1) {
        overflow = __builtin_sub_overflow(int64_t{0}, a, &result);
        if (operation == Operator::kModulo) return Value::integer(0);
      } else {
        result = floor_divide(a, b);
        if (operation == Operator::kModulo) result = a - result * b;
      }
  }
  if (overflow) return invalid_argument("integer overflow");
  return Value::integer(result);
}

Result<Value> float_operation(Operator operation, double a, double b) {
  switch (operation) {
    case Operator::kAdd:
      return Value::floating(a + b);
    case Operator::kSubtract:
      return Value::floating(a - b);
    case Operator::kMultiply:
      return Value::floating(a * b);
    case Operator::kPower:
      return Value::floating(std::pow(a, b));
    default:
      break;
  }
  if (b == 0) return invalid_argument("division by zero");
  if (operation == Operator::kDivide) return Value::floating(a / b);
  double rest = std::fmod(a, b);
  if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
  if (operation == Operator::kModulo) return Value::floating(rest);
  return Value::floating(std::floor((a - rest) / b + 0.5));
}

Result<bool> equal_lists(Interpreter& interpreter, const List& left, const List& right) {
  if (left.form != right.form || left.items.size() != right.items.size()) return false;
  for (size_t i = 0; i < left.items.size(); ++i) {
    TANDEM_ASSIGN_OR_RETURN(const bool same, equal(interpreter, left.items[i], right.items[i]));
    if (!same) return false;
  }
  return true;
}

Result<bool> equal_maps(Interpreter& interpreter, const Map& left, const Map& right) {
  if (left.entries.size() != right.entries.size()) return false;
  for (const auto& [key, value] : left.entries) {
    TANDEM_RETURN_IF_ERROR(interpreter.charge(1 + right.entries.size() / 16));
    const Value* other = right.find(key);
    if (other == nullptr) return false;
    TANDEM_ASSIGN_OR_RETURN(const bool same, equal(interpreter, value, *other));
    if (!same) return false;
  }
  return true;
}

// Python's slice.indices().
struct Indices {
  int64_t start = 0, stop = 0, step = 1;
};

Result<Indices> indices(int64_t size, const Value* start, const Value* stop, const Value* step) {
  for (const Value* bound : {start, stop, step}) {
    if (bound != nullptr && !bound->is_integral()) {
      return invalid_argument("a slice's bounds must be integers");
    }
  }
  Indices result;
  if (step != nullptr) result.step = step->as_integer();
  if (result.step == 0) return invalid_argument("a slice's step cannot be zero");
  if (result.step == INT64_MIN) result.step = INT64_MIN + 1;
  const bool backwards = result.step < 0;
  const int64_t low = backwards ? -1 : 0;
  const int64_t high = backwards ? size - 1 : size;
  const auto clamped = [&](const Value* bound, int64_t otherwise) {
    if (bound == nullptr) return otherwise;
    int64_t at = bound->as_integer();
    if (at < 0) at = at < -size ? low : at + size;
    return std::clamp(at, low, high);
  };
  result.start = clamped(start, backwards ? high : low);
  result.stop = clamped(stop, backwards ? low : high);
  return result;
}

template <typename Visit>
void visit_slice(const Indices& at, Visit visit) {
  if (at.step > 0) {
    for (int64_t i = at.start; i < at.stop;) {
      visit(i);
      if (at.step >= at.stop - i) break;
      i += at.step;
    }
  } else {
    for (int64_t i = at.start; i > at.stop;) {
      visit(i);
      if (at.step <= at.stop - i) break;
      i += at.step;
    }
  }
}

Result<Value> text_slice(Interpreter& interpreter, const Text& text, const Value* start,
                         const Value* stop, const Value* step) {
  TANDEM_RETURN_IF_ERROR(interpreter.charge(1 + text.bytes.size() / 64));
  const auto size = static_cast<int64_t>(count_characters(text.bytes));
  TANDEM_ASSIGN_OR_RETURN(const Indices at, indices(size, start, stop, step));
  if (at.step == 1) {
    if (at.start >= at.stop) return interpreter.make_text(Text());
    const size_t begin = byte_of_character(text.bytes, static_cast<size_t>(at.start));
    const size_t length =
        byte_of_character(text.view().substr(begin), static_cast<size_t>(at.stop - at.start));
    return interpreter.substring(text, begin, begin + length);
  }
  TANDEM_RETURN_IF_ERROR(interpreter.charge_memory(static_cast<uint64_t>(size) * sizeof(size_t)));
  TANDEM_RETURN_IF_ERROR(interpreter.charge(static_cast<uint64_t>(size) / 16));
  std::vector<size_t> begins;
  begins.reserve(static_cast<size_t>(size));
  for (size_t byte = 0; byte < text.bytes.size(); byte += character_bytes(text.bytes, byte)) {
    TANDEM_RETURN_IF_ERROR(interpreter.go_on(begins.size()));
    begins.push_back(byte);
  }
  TextBuilder out = interpreter.builder();
  Status status;
  size_t n_done = 0;
  visit_slice(at, [&](int64_t i) {
    if (status.ok()) status = interpreter.go_on(n_done++);
    if (!status.ok()) return;
    const size_t begin = begins[static_cast<size_t>(i)];
    out.append(text, begin, begin + character_bytes(text.bytes, begin));
  });
  TANDEM_RETURN_IF_ERROR(status);
  return interpreter.make_text(out);
}

}  // namespace

size_t find_text(std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  const void* found =
      ::memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

Result<Value> binary_operation(Interpreter& interpreter, Operator operation, const Value& left,
                               const Value& right) {
  for (const Value* side : {&left, &right}) {
    if (side->is_undefined()) return invalid_argument(side->undefined_reason());
  }
  if (left.is_integral() && right.is_integral()) {
    return integer_operation(operation, left.as_integer(), right.as_integer());
  }
  if (left.is_number() && right.is_number()) {
    return float_operation(operation, left.as_double(), right.as_double());
  }
  if (operation == Operator::kAdd) return add(interpreter, left, right);
  if (operation == Operator::kMultiply) {
    const auto is_sequence = [](const Value& value) {
      return value.is_string() || value.is_list();
    };
    if (is_sequence(left) && right.is_integral()) {
      return repeated(interpreter, left, right.as_integer());
    }
    if (is_sequence(right) && left.is_integral()) {
      return repeated(interpreter, right, left.as_integer());
    }
  }
  if (operation == Operator::kModulo && left.is_string()) {
    Arguments arguments;
    if (right.is_list() && right.as_list().form == List::Form::kTuple) {
      arguments.positional = right.as_list().items;
    } else {
      arguments.positional.push_back(right);
    }
    return interpreter.apply_filter("format", left, arguments);
  }
  return type_error(sign_of(operation), left, right);
}

Result<bool> equal(Interpreter& interpreter, const Value& left, const Value& right) {
  TANDEM_RETURN_IF_ERROR(interpreter.charge(1));
  if (left.is_string() && right.is_string() && left.view().size() == right.view().size()) {
    TANDEM_RETURN_IF_ERROR(interpreter.charge_bytes(left.view().size()));
  }
  if (left.is_list() && right.is_list()) {
    return equal_lists(interpreter, left.as_list(), right.as_list());
  }
  if (left.is_map() && right.is_map()) {
    return equal_maps(interpreter, left.as_map(), right.as_map());
  }
  return equal_scalars(left, right);
}

Result<int> order(Interpreter& interpreter, const Value& left, const Value& right) {
  for (const Value* side : {&left, &right}) {
    if (side->is_undefined()) return invalid_argument(side->undefined_reason());
  }
  TANDEM_RETURN_IF_ERROR(interpreter.charge(1));
  const auto sign = [](const auto& a, const auto& b) { return a < b ? -1 : b < a ? 1 : 0; };
  if (left.is_integral() && right.is_integral()) {
    return sign(left.as_integer(), right.as_integer());
  }
  if (left.is_number() && right.is_number()) return sign(left.as_double(), right.as_double());
  if (left.is_string() && right.is_string()) {
    TANDEM_RETURN_IF_ERROR(
        interpreter.charge_bytes(std::min(left.view().size(), right.view().size())));
    return sign(left.view(), right.view());  // UTF-8 sorts as code points do
  }
  if (left.is_list() && right.is_list()) {
    const auto& a = left.as_list().items;
    const auto& b = right.as_list().items;
    for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
      TANDEM_ASSIGN_OR_RETURN(const bool same, equal(interpreter, a[i], b[i]));
      if (!same) return order(interpreter, a[i], b[i]);
    }
    return sign(a.size(), b.size());
  }
  return type_error("<", left, right);
}

Result<bool> contains(Interpreter& interpreter, const Value& container, const Value& item) {
  switch (container.kind()) {
    case Value::Kind::kUndefined:
      return false;
    case Value::Kind::kString:
      if (!item.is_string()) return type_error("in", item, container);
      TANDEM_RETURN_IF_ERROR(interpreter.charge_bytes(container.view().size()));
      return find_text(container.view(), item.view(), 0) != std::string_view::npos;
    case Value::Kind::kList:
      for (const Value& candidate : container.as_list().items) {
        TANDEM_ASSIGN_OR_RETURN(const bool same, equal(interpreter, candidate, item));
        if (same) return true;
      }
      return false;
    case Value::Kind::kMap:
      if (item.is_list() || item.is_map()) return type_error("in", item, container);
      TANDEM_RETURN_IF_ERROR(interpreter.charge(1 + container.as_map().entries.size() / 16));
      return container.as_map().find(item) != nullptr;
    default:
      return type_error("in", item, container);
  }
}

Result<bool> compare(Interpreter& interpreter, Operator operation, const Value& left,
                     const Value& right) {
  switch (operation) {
    case Operator::kEqual:
      return equal(interpreter, left, right);
    case Operator::kNotEqual: {
      TANDEM_ASSIGN_OR_RETURN(const bool same, equal(interpreter, left, right));
      return !same;
    }
    case Operator::kIn:
      return contains(interpreter, right, left);
    case Operator::kNotIn: {
      TANDEM_ASSIGN_OR_RETURN(const bool inside, contains(interpreter, right, left));
      return !inside;
    }
    default:
      break;
  }
  // A NaN is neither before nor after anything.
  if (left.is_number() && right.is_number() &&
      (std::isnan(left.as_double()) || std::isnan(right.as_double()))) {
    return false;
  }
  TANDEM_ASSIGN_OR_RETURN(const int sign, order(interpreter, left, right));
  switch (operation) {
    case Operator::kLess:
      return sign < 0;
    case Operator::kLessEqual:
      return sign <= 0;
    case Operator::kGreater:
      return sign > 0;
    default:
      return sign >= 0;
  }
}

Result<Value> slice(Interpreter& interpreter, const Value& object, const Value* start,
                    const Value* stop, const Value* step) {
  if (object.is_undefined()) return invalid_argument(object.undefined_reason());
  if (object.is_string()) return text_slice(interpreter, object.as_text(), start, stop, step);
  if (!object.is_list() || object.as_list().form == List::Form::kGenerator) {
    return Value::undefined("a value of type " + std::string(object.type_name()) +
                            " cannot be sliced");
  }
  const List& list = object.as_list();
  TANDEM_ASSIGN_OR_RETURN(const Indices at,
                          indices(static_cast<int64_t>(list.items.size()), start, stop, step));
  TANDEM_RETURN_IF_ERROR(interpreter.charge_memory(list.items.size() * sizeof(Value)));
  std::vector<Value> items;
  visit_slice(at, [&](int64_t i) { items.push_back(list.items[static_cast<size_t>(i)]); });
  return interpreter.make_list(std::move(items), list.form);
}

void append_escaped(TextBuilder& out, const Text& text) {
  size_t copied = 0;
  for (size_t i = 0; i < text.bytes.size(); ++i) {
    std::string_view replacement;
    switch (text.bytes[i]) {
      case '&':
        replacement = "&amp;";
        break;
      case '<':
        replacement = "&lt;";
        break;
      case '>':
        replacement = "&gt;";
        break;
      case '"':
        replacement = "&#34;";
        break;
      case '\'':
        replacement = "&#39;";
        break;
      default:
        continue;
    }
    out.append(text, copied, i);
    out.append(replacement, text.trusted_at(i));
    copied = i + 1;
  }
  out.append(text, copied, text.bytes.size());
}

}  // namespace tandem::jinja

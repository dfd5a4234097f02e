// Filters over single values, and the table's front door.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include "text/template/builtin_helpers.h"
#include "text/template/unicode.h"

namespace tandem::jinja {
namespace {

using Args = Arguments;

template <Case how>
Result<Value> filter_case(Interpreter& in, const Value& input, const Args&) {
  TANDEM_ASSIGN_OR_RETURN(const Value text, to_string(in, input));
  return change_case(in, text.as_text(), how);
}

Result<Value> filter_trim(Interpreter& in, const Value& input, const Args& args) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {"chars"}));
  TANDEM_ASSIGN_OR_RETURN(const Value text, to_string(in, input));
  TANDEM_ASSIGN_OR_RETURN(const Text* set, text_argument(args, 0, "chars"));
  return strip(in, text.as_text(), set, true, true);
}

Result<Value> filter_replace(Interpreter& in, const Value& input, const Args& args) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {"old", "new", "count"}));
  const Value* old = args.find(0, "old");
  const Value* replacement = args.find(1, "new");
  if (old == nullptr || replacement == nullptr) return invalid_argument("expected two strings");
  const Value* given = args.find(2, "count");
  int64_t count = -1;
  if (given != nullptr && !given->is_none()) {
    TANDEM_ASSIGN_OR_RETURN(count, integer_argument(args, 2, "count", -1));
  }
  TANDEM_ASSIGN_OR_RETURN(const Value text, to_string(in, input));
  TANDEM_ASSIGN_OR_RETURN(const Value old_text, to_string(in, *old));
  TANDEM_ASSIGN_OR_RETURN(const Value new_text, to_string(in, *replacement));
  return replace(in, text.as_text(), old_text.as_text(), new_text.as_text(), count);
}

Result<Value> filter_string(Interpreter& in, const Value& input, const Args&) {
  return to_string(in, input);
}

Result<Value> filter_safe(Interpreter& in, const Value& input, const Args&) {
  TANDEM_ASSIGN_OR_RETURN(const Value text, to_string(in, input));
  Text copy = text.as_text();
  copy.markup = true;
  return in.make_text(std::move(copy));
}

Result<Value> filter_escape(Interpreter& in, const Value& input, const Args&) {
  if (input.is_string() && input.as_text().markup) return input;
  TANDEM_ASSIGN_OR_RETURN(const Value text, to_string(in, input));
  TextBuilder out = in.builder();
  append_escaped(out, text.as_text());
  if (out.overflowed()) return in.make_text(out);
  Text escaped = out.take();
  escaped.markup = true;
  return in.make_text(std::move(escaped));
}

Result<Value> filter_center(Interpreter& in, const Value& input, const Args& args) {
  TANDEM_ASSIGN_OR_RETURN(const int64_t width, integer_argument(args, 0, "width", 80));
  TANDEM_ASSIGN_OR_RETURN(const Value text, to_string(in, input));
  return centered(in, text.as_text(), width);
}

Result<Value> filter_format(Interpreter& in, const Value& input, const Args& args) {
  TANDEM_ASSIGN_OR_RETURN(const Value text, to_string(in, input));
  return format_percent(in, text.as_text(), args);
}

Result<Value> filter_wordcount(Interpreter& in, const Value& input, const Args&) {
  TANDEM_ASSIGN_OR_RETURN(const Value text, to_string(in, input));
  int64_t count = 0;
  bool inside = false;
  size_t n_done = 0;
  for (size_t at = 0; at < text.view().size(); at += character_bytes(text.view(), at)) {
    TANDEM_RETURN_IF_ERROR(in.go_on(n_done++));
    const uint32_t c = character_at(text.view(), at);
    const bool word = c == '_' || c >= 0x80 || (c >= '0' && c <= '9') || is_cased(c);
    if (word && !inside) ++count;
    inside = word && !is_space(c);
  }
  return Value::integer(count);
}

Result<Value> filter_truncate(Interpreter& in, const Value& input, const Args& args) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {"length", "killwords", "end", "leeway"}));
  TANDEM_ASSIGN_OR_RETURN(const int64_t length, integer_argument(args, 0, "length", 255));
  TANDEM_ASSIGN_OR_RETURN(const Text* given, text_argument(args, 2, "end"));
  TANDEM_ASSIGN_OR_RETURN(const int64_t leeway, integer_argument(args, 3, "leeway", 5));
  const Text end = given != nullptr ? *given : make_text("...", true);
  const auto end_size = static_cast<int64_t>(count_characters(end.bytes));
  if (length < end_size || leeway < 0) return invalid_argument("length is too small");
  TANDEM_ASSIGN_OR_RETURN(const Value text, to_string(in, input));
  const std::string_view view = text.view();
  if (static_cast<int64_t>(count_characters(view)) - leeway <= length) return text;
  size_t kept = byte_of_character(view, static_cast<size_t>(length - end_size));
  if (!bool_argument(args, 1, "killwords", false)) {
    const size_t space = view.substr(0, kept).rfind(' ');
    if (space != std::string_view::npos) kept = space;
  }
  TextBuilder out = in.builder();
  out.append(text.as_text(), 0, kept);
  out.append(end);
  return in.make_text(out);
}

Result<Value> filter_indent(Interpreter& in, const Value& input, const Args& args) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {"width", "first", "blank"}));
  const Value* width = args.find(0, "width");
  Text indention = make_text("    ", true);
  if (width != nullptr && width->is_string()) {
    indention = width->as_text();
  } else if (width != nullptr) {
    TANDEM_ASSIGN_OR_RETURN(const int64_t spaces, integer_argument(args, 0, "width", 4));
    if (spaces > 1000) return unsupported("the limit of indentation (1000) is reached");
    indention =
        make_text(std::string(static_cast<size_t>(std::max<int64_t>(spaces, 0)), ' '), true);
  }
  const bool first = bool_argument(args, 1, "first", false);
  const bool blank = bool_argument(args, 2, "blank", false);
  TANDEM_ASSIGN_OR_RETURN(const Value given, to_string(in, input));
  TextBuilder ended = in.builder();
  ended.append(given.as_text());
  ended.append("\n", true);
  TANDEM_ASSIGN_OR_RETURN(const Value text, in.make_text(ended));
  TANDEM_ASSIGN_OR_RETURN(const std::vector<Value> lines, split_lines(in, text.as_text(), false));
  TextBuilder out = in.builder();
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.append("\n", true);
    if (i == 0 ? first : blank || !lines[i].view().empty()) out.append(indention);
    out.append(lines[i].as_text());
  }
  return in.make_text(out);
}

Result<Value> filter_tojson(Interpreter& in, const Value& input, const Args& args) {
  TANDEM_RETURN_IF_ERROR(
      check_arguments(args, {"ensure_ascii", "indent", "separators", "sort_keys"}));
  JsonStyle style;
  const Value* separators = args.find(2, "separators");
  if (separators != nullptr && !separators->is_none()) {
    if (!separators->is_list() || separators->as_list().items.size() != 2) {
      return expected_type("two separators", *separators);
    }
    const std::vector<Value>& pair = separators->as_list().items;
    if (!pair[0].is_string()) return expected_type("a string", pair[0]);
    if (!pair[1].is_string()) return expected_type("a string", pair[1]);
    style.item_separator = &pair[0].as_text();
    style.key_separator = &pair[1].as_text();
  }
  style.ensure_ascii = bool_argument(args, 0, "ensure_ascii", false);
  style.sort_keys = bool_argument(args, 3, "sort_keys", false);
  const Value* indent = args.find(1, "indent");
  if (indent != nullptr && !indent->is_none()) {
    TANDEM_ASSIGN_OR_RETURN(style.indent, integer_argument(args, 1, "indent", 0));
    style.indent = std::max<int64_t>(style.indent, 0);
    if (style.indent > 1000) return unsupported("the limit of indentation (1000) is reached");
  }
  TextBuilder out = in.builder();
  TANDEM_RETURN_IF_ERROR(append_json(in, out, input, style));
  return in.make_text(out);
}

Result<Value> filter_default(Interpreter&, const Value& input, const Args& args) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {"default_value", "boolean"}));
  const bool falsy_too = bool_argument(args, 1, "boolean", false);
  if (!input.is_undefined() && !(falsy_too && !input.truthy())) return input;
  const Value* otherwise = args.find(0, "default_value");
  return otherwise != nullptr ? *otherwise : Value::trusted("");
}

Result<Value> filter_attr(Interpreter& in, const Value& input, const Args& args) {
  if (args.positional.size() != 1 || !args.positional[0].is_string()) {
    return invalid_argument("expected the name of an attribute");
  }
  // Unlike the dot, this filter never looks at a dict's items.
  if (input.is_map() && find_method(input, args.positional[0].view()) == nullptr) {
    return Value::undefined("there is no attribute '" + std::string(args.positional[0].view()) +
                            "'");
  }
  return in.attribute(input, args.positional[0].view());
}

// ---------------------------------------------------------------- numbers

// The number that Python's int() or float() reads; none when it refuses.
std::optional<double> parse_float(std::string_view text) {
  const Span kept = strip_space(text, true, true);
  std::string digits(text.substr(kept.begin, kept.end - kept.begin));
  if (digits.empty() || digits.size() > 400 || digits.find_first_of("xXpP") != std::string::npos) {
    return std::nullopt;
  }
  if (digits[0] == '+') digits.erase(0, 1);
  double value = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (parsed.ptr != digits.data() + digits.size()) return std::nullopt;
  if (parsed.ec == std::errc::result_out_of_range) return std::strtod(digits.c_str(), nullptr);
  if (parsed.ec != std::errc()) return std::nullopt;
  return value;
}

std::optional<int64_t> parse_integer(std::string_view text, int base) {
  const Span kept = strip_space(text, true, true);
  text = text.substr(kept.begin, kept.end - kept.begin);
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  if (base == 16 && (text.starts_with("0x") || text.starts_with("0X"))) text.remove_prefix(2);
  if (base == 2 && (text.starts_with("0b") || text.starts_with("0B"))) text.remove_prefix(2);
  if (base == 8 && (text.starts_with("0o") || text.starts_with("0O"))) text.remove_prefix(2);
  std::string digits = negative ? "-" : "";
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      digits.push_back(text[i]);
    } else if (i == 0 || i + 1 == text.size() || text[i - 1] == '_') {
      return std::nullopt;
    }
  }
  int64_t value = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (digits.empty() || parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size()) {
    return std::nullopt;
  }
  return value;
}

std::optional<int64_t> whole(double value) {
  if (!(value > -9.2e18 && value < 9.2e18)) return std::nullopt;
  return static_cast<int64_t>(value);
}

Result<Value> filter_int(Interpreter&, const Value& input, const Args& args) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {"default", "base"}));
  TANDEM_ASSIGN_OR_RETURN(const int64_t base, integer_argument(args, 1, "base", 10));
  if (base < 2 || base > 36) return invalid_argument("the base must lie between 2 and 36");
  if (input.is_undefined()) return undefined_error(input);
  std::optional<int64_t> value;
  if (input.is_string()) {
    value = parse_integer(input.view(), static_cast<int>(base));
    if (!value) {
      if (const auto number = parse_float(input.view())) value = whole(*number);
    }
  } else if (input.is_integral()) {
    value = input.as_integer();
  } else if (input.is_number()) {
    value = whole(input.as_double());
  }
  if (value) return Value::integer(*value);
  const Value* otherwise = args.find(0, "default");
  return otherwise != nullptr ? *otherwise : Value::integer(0);
}

Result<Value> filter_float(Interpreter&, const Value& input, const Args& args) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {"default"}));
  if (input.is_undefined()) return undefined_error(input);
  if (input.is_number()) return Value::floating(input.as_double());
  if (input.is_string()) {
    if (const auto value = parse_float(input.view())) return Value::floating(*value);
  }
  const Value* otherwise = args.find(0, "default");
  return otherwise != nullptr ? *otherwise : Value::floating(0);
}

Result<Value> filter_abs(Interpreter&, const Value& input, const Args&) {
  if (!input.is_number()) return expected_type("a number", input);
  if (!input.is_integral()) return Value::floating(std::fabs(input.as_double()));
  if (input.as_integer() == INT64_MIN) return invalid_argument("integer overflow");
  return Value::integer(std::abs(input.as_integer()));
}

Result<Value> filter_round(Interpreter&, const Value& input, const Args& args) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {"precision", "method"}));
  TANDEM_ASSIGN_OR_RETURN(const int64_t precision, integer_argument(args, 0, "precision", 0));
  TANDEM_ASSIGN_OR_RETURN(const Text* method, text_argument(args, 1, "method"));
  if (!input.is_number()) return expected_type("a number", input);
  if (precision < -300 || precision > 300) return invalid_argument("the precision is out of range");
  const std::string how = method != nullptr ? method->bytes : "common";
  const double scale = std::pow(10.0, static_cast<double>(precision));
  if (how == "ceil") return Value::floating(std::ceil(input.as_double() * scale) / scale);
  if (how == "floor") return Value::floating(std::floor(input.as_double() * scale) / scale);
  if (how != "common") return invalid_argument("method must be common, ceil or floor");
  if (input.is_integral() && precision >= 0) return Value::integer(input.as_integer());
  if (precision < 0 || !std::isfinite(input.as_double())) {
    const double rounded = std::nearbyint(input.as_double() * scale) / scale;
    if (!input.is_integral()) return Value::floating(rounded);
    return Value::integer(whole(rounded).value_or(0));
  }
  // Decimal digits rounded correctly from the exact binary value, as Python does.
  char digits[700];
  std::snprintf(digits, sizeof digits, "%.*f", static_cast<int>(precision), input.as_double());
  return Value::floating(std::strtod(digits, nullptr));
}

constexpr Filter kFilters[] = {
    {"abs", filter_abs},
    {"attr", filter_attr},
    {"capitalize", filter_case<Case::kCapitalize>},
    {"center", filter_center},
    {"d", filter_default},
    {"default", filter_default},
    {"e", filter_escape},
    {"escape", filter_escape},
    {"float", filter_float},
    {"format", filter_format},
    {"indent", filter_indent},
    {"int", filter_int},
    {"lower", filter_case<Case::kLower>},
    {"replace", filter_replace},
    {"round", filter_round},
    {"safe", filter_safe},
    {"string", filter_string},
    {"title", filter_case<Case::kTitle>},
    {"tojson", filter_tojson},
    {"trim", filter_trim},
    {"truncate", filter_truncate},
    {"upper", filter_case<Case::kUpper>},
    {"wordcount", filter_wordcount},
};

}  // namespace

const Filter* find_filter(std::string_view name) {
  const auto* found = std::find_if(std::begin(kFilters), std::end(kFilters),
                                   [&](const Filter& filter) { return filter.name == name; });
  return found != std::end(kFilters) ? found : find_sequence_filter(name);
}

}  // namespace tandem::jinja

// printf-like and brace-like formatting, as much of Python's as templates use.
#include <algorithm>
#include <cstdio>

#include "text/template/builtin_helpers.h"
#include "text/template/unicode.h"

namespace tandem::jinja {
namespace {

constexpr int64_t kMaxWidth = 10'000;

struct Style {
  bool left = false, zeros = false, plus = false, space = false;
  int64_t width = 0;
  int64_t precision = -1;
  char type = 's';
};

Result<std::string> number_text(const Value& value, const Style& style) {
  if (!value.is_number()) return expected_type("a number", value);
  char digits[400];
  if (std::string_view("eEfFgG").find(style.type) != std::string_view::npos) {
    char pattern[] = "%.*f";
    pattern[3] = style.type;
    const int precision =
        style.precision < 0 ? 6 : static_cast<int>(std::min<int64_t>(style.precision, 50));
    std::snprintf(digits, sizeof digits, pattern, precision, value.as_double());
    return std::string(digits);
  }
  const int64_t integer = value.is_integral() ? value.as_integer() : [&] {
    const double number = value.as_double();
    return number > -9e18 && number < 9e18 ? static_cast<int64_t>(number) : 0;
  }();
  if (style.type == 'd' || style.type == 'i' || style.type == 'u') return std::to_string(integer);
  const uint64_t magnitude =
      integer < 0 ? uint64_t{0} - static_cast<uint64_t>(integer) : static_cast<uint64_t>(integer);
  const char* pattern = style.type == 'x' ? "%llx" : style.type == 'X' ? "%llX" : "%llo";
  std::snprintf(digits, sizeof digits, pattern, static_cast<unsigned long long>(magnitude));
  return (integer < 0 ? "-" : "") + std::string(digits);
}

Status append_padded(TextBuilder& out, const Text& text, const Style& style) {
  const auto size = static_cast<int64_t>(count_characters(text.bytes));
  const std::string padding(static_cast<size_t>(std::max<int64_t>(style.width - size, 0)), ' ');
  if (!style.left) out.append(padding, true);
  out.append(text);
  if (style.left) out.append(padding, true);
  return ok_status();
}

Status append_number(TextBuilder& out, const Value& value, const Style& style) {
  TANDEM_ASSIGN_OR_RETURN(std::string digits, number_text(value, style));
  const bool negative = !digits.empty() && digits[0] == '-';
  if (!negative && style.plus) digits.insert(0, "+");
  if (!negative && !style.plus && style.space) digits.insert(0, " ");
  if (style.zeros && !style.left) {
    const size_t sign = digits.find_first_of("0123456789");
    while (static_cast<int64_t>(digits.size()) < style.width) digits.insert(sign, "0");
  }
  return append_padded(out, make_text(std::move(digits), true), style);
}

Status append_formatted(Interpreter& interpreter, TextBuilder& out, const Value& value,
                        const Style& style) {
  if (style.type != 's' && style.type != 'r') return append_number(out, value, style);
  TextBuilder inner = interpreter.builder();
  if (style.type == 'r') {
    TANDEM_ASSIGN_OR_RETURN(const Value list, interpreter.make_list({value}));
    TANDEM_RETURN_IF_ERROR(append_string(interpreter, inner, list));
  } else {
    TANDEM_RETURN_IF_ERROR(append_string(interpreter, inner, value));
  }
  if (inner.overflowed()) return interpreter.make_text(inner).status();
  Text text = inner.take();
  TextBuilder part = interpreter.builder();
  size_t begin = 0, end = text.bytes.size();
  if (style.type == 'r') ++begin, --end;  // the brackets of the list
  if (style.precision >= 0) {
    end = begin + byte_of_character(text.view().substr(begin, end - begin),
                                    static_cast<size_t>(style.precision));
  }
  part.append(text, begin, end);
  return append_padded(out, part.take(), style);
}

class PercentFormatter {
 public:
  PercentFormatter(Interpreter& interpreter, const Text& format, const Arguments& arguments)
      : interpreter_(interpreter), format_(format), arguments_(arguments) {}

  Result<Value> run() {
    const std::string_view text = format_.bytes;
    TextBuilder out = interpreter_.builder();
    size_t copied = 0;
    while (true) {
      at_ = text.find('%', copied);
      if (at_ == std::string_view::npos) break;
      TANDEM_RETURN_IF_ERROR(interpreter_.charge(1));
      out.append(format_, copied, at_);
      ++at_;
      TANDEM_RETURN_IF_ERROR(directive(out));
      copied = at_;
    }
    out.append(format_, copied, text.size());
    if (!used_name_ && next_ < arguments_.positional.size() && !arguments_.positional[0].is_map()) {
      return invalid_argument("not all arguments are used by the format");
    }
    return interpreter_.make_text(out);
  }

 private:
  char peek() const { return at_ < format_.bytes.size() ? format_.bytes[at_] : '\0'; }

  Result<Value> take(const std::string& name) {
    if (!name.empty()) {
      used_name_ = true;
      if (const Value* value = arguments_.find(SIZE_MAX, name)) return *value;
      if (!arguments_.positional.empty() && arguments_.positional[0].is_map()) {
        if (const Value* value = arguments_.positional[0].as_map().find(name)) return *value;
      }
      return invalid_argument("the format names '" + name + "', which is not given");
    }
    if (next_ < arguments_.positional.size()) return arguments_.positional[next_++];
    return invalid_argument("not enough arguments for the format");
  }

  Result<int64_t> digits() {
    int64_t value = 0;
    while (peek() >= '0' && peek() <= '9') {
      value = std::min<int64_t>(value * 10 + (peek() - '0'), kMaxWidth + 1);
      ++at_;
    }
    if (value > kMaxWidth) return unsupported("the limit of width in a format is reached");
    return value;
  }

  Status directive(TextBuilder& out) {
    std::string name;
    if (peek() == '(') {
      const size_t close = format_.bytes.find(')', at_);
      if (close == std::string::npos) return invalid_argument("'(' is not closed in the format");
      name = format_.bytes.substr(at_ + 1, close - at_ - 1);
      at_ = close + 1;
    }
    Style style;
    for (;; ++at_) {
      if (peek() == '-') {
        style.left = true;
      } else if (peek() == '0') {
        style.zeros = true;
      } else if (peek() == '+') {
        style.plus = true;
      } else if (peek() == ' ') {
        style.space = true;
      } else {
        break;
      }
    }
    TANDEM_ASSIGN_OR_RETURN(style.width, digits());
    if (peek() == '.') {
      ++at_;
      TANDEM_ASSIGN_OR_RETURN(style.precision, digits());
    }
    style.type = peek();
    if (style.type == '%') {
      out.append("%", format_.trusted_at(at_++));
      return ok_status();
    }
    if (style.type == '\0' ||
        std::string_view("srdiuxXoeEfFgG").find(style.type) == std::string_view::npos) {
      return invalid_argument("the format has an unknown directive");
    }
    ++at_;
    TANDEM_ASSIGN_OR_RETURN(const Value value, take(name));
    return append_formatted(interpreter_, out, value, style);
  }

  Interpreter& interpreter_;
  const Text& format_;
  const Arguments& arguments_;
  size_t at_ = 0;
  size_t next_ = 0;
  bool used_name_ = false;
};

// What stands after the colon: [<>][0][width][.precision][type]
Result<Style> brace_style(std::string_view spec, const Value& value) {
  Style style;
  style.type = value.is_number() && !value.is_integral() ? '\0' : value.is_integral() ? 'd' : 's';
  style.left = !value.is_number();
  size_t at = 0;
  const auto peek = [&] { return at < spec.size() ? spec[at] : '\0'; };
  const auto number = [&] {
    int64_t n = 0;
    for (; peek() >= '0' && peek() <= '9'; ++at)
      n = std::min<int64_t>(n * 10 + peek() - '0', kMaxWidth);
    return n;
  };
  if (peek() == '<' || peek() == '>') style.left = spec[at++] == '<';
  if (peek() == '+') ++at, style.plus = true;
  if (peek() == '0') ++at, style.zeros = true;
  style.width = number();
  if (peek() == '.') {
    ++at;
    style.precision = number();
  }
  if (peek() != '\0') style.type = spec[at++];
  if (style.type == '\0') style.type = style.precision >= 0 ? 'g' : 's';
  if (at < spec.size() ||
      std::string_view("sdxXoeEfFgG").find(style.type) == std::string_view::npos) {
    return unsupported("the format '" + std::string(spec.substr(0, 40)) + "' is not supported");
  }
  return style;
}

}  // namespace

Result<Value> format_percent(Interpreter& interpreter, const Text& format,
                             const Arguments& arguments) {
  TANDEM_RETURN_IF_ERROR(interpreter.charge_bytes(format.bytes.size()));
  return PercentFormatter(interpreter, format, arguments).run();
}

Result<Value> format_braces(Interpreter& interpreter, const Text& format,
                            const Arguments& arguments) {
  TANDEM_RETURN_IF_ERROR(interpreter.charge_bytes(format.bytes.size()));
  const std::string_view text = format.bytes;
  TextBuilder out = interpreter.builder();
  size_t copied = 0;
  size_t automatic = 0;
  for (size_t at = text.find_first_of("{}"); at != std::string_view::npos;
       at = text.find_first_of("{}", copied)) {
    TANDEM_RETURN_IF_ERROR(interpreter.charge(1));
    out.append(format, copied, at);
    if (at + 1 < text.size() && text[at + 1] == text[at]) {  // "{{" and "}}"
      out.append(format, at, at + 1);
      copied = at + 2;
      continue;
    }
    const size_t close = text.find('}', at);
    if (text[at] == '}' || close == std::string_view::npos) {
      return invalid_argument("a single brace in the format");
    }
    const std::string_view field = text.substr(at + 1, close - at - 1);
    const size_t colon = field.find(':');
    const std::string name(field.substr(0, colon));
    const bool is_place = name.find_first_not_of("0123456789") == std::string::npos;
    size_t place = SIZE_MAX;
    if (name.empty()) {
      place = automatic++;
    } else if (is_place && name.size() < 6) {
      place = static_cast<size_t>(std::stoul(name));
    }
    const Value* value = arguments.find(place, is_place ? std::string_view() : name);
    if (value == nullptr) {
      return invalid_argument("the format names '" + name + "', which is not given");
    }
    const std::string_view spec =
        colon == std::string_view::npos ? std::string_view() : field.substr(colon + 1);
    if (spec.empty()) {
      TANDEM_RETURN_IF_ERROR(append_string(interpreter, out, *value));
    } else {
      TANDEM_ASSIGN_OR_RETURN(const Style style, brace_style(spec, *value));
      TANDEM_RETURN_IF_ERROR(append_formatted(interpreter, out, *value, style));
    }
    copied = close + 1;
  }
  out.append(format, copied, text.size());
  return interpreter.make_text(out);
}

}  // namespace tandem::jinja

#include "text/template/builtin_helpers.h"

#include <algorithm>
#include <charconv>

#include "text/template/unicode.h"

namespace tandem::jinja {

const Value* Arguments::find(size_t place, std::string_view name) const {
  if (place < positional.size()) return &positional[place];
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

std::string Arguments::unexpected(std::vector<std::string_view> parameters) const {
  if (positional.size() > parameters.size()) {
    return "takes at most " + std::to_string(parameters.size()) + " arguments, found " +
           std::to_string(positional.size());
  }
  for (const auto& [name, value] : named) {
    if (std::find(parameters.begin(), parameters.end(), name) == parameters.end()) {
      return "has no parameter '" + name + "'";
    }
  }
  return "";
}

Status check_arguments(const Arguments& arguments,
                       const std::vector<std::string_view>& parameters) {
  const std::string problem = arguments.unexpected(parameters);
  return problem.empty() ? ok_status() : invalid_argument(problem);
}

Status undefined_error(const Value& value) { return invalid_argument(value.undefined_reason()); }

Status expected_type(std::string_view what, const Value& found) {
  if (found.is_undefined()) return undefined_error(found);
  return invalid_argument("expected " + std::string(what) + ", found a value of type " +
                          std::string(found.type_name()));
}

Result<int64_t> integer_argument(const Arguments& arguments, size_t place, std::string_view name,
                                 int64_t otherwise) {
  const Value* value = arguments.find(place, name);
  if (value == nullptr) return otherwise;
  if (!value->is_integral())
    return expected_type("an integer for '" + std::string(name) + "'", *value);
  return value->as_integer();
}

bool bool_argument(const Arguments& arguments, size_t place, std::string_view name,
                   bool otherwise) {
  const Value* value = arguments.find(place, name);
  return value == nullptr ? otherwise : value->truthy();
}

Result<const Text*> text_argument(const Arguments& arguments, size_t place, std::string_view name) {
  const Value* value = arguments.find(place, name);
  if (value == nullptr || value->is_none()) return static_cast<const Text*>(nullptr);
  if (!value->is_string()) return expected_type("a string for '" + std::string(name) + "'", *value);
  return &value->as_text();
}

Result<Value> attribute_path(Interpreter& interpreter, const Value& object, const Value& path,
                             const Value* otherwise) {
  Value value = object;
  if (path.is_integral()) {
    TANDEM_ASSIGN_OR_RETURN(value, interpreter.item(object, path));
  } else if (path.is_string()) {
    std::string_view rest = path.view();
    while (true) {
      TANDEM_RETURN_IF_ERROR(interpreter.charge(1));
      const size_t dot = rest.find('.');
      const std::string_view part = rest.substr(0, dot);
      int64_t index = 0;
      const auto parsed = std::from_chars(part.data(), part.data() + part.size(), index);
      const bool is_index = !part.empty() && part[0] != '-' && parsed.ec == std::errc() &&
                            parsed.ptr == part.data() + part.size();
      const Value key = is_index ? Value::integer(index) : Value::trusted(std::string(part));
      TANDEM_ASSIGN_OR_RETURN(value, interpreter.item(value, key));
      if (otherwise != nullptr && value.is_undefined()) value = *otherwise;
      if (dot == std::string_view::npos) break;
      rest.remove_prefix(dot + 1);
    }
  } else {
    return expected_type("the name of an attribute", path);
  }
  if (otherwise != nullptr && value.is_undefined()) return *otherwise;
  return value;
}

namespace {

bool is_word_break(uint32_t c) {
  return is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
}

}  // namespace

Result<Value> change_case(Interpreter& interpreter, const Text& text, Case how) {
  TANDEM_RETURN_IF_ERROR(interpreter.charge(1 + text.bytes.size() / 32));
  TextBuilder out = interpreter.builder();
  std::string run;
  bool first = true;
  size_t n_done = 0;
  for (size_t at = 0; at < text.bytes.size();) {
    TANDEM_RETURN_IF_ERROR(interpreter.go_on(n_done++));
    const bool trusted = text.trusted_at(at);
    const uint32_t c = character_at(text.bytes, at);
    const bool upper = how == Case::kUpper || (how == Case::kSwap && is_lower(c)) ||
                       ((how == Case::kCapitalize || how == Case::kTitle) && first);
    run.clear();
    if (upper) {
      append_upper(run, c);
    } else {
      append_lower(run, c);
    }
    out.append(run, trusted);
    first = how == Case::kTitle && is_word_break(c);
    at += character_bytes(text.bytes, at);
  }
  if (out.overflowed()) return interpreter.make_text(out);
  Text result = out.take();
  result.markup = text.markup;
  return interpreter.make_text(std::move(result));
}

Result<std::vector<Value>> split_lines(Interpreter& interpreter, const Text& text, bool keep_ends) {
  const auto is_break = [](uint32_t c) {
    return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
  };
  std::vector<Value> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.bytes.size();) {
    const uint32_t c = character_at(text.bytes, at);
    size_t after = at + character_bytes(text.bytes, at);
    if (is_break(c)) {
      if (c == '\r' && after < text.bytes.size() && text.bytes[after] == '\n') ++after;
      TANDEM_ASSIGN_OR_RETURN(Value line,
                              interpreter.substring(text, begin, keep_ends ? after : at));
      lines.push_back(std::move(line));
      begin = after;
    }
    at = after;
  }
  if (begin < text.bytes.size()) {
    TANDEM_ASSIGN_OR_RETURN(Value line, interpreter.substring(text, begin, text.bytes.size()));
    lines.push_back(std::move(line));
  }
  return lines;
}

Result<Value> replace(Interpreter& interpreter, const Text& text, const Text& old,
                      const Text& replacement, int64_t count) {
  TANDEM_RETURN_IF_ERROR(interpreter.charge_bytes(text.bytes.size()));
  TextBuilder out = interpreter.builder();
  size_t copied = 0;
  size_t from = 0;
  for (; count != 0 && !out.overflowed(); --count) {
    const size_t found = find_text(text.bytes, old.bytes, from);
    if (found == std::string_view::npos) break;
    TANDEM_RETURN_IF_ERROR(interpreter.charge(1));
    out.append(text, copied, found);
    out.append(replacement);
    copied = found + old.bytes.size();
    from = copied;
    if (!old.bytes.empty()) continue;
    if (found >= text.bytes.size()) break;  // an empty text stands before each character
    from = found + character_bytes(text.bytes, found);
  }
  out.append(text, copied, text.bytes.size());
  if (out.overflowed()) return interpreter.make_text(out);
  Text result = out.take();
  result.markup = text.markup;
  return interpreter.make_text(std::move(result));
}

Result<Value> strip(Interpreter& interpreter, const Text& text, const Text* set, bool left,
                    bool right) {
  if (set != nullptr) {
    // The set is searched once per character that goes, which may be all of them.
    TANDEM_RETURN_IF_ERROR(interpreter.charge(text.bytes.size() * set->bytes.size() / 256));
    const Span kept = strip_set(text.bytes, set->bytes, left, right);
    return interpreter.substring(text, kept.begin, kept.end);
  }
  const Span kept = strip_space(text.bytes, left, right);
  return interpreter.substring(text, kept.begin, kept.end);
}

Result<Value> centered(Interpreter& interpreter, const Text& text, int64_t width) {
  const auto size = static_cast<int64_t>(count_characters(text.bytes));
  const int64_t padding = std::max<int64_t>(width - size, 0);
  if (padding > static_cast<int64_t>(interpreter.limits().text_bytes)) {
    return unsupported("the limit of bytes in one text (" +
                       std::to_string(interpreter.limits().text_bytes) + ") is reached");
  }
  // Where the padding is odd, Python's own rule says which side has one more.
  const int64_t left = padding / 2 + (padding & width & 1);
  TextBuilder out = interpreter.builder();
  out.append(std::string(static_cast<size_t>(left), ' '), true);
  out.append(text);
  out.append(std::string(static_cast<size_t>(padding - left), ' '), true);
  return interpreter.make_text(out);
}

}  // namespace tandem::jinja

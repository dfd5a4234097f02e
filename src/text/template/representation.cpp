// Values as text: Python's str(), repr() and json.dumps().
#include <algorithm>
#include <cmath>
#include <vector>

#include "text/template/depth_scope.h"
#include "text/template/operations.h"
#include "text/template/unicode.h"

namespace tandem::jinja {
namespace {

std::string hexadecimal(uint32_t value, size_t digits) {
  std::string text(digits, '0');
  for (size_t i = digits; i-- > 0; value >>= 4) text[i] = "0123456789abcdef"[value & 15];
  return text;
}

// Characters that Python's repr() escapes, as far as they are known here.
bool is_unprintable(uint32_t c) {
  return c < 0x20 || (c >= 0x7F && c <= 0xA0) || c == 0xAD || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200F) || (c >= 0x2028 && c <= 0x202F) ||
         (c >= 0x205F && c <= 0x206F) || c == 0x3000 || (c >= 0xD800 && c <= 0xF8FF) ||
         c == 0xFEFF || (c >= 0xFFF0 && c <= 0xFFFB) || c >= 0xE0000;
}

std::string numeric_escape(uint32_t c) {
  if (c < 0x100) return "\\x" + hexadecimal(c, 2);
  return c < 0x10000 ? "\\u" + hexadecimal(c, 4) : "\\U" + hexadecimal(c, 8);
}

void append_text_repr(TextBuilder& out, const Text& text) {
  const bool has_single = text.bytes.find('\'') != std::string::npos;
  const char quote = has_single && text.bytes.find('"') == std::string::npos ? '"' : '\'';
  const std::string_view quote_text(&quote, 1);
  out.append(quote_text, true);
  size_t copied = 0;
  for (size_t at = 0; at < text.bytes.size();) {
    const uint32_t c = character_at(text.bytes, at);
    const size_t bytes = character_bytes(text.bytes, at);
    std::string escape;
    if (c == '\n') {
      escape = "\\n";
    } else if (c == '\r') {
      escape = "\\r";
    } else if (c == '\t') {
      escape = "\\t";
    } else if (c == '\\' || c == static_cast<uint32_t>(quote)) {
      escape = std::string("\\") + static_cast<char>(c);
    } else if (is_unprintable(c)) {
      escape = numeric_escape(c);
    }
    if (!escape.empty()) {
      out.append(text, copied, at);
      out.append(escape, text.trusted_at(at));
      copied = at + bytes;
    }
    at += bytes;
  }
  out.append(text, copied, text.bytes.size());
  out.append(quote_text, true);
}

Status append_repr(Interpreter& interpreter, TextBuilder& out, const Value& value);

Status append_items(Interpreter& interpreter, TextBuilder& out, const std::vector<Value>& items) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out.append(", ", true);
    TANDEM_RETURN_IF_ERROR(append_repr(interpreter, out, items[i]));
  }
  return ok_status();
}

Status append_entries(Interpreter& interpreter, TextBuilder& out,
                      const std::vector<Value::Entry>& entries) {
  out.append("{", true);
  for (size_t i = 0; i < entries.size(); ++i) {
    if (i > 0) out.append(", ", true);
    TANDEM_RETURN_IF_ERROR(append_repr(interpreter, out, entries[i].first));
    out.append(": ", true);
    TANDEM_RETURN_IF_ERROR(append_repr(interpreter, out, entries[i].second));
  }
  out.append("}", true);
  return ok_status();
}

Status append_container(Interpreter& interpreter, TextBuilder& out, const Value& value) {
  if (value.is_map()) return append_entries(interpreter, out, value.as_map().entries);
  if (value.is(Value::Kind::kNamespace)) {
    std::vector<Value::Entry> entries;
    for (const auto& [name, content] : value.as_namespace().attributes) {
      entries.emplace_back(Value::trusted(name), content);
    }
    out.append("<Namespace ", true);
    TANDEM_RETURN_IF_ERROR(append_entries(interpreter, out, entries));
    out.append(">", true);
    return ok_status();
  }
  const List& list = value.as_list();
  const bool is_list = list.form == List::Form::kList;
  out.append(is_list ? "[" : "(", true);
  TANDEM_RETURN_IF_ERROR(append_items(interpreter, out, list.items));
  if (!is_list && list.items.size() == 1) out.append(",", true);
  out.append(is_list ? "]" : ")", true);
  return ok_status();
}

Status append_repr(Interpreter& interpreter, TextBuilder& out, const Value& value) {
  const DepthScope depth(interpreter);
  TANDEM_RETURN_IF_ERROR(depth.status());
  TANDEM_RETURN_IF_ERROR(interpreter.charge(1));
  if (value.is_undefined()) {
    out.append("Undefined", true);
    return ok_status();
  }
  if (!value.is_string()) return append_string(interpreter, out, value);
  TANDEM_RETURN_IF_ERROR(interpreter.charge(1 + value.view().size() / 32));
  append_text_repr(out, value.as_text());
  return ok_status();
}

// ---------------------------------------------------------------- JSON

std::string json_escape(uint32_t c, bool ensure_ascii) {
  switch (c) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\f':
      return "\\f";
    case '\b':
      return "\\b";
    default:
      break;
  }
  if (c < 0x20) return "\\u" + hexadecimal(c, 4);
  if (!ensure_ascii || c < 0x7F) return "";
  if (c < 0x10000) return "\\u" + hexadecimal(c, 4);
  return "\\u" + hexadecimal(0xD800 + ((c - 0x10000) >> 10), 4) + "\\u" +
         hexadecimal(0xDC00 + ((c - 0x10000) & 0x3FF), 4);
}

class JsonWriter {
 public:
  JsonWriter(Interpreter& interpreter, TextBuilder& out, const JsonStyle& style)
      : interpreter_(interpreter), out_(out), style_(style) {}

  Status write(const Value& value) {
    const DepthScope depth(interpreter_);
    TANDEM_RETURN_IF_ERROR(depth.status());
    TANDEM_RETURN_IF_ERROR(interpreter_.charge(1));
    switch (value.kind()) {
      case Value::Kind::kNone:
        out_.append("null", true);
        return ok_status();
      case Value::Kind::kBool:
        out_.append(value.as_bool() ? "true" : "false", true);
        return ok_status();
      case Value::Kind::kInteger:
        out_.append(std::to_string(value.as_integer()), true);
        return ok_status();
      case Value::Kind::kFloat:
        out_.append(json_float(value.as_double()), true);
        return ok_status();
      case Value::Kind::kString:
        return write_text(value.as_text());
      case Value::Kind::kList:
        if (value.as_list().form == List::Form::kGenerator) break;
        return write_list(value.as_list());
      case Value::Kind::kMap:
        return write_map(value.as_map());
      default:
        break;
    }
    return invalid_argument("a value of type " + std::string(value.type_name()) +
                            " cannot be written as JSON");
  }

 private:
  static std::string json_float(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return format_float(value);
  }

  Status write_text(const Text& text) {
    TANDEM_RETURN_IF_ERROR(interpreter_.charge(1 + text.bytes.size() / 32));
    out_.append("\"", true);
    size_t copied = 0;
    size_t n_done = 0;
    for (size_t at = 0; at < text.bytes.size();) {
      TANDEM_RETURN_IF_ERROR(interpreter_.go_on(n_done++));
      const auto byte = static_cast<unsigned char>(text.bytes[at]);
      const bool ascii = byte < 0x80;
      if (!ascii && !style_.ensure_ascii) {
        ++at;
        continue;
      }
      const size_t bytes = ascii ? 1 : character_bytes(text.bytes, at);
      const std::string escape =
          byte >= 0x20 && byte != '"' && byte != '\\' && byte < 0x80
              ? std::string()
              : json_escape(character_at(text.bytes, at), style_.ensure_ascii);
      if (!escape.empty()) {
        out_.append(text, copied, at);
        out_.append(escape, text.trusted_at(at));
        copied = at + bytes;
      }
      at += bytes;
    }
    out_.append(text, copied, text.bytes.size());
    out_.append("\"", true);
    return ok_status();
  }

  void new_line() {
    if (style_.indent < 0) return;
    out_.append("\n", true);
    const auto spaces = static_cast<uint64_t>(style_.indent) * level_;
    out_.append(std::string(static_cast<size_t>(spaces), ' '), true);
  }

  void separate(bool first) {
    if (!first && style_.item_separator != nullptr) {
      out_.append(*style_.item_separator);
    } else if (!first) {
      out_.append(style_.indent < 0 ? ", " : ",", true);
    }
    new_line();
  }

  Status write_list(const List& list) {
    out_.append("[", true);
    ++level_;
    for (size_t i = 0; i < list.items.size(); ++i) {
      separate(i == 0);
      TANDEM_RETURN_IF_ERROR(write(list.items[i]));
    }
    --level_;
    if (!list.items.empty()) new_line();
    out_.append("]", true);
    return ok_status();
  }

  Status write_key(const Value& key) {
    if (key.is_string()) return write_text(key.as_text());
    if (!key.is_number() && !key.is_none()) {
      return invalid_argument("a key of type " + std::string(key.type_name()) +
                              " cannot be written as JSON");
    }
    out_.append("\"", true);
    TANDEM_RETURN_IF_ERROR(write(key));
    out_.append("\"", true);
    return ok_status();
  }

  Status write_map(const Map& map) {
    std::vector<const Value::Entry*> entries;
    TANDEM_RETURN_IF_ERROR(interpreter_.charge_memory(map.entries.size() * sizeof(void*)));
    for (const Value::Entry& entry : map.entries) entries.push_back(&entry);
    if (style_.sort_keys) TANDEM_RETURN_IF_ERROR(sort(entries));
    out_.append("{", true);
    ++level_;
    for (size_t i = 0; i < entries.size(); ++i) {
      separate(i == 0);
      TANDEM_RETURN_IF_ERROR(write_key(entries[i]->first));
      if (style_.key_separator != nullptr) {
        out_.append(*style_.key_separator);
      } else {
        out_.append(": ", true);
      }
      TANDEM_RETURN_IF_ERROR(write(entries[i]->second));
    }
    --level_;
    if (!entries.empty()) new_line();
    out_.append("}", true);
    return ok_status();
  }

  Status sort(std::vector<const Value::Entry*>& entries) {
    for (const Value::Entry* entry : entries) {
      if (!entry->first.is_string()) return invalid_argument("only texts can be sorted as keys");
    }
    TANDEM_RETURN_IF_ERROR(interpreter_.charge(entries.size() * 4));
    std::sort(entries.begin(), entries.end(), [](const Value::Entry* a, const Value::Entry* b) {
      return a->first.view() < b->first.view();
    });
    return ok_status();
  }

  Interpreter& interpreter_;
  TextBuilder& out_;
  const JsonStyle style_;
  uint64_t level_ = 0;
};

}  // namespace

Status append_string(Interpreter& interpreter, TextBuilder& out, const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      return ok_status();
    case Value::Kind::kNone:
      out.append("None", true);
      return ok_status();
    case Value::Kind::kBool:
      out.append(value.as_bool() ? "True" : "False", true);
      return ok_status();
    case Value::Kind::kInteger:
      out.append(std::to_string(value.as_integer()), true);
      return ok_status();
    case Value::Kind::kFloat:
      out.append(format_float(value.as_double()), true);
      return ok_status();
    case Value::Kind::kString:
      TANDEM_RETURN_IF_ERROR(interpreter.charge_bytes(value.view().size()));
      out.append(value.as_text());
      return ok_status();
    case Value::Kind::kList:
    case Value::Kind::kMap:
    case Value::Kind::kNamespace: {
      const DepthScope depth(interpreter);
      TANDEM_RETURN_IF_ERROR(depth.status());
      return append_container(interpreter, out, value);
    }
    case Value::Kind::kLoop:
      out.append("<LoopContext>", true);
      return ok_status();
    case Value::Kind::kCallable:
      out.append("<function " + value.as_callable().name + ">", true);
      return ok_status();
  }
  return ok_status();
}

Result<Value> to_string(Interpreter& interpreter, const Value& value) {
  if (value.is_string()) return value;
  TextBuilder out = interpreter.builder();
  TANDEM_RETURN_IF_ERROR(append_string(interpreter, out, value));
  return interpreter.make_text(out);
}

Status append_json(Interpreter& interpreter, TextBuilder& out, const Value& value,
                   const JsonStyle& style) {
  return JsonWriter(interpreter, out, style).write(value);
}

}  // namespace tandem::jinja

// Python's operators on values, and its texts of them.
#pragma once

#include <string_view>

#include "text/template/ast.h"
#include "text/template/interpreter.h"

namespace tandem::jinja {

Result<Value> binary_operation(Interpreter& interpreter, Operator operation, const Value& left,
                               const Value& right);
Result<bool> compare(Interpreter& interpreter, Operator operation, const Value& left,
                     const Value& right);
Result<bool> equal(Interpreter& interpreter, const Value& left, const Value& right);
// Negative, 0 or positive; an error where Python has no order.
Result<int> order(Interpreter& interpreter, const Value& left, const Value& right);
Result<bool> contains(Interpreter& interpreter, const Value& container, const Value& item);

// object[start:stop:step]; null where left out.
Result<Value> slice(Interpreter& interpreter, const Value& object, const Value* start,
                    const Value* stop, const Value* step);

// str(value), appended.
Status append_string(Interpreter& interpreter, TextBuilder& out, const Value& value);
Result<Value> to_string(Interpreter& interpreter, const Value& value);
// json.dumps(value, ensure_ascii=..., indent=...), appended; indent < 0 writes one line.
struct JsonStyle {
  int64_t indent = -1;
  bool ensure_ascii = false;
  bool sort_keys = false;
  const Text* item_separator = nullptr;  // instead of ", ", or "," when indented
  const Text* key_separator = nullptr;   // instead of ": "
};
Status append_json(Interpreter& interpreter, TextBuilder& out, const Value& value,
                   const JsonStyle& style);

// The text with &, <, >, " and ' escaped for HTML.
void append_escaped(TextBuilder& out, const Text& text);

// Position of `needle` at or after `from`, npos when absent.  Linear in the worst case.
size_t find_text(std::string_view text, std::string_view needle, size_t from);

}  // namespace tandem::jinja

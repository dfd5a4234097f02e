// What filters, tests and methods share: reading arguments, texts of values, sorting keys.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/template/builtins.h"
#include "text/template/interpreter.h"
#include "text/template/operations.h"

namespace tandem::jinja {

// Refuses arguments that none of these parameters takes.
Status check_arguments(const Arguments& arguments, const std::vector<std::string_view>& parameters);

// The argument, or what stands for it when it is missing; an error when it has another type.
Result<int64_t> integer_argument(const Arguments& arguments, size_t place, std::string_view name,
                                 int64_t otherwise);
bool bool_argument(const Arguments& arguments, size_t place, std::string_view name, bool otherwise);
// Null when it is missing or none.
Result<const Text*> text_argument(const Arguments& arguments, size_t place, std::string_view name);

Status undefined_error(const Value& value);
Status expected_type(std::string_view what, const Value& found);

// item.a.0.b for "a.0.b"; `otherwise` replaces an undefined result when given.
Result<Value> attribute_path(Interpreter& interpreter, const Value& object, const Value& path,
                             const Value* otherwise);

enum class Case : uint8_t { kUpper, kLower, kCapitalize, kTitle, kSwap };
Result<Value> change_case(Interpreter& interpreter, const Text& text, Case how);

// "text".splitlines()
Result<std::vector<Value>> split_lines(Interpreter& interpreter, const Text& text, bool keep_ends);
Result<Value> replace(Interpreter& interpreter, const Text& text, const Text& old,
                      const Text& replacement, int64_t count);
Result<Value> strip(Interpreter& interpreter, const Text& text, const Text* set, bool left,
                    bool right);
Result<Value> centered(Interpreter& interpreter, const Text& text, int64_t width);

// "..." % arguments, and "...".format(arguments)
Result<Value> format_percent(Interpreter& interpreter, const Text& format,
                             const Arguments& arguments);
Result<Value> format_braces(Interpreter& interpreter, const Text& format,
                            const Arguments& arguments);

// Filters over sequences, in sequence_filters.cpp.
const Filter* find_sequence_filter(std::string_view name);
const NamedMethod* find_string_method(std::string_view name);

}  // namespace tandem::jinja

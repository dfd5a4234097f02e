// Test data in JSON as template values, the way a caller would pass messages: keys are names of the
// application, texts are untrusted.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "text/template/chat_template.h"

namespace tandem::testing {

using OrderedJson = nlohmann::ordered_json;

inline jinja::Value value_from_json(const OrderedJson& json) {
  using jinja::Value;
  if (json.is_null()) return Value::none();
  if (json.is_boolean()) return Value::boolean(json.get<bool>());
  if (json.is_number_integer()) return Value::integer(json.get<int64_t>());
  if (json.is_number()) return Value::floating(json.get<double>());
  if (json.is_string()) return Value::untrusted(json.get<std::string>());
  if (json.is_array()) {
    std::vector<Value> items;
    for (const OrderedJson& item : json) items.push_back(value_from_json(item));
    return Value::list(std::move(items));
  }
  std::vector<Value::Entry> entries;
  for (const auto& [key, item] : json.items()) {
    entries.emplace_back(Value::untrusted(key), value_from_json(item));
  }
  return Value::map(std::move(entries));
}

inline std::vector<std::pair<std::string, jinja::Value>> variables_from_json(
    const OrderedJson& object) {
  std::vector<std::pair<std::string, jinja::Value>> variables;
  for (const auto& [name, item] : object.items()) {
    variables.emplace_back(name, value_from_json(item));
  }
  return variables;
}

}  // namespace tandem::testing

#include "text/template/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "text/template/callable.h"

namespace tandem::jinja {
namespace {

constexpr size_t kIndexedMapEntries = 16;

uint32_t deepest(const std::vector<Value>& items) {
  uint32_t depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  return depth;
}

std::shared_ptr<const List> make_list(std::vector<Value> items, List::Form form) {
  auto list = std::make_shared<List>();
  list->depth = deepest(items) + 1;
  list->items = std::move(items);
  list->form = form;
  return list;
}

}  // namespace

Value Value::undefined(std::string reason) {
  Value value;
  value.content_ = Undefined{std::make_shared<const std::string>(std::move(reason))};
  return value;
}

Value Value::none() {
  Value value;
  value.content_ = None{};
  return value;
}

Value Value::boolean(bool content) {
  Value value;
  value.content_ = content;
  return value;
}

Value Value::integer(int64_t content) {
  Value value;
  value.content_ = content;
  return value;
}

Value Value::floating(double content) {
  Value value;
  value.content_ = content;
  return value;
}

Value Value::trusted(std::string content) { return text(make_text(std::move(content), true)); }
Value Value::untrusted(std::string content) { return text(make_text(std::move(content), false)); }

Value Value::text(Text content) {
  Value value;
  value.content_ = std::make_shared<const Text>(std::move(content));
  return value;
}

Value Value::list(std::vector<Value> items) {
  Value value;
  value.content_ = make_list(std::move(items), List::Form::kList);
  return value;
}

Value Value::tuple(std::vector<Value> items) {
  Value value;
  value.content_ = make_list(std::move(items), List::Form::kTuple);
  return value;
}

Value Value::generator(std::vector<Value> items) {
  Value value;
  value.content_ = make_list(std::move(items), List::Form::kGenerator);
  return value;
}

Value Value::map(std::vector<Entry> entries) {
  auto map = std::make_shared<Map>();
  const bool indexed = entries.size() > kIndexedMapEntries;
  map->entries.reserve(entries.size());
  for (Entry& entry : entries) {
    map->depth = std::max({map->depth, entry.first.depth() + 1, entry.second.depth() + 1});
    if (const Value* old = map->find(entry.first)) {
      *const_cast<Value*>(old) = std::move(entry.second);
      continue;
    }
    map->entries.push_back(std::move(entry));
    const Value& key = map->entries.back().first;
    if (indexed && key.is_string()) map->text_index.emplace(key.view(), map->entries.size() - 1);
  }
  Value value;
  value.content_ = std::shared_ptr<const Map>(std::move(map));
  return value;
}

Value Value::of(std::shared_ptr<Namespace> object) {
  Value value;
  value.content_ = std::move(object);
  return value;
}

Value Value::of(std::shared_ptr<Loop> object) {
  Value value;
  value.content_ = std::move(object);
  return value;
}

Value Value::of(std::shared_ptr<const Callable> object) {
  Value value;
  value.content_ = std::move(object);
  return value;
}

int64_t Value::as_integer() const {
  return is(Kind::kBool) ? int64_t{as_bool()} : std::get<int64_t>(content_);
}

double Value::as_double() const {
  return is(Kind::kFloat) ? std::get<double>(content_) : static_cast<double>(as_integer());
}

const Text& Value::as_text() const { return *std::get<std::shared_ptr<const Text>>(content_); }

bool Value::truthy() const {
  switch (kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInteger:
      return as_integer() != 0;
    case Kind::kFloat:
      return as_double() != 0;
    case Kind::kString:
      return !view().empty();
    case Kind::kList:
      return !as_list().items.empty() || as_list().form == List::Form::kGenerator;
    case Kind::kMap:
      return !as_map().entries.empty();
    default:
      return true;
  }
}

uint32_t Value::depth() const {
  switch (kind()) {
    case Kind::kList:
      return as_list().depth;
    case Kind::kMap:
      return as_map().depth;
    case Kind::kLoop:
      return as_loop().depth;
    case Kind::kCallable:
      return as_callable().self.depth() + 1;
    default:
      return 0;
  }
}

std::string_view Value::type_name() const {
  switch (kind()) {
    case Kind::kUndefined:
      return "undefined";
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return "bool";
    case Kind::kInteger:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kList:
      if (as_list().form == List::Form::kTuple) return "tuple";
      return as_list().form == List::Form::kList ? "list" : "generator";
    case Kind::kMap:
      return "dict";
    case Kind::kNamespace:
      return "namespace";
    case Kind::kLoop:
      return "loop";
    case Kind::kCallable:
      return "function";
  }
  return "value";
}

std::string Value::undefined_reason() const {
  const auto& reason = std::get<Undefined>(content_).reason;
  return reason ? *reason : "the value is undefined";
}

const void* Value::address() const {
  switch (kind()) {
    case Kind::kNamespace:
      return &as_namespace();
    case Kind::kLoop:
      return &as_loop();
    case Kind::kCallable:
      return &as_callable();
    default:
      return nullptr;
  }
}

const Value* Map::find(const Value& key) const {
  if (key.is_string()) return find(key.view());
  for (const Value::Entry& entry : entries) {
    if (equal_scalars(entry.first, key)) return &entry.second;
  }
  return nullptr;
}

const Value* Map::find(std::string_view key) const {
  if (!text_index.empty()) {
    const auto found = text_index.find(key);
    return found == text_index.end() ? nullptr : &entries[found->second].second;
  }
  for (const Value::Entry& entry : entries) {
    if (entry.first.is_string() && entry.first.view() == key) return &entry.second;
  }
  return nullptr;
}

Value* Namespace::find(std::string_view name) {
  for (auto& [key, value] : attributes) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Namespace::set(std::string_view name, Value value) {
  if (Value* old = find(name)) {
    *old = std::move(value);
  } else {
    attributes.emplace_back(name, std::move(value));
  }
}

bool equal_scalars(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.as_integer() == b.as_integer();
    return a.as_double() == b.as_double();
  }
  if (a.kind() != b.kind()) return false;
  if (a.is_string()) return a.view() == b.view();
  if (a.is_undefined() || a.is_none()) return true;
  return a.address() != nullptr && a.address() == b.address();
}

std::string format_float(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char digits[40];
  auto end =
      std::to_chars(digits, digits + sizeof digits, value, std::chars_format::scientific).ptr;
  const std::string scientific(digits, end);
  const int exponent = std::atoi(scientific.c_str() + scientific.find('e') + 1);
  if (exponent < -4 || exponent >= 16) return scientific;
  end = std::to_chars(digits, digits + sizeof digits, value, std::chars_format::fixed).ptr;
  std::string fixed(digits, end);
  if (fixed.find('.') == std::string::npos) fixed += ".0";
  return fixed;
}

}  // namespace tandem::jinja

// What a template computes with: Python's none, bool, int, float, str, list, tuple, dict, and the
// few objects that Jinja adds.
//
// Threading: a Value is a value; what it points to is immutable except namespaces and loops, which
// live only while one template is rendered. Ownership: shared.  Containers know their nesting
// depth, so that a hostile one can be refused before a recursive walk (or its destruction) could
// run out of stack.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "text/template/text.h"

namespace tandem::jinja {

struct List;
struct Map;
struct Namespace;
struct Loop;
struct Callable;

class Value {
 public:
  enum class Kind : uint8_t {
    kUndefined,
    kNone,
    kBool,
    kInteger,
    kFloat,
    kString,
    kList,
    kMap,
    kNamespace,
    kLoop,
    kCallable,
  };
  using Entry = std::pair<Value, Value>;

  Value() = default;  // undefined, without a reason

  // The reason is what an error says when the value is used: "'tools' is undefined".
  static Value undefined(std::string reason);
  static Value none();
  static Value boolean(bool value);
  static Value integer(int64_t value);
  static Value floating(double value);
  // Text of the template's author, which may spell control tokens ...
  static Value trusted(std::string text);
  // ... and everybody else's, which may not.
  static Value untrusted(std::string text);
  static Value text(Text text);
  static Value list(std::vector<Value> items);
  static Value tuple(std::vector<Value> items);
  static Value generator(std::vector<Value> items);  // a list that is true even when empty
  // Later entries replace earlier ones with an equal key, at the earlier one's place.
  static Value map(std::vector<Entry> entries);
  static Value of(std::shared_ptr<Namespace> object);
  static Value of(std::shared_ptr<Loop> object);
  static Value of(std::shared_ptr<const Callable> object);

  Kind kind() const { return static_cast<Kind>(content_.index()); }
  bool is(Kind kind) const { return this->kind() == kind; }
  bool is_undefined() const { return is(Kind::kUndefined); }
  bool is_none() const { return is(Kind::kNone); }
  bool is_string() const { return is(Kind::kString); }
  bool is_list() const { return is(Kind::kList); }
  bool is_map() const { return is(Kind::kMap); }
  bool is_number() const { return kind() >= Kind::kBool && kind() <= Kind::kFloat; }
  bool is_integral() const { return is(Kind::kBool) || is(Kind::kInteger); }

  // Requires: the kind that the name says.
  bool as_bool() const { return std::get<bool>(content_); }
  int64_t as_integer() const;  // of a bool or an integer
  double as_double() const;    // of any number
  const Text& as_text() const;
  std::string_view view() const { return as_text().bytes; }
  const List& as_list() const { return *std::get<std::shared_ptr<const List>>(content_); }
  const Map& as_map() const { return *std::get<std::shared_ptr<const Map>>(content_); }
  Namespace& as_namespace() const { return *std::get<std::shared_ptr<Namespace>>(content_); }
  Loop& as_loop() const { return *std::get<std::shared_ptr<Loop>>(content_); }
  const Callable& as_callable() const {
    return *std::get<std::shared_ptr<const Callable>>(content_);
  }

  bool truthy() const;
  // 0 for what holds nothing else; a container has one more than the deepest thing in it.
  uint32_t depth() const;
  // How Python names the type, for errors: "str", "dict".
  std::string_view type_name() const;
  // Why it is undefined, a full clause.  Requires: is_undefined().
  std::string undefined_reason() const;
  // Identity for namespaces, loops and callables; null for everything else.
  const void* address() const;

 private:
  struct Undefined {
    std::shared_ptr<const std::string> reason;
  };
  struct None {};

  std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>,
               std::shared_ptr<const List>, std::shared_ptr<const Map>, std::shared_ptr<Namespace>,
               std::shared_ptr<Loop>, std::shared_ptr<const Callable>>
      content_;
};

struct List {
  enum class Form : uint8_t { kList, kTuple, kGenerator };
  std::vector<Value> items;
  Form form = Form::kList;
  uint32_t depth = 1;
};

// Keeps the order of insertion.
struct Map {
  std::vector<Value::Entry> entries;
  std::map<std::string_view, size_t> text_index;  // only filled for large maps; views into the keys
  uint32_t depth = 1;

  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
};

// {% set ns = namespace(a=1) %}: the only thing a template can change.
struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;

  Value* find(std::string_view name);
  void set(std::string_view name, Value value);
};

// The variable `loop` inside {% for %}.
struct Loop {
  std::vector<Value> items;
  size_t index0 = 0;
  int64_t depth0 = 0;
  uint32_t depth = 1;  // as of a list
};

// Python's ==, without a bound on the work: only for keys and other scalars.
bool equal_scalars(const Value& a, const Value& b);

// Python's repr() of a float: the shortest digits that read back the same.
std::string format_float(double value);

}  // namespace tandem::jinja

// Functions that every template sees, and the methods of dict, list and loop.
#include <algorithm>
#include <string>

#include "text/template/builtin_helpers.h"
#include "text/template/time_format.h"

namespace tandem::jinja {
namespace {

using Args = Arguments;

// ---------------------------------------------------------------- functions

Result<Value> function_range(Interpreter& in, const Args& args) {
  const size_t n = args.positional.size();
  if (n < 1 || n > 3 || !args.named.empty()) return invalid_argument("range takes 1 to 3 integers");
  for (const Value& value : args.positional) {
    if (!value.is_integral()) return expected_type("an integer", value);
  }
  const int64_t start = n == 1 ? 0 : args.positional[0].as_integer();
  const int64_t stop = args.positional[n == 1 ? 0 : 1].as_integer();
  const int64_t step = n == 3 ? args.positional[2].as_integer() : 1;
  if (step == 0) return invalid_argument("the step of range cannot be zero");
  std::vector<Value> items;
  int64_t at = start;
  while (step > 0 ? at < stop : at > stop) {
    if (items.size() >= in.limits().range_items) {
      return unsupported("the limit of range (" + std::to_string(in.limits().range_items) +
                         " items) is reached");
    }
    items.push_back(Value::integer(at));
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  return in.make_list(std::move(items));
}

// dict(mapping or pairs, name=value, ...)
Result<std::vector<Value::Entry>> entries_from(Interpreter& in, const Args& args) {
  std::vector<Value::Entry> entries;
  if (args.positional.size() > 1) return invalid_argument("expected at most one argument");
  if (!args.positional.empty()) {
    const Value& source = args.positional[0];
    if (source.is_map()) {
      TANDEM_RETURN_IF_ERROR(
          in.charge_memory(source.as_map().entries.size() * sizeof(Value::Entry)));
      entries = source.as_map().entries;
    } else {
      TANDEM_ASSIGN_OR_RETURN(const std::vector<Value> pairs, in.items_of(source));
      for (const Value& pair : pairs) {
        TANDEM_ASSIGN_OR_RETURN(const std::vector<Value> parts, in.items_of(pair));
        if (parts.size() != 2) return invalid_argument("expected pairs of key and value");
        entries.emplace_back(parts[0], parts[1]);
      }
    }
  }
  for (const auto& [name, value] : args.named) entries.emplace_back(Value::trusted(name), value);
  return entries;
}

Result<Value> function_dict(Interpreter& in, const Args& args) {
  TANDEM_ASSIGN_OR_RETURN(std::vector<Value::Entry> entries, entries_from(in, args));
  return in.make_map(std::move(entries));
}

Result<Value> function_namespace(Interpreter& in, const Args& args) {
  TANDEM_ASSIGN_OR_RETURN(std::vector<Value::Entry> entries, entries_from(in, args));
  // A map first: it replaces repeated names without comparing each with each.
  TANDEM_ASSIGN_OR_RETURN(const Value map, in.make_map(std::move(entries)));
  return in.make_namespace(map.as_map().entries);
}

Result<Value> function_raise(Interpreter& in, const Args& args) {
  if (args.positional.size() != 1) return invalid_argument("expected a message");
  TANDEM_ASSIGN_OR_RETURN(const Value message, to_string(in, args.positional[0]));
  return invalid_argument(std::string(message.view().substr(0, 4096)));
}

Result<Value> function_strftime(Interpreter& in, const Args& args) {
  TANDEM_ASSIGN_OR_RETURN(const Text* format, text_argument(args, 0, "format"));
  if (format == nullptr) return invalid_argument("expected a format");
  TANDEM_RETURN_IF_ERROR(in.charge_bytes(format->bytes.size() * 16));
  TANDEM_ASSIGN_OR_RETURN(std::string text, format_time(format->bytes, *in.now()));
  return in.make_text(make_text(std::move(text), format->all_trusted()));
}

constexpr NamedFunction kFunctions[] = {
    {"dict", function_dict},
    {"namespace", function_namespace},
    {"raise_exception", function_raise},
    {"range", function_range},
    {"strftime_now", function_strftime},
};

// ---------------------------------------------------------------- dict

Result<Value> dict_get(Interpreter& in, const Value& self, const Args& args) {
  if (args.positional.empty() || args.positional.size() > 2 || !args.named.empty()) {
    return invalid_argument("get takes a key and a default");
  }
  const Value& key = args.positional[0];
  if (key.is_list() || key.is_map()) return expected_type("a key", key);
  TANDEM_RETURN_IF_ERROR(in.charge(1 + self.as_map().entries.size() / 16));
  if (const Value* value = self.as_map().find(key)) return *value;
  return args.positional.size() > 1 ? args.positional[1] : Value::none();
}

Result<Value> dict_keys(Interpreter& in, const Value& self, const Args& args) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {}));
  TANDEM_ASSIGN_OR_RETURN(std::vector<Value> keys, in.items_of(self));
  return in.make_list(std::move(keys));
}

Result<Value> dict_values(Interpreter& in, const Value& self, const Args& args) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {}));
  std::vector<Value> values;
  TANDEM_RETURN_IF_ERROR(in.charge_memory(self.as_map().entries.size() * sizeof(Value)));
  for (const auto& entry : self.as_map().entries) values.push_back(entry.second);
  return in.make_list(std::move(values));
}

Result<Value> dict_items(Interpreter& in, const Value& self, const Args& args) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {}));
  std::vector<Value> pairs;
  for (const auto& [key, value] : self.as_map().entries) {
    TANDEM_ASSIGN_OR_RETURN(Value pair, in.make_list({key, value}, List::Form::kTuple));
    pairs.push_back(std::move(pair));
  }
  return in.make_list(std::move(pairs));
}

Result<Value> same_value(Interpreter&, const Value& self, const Args& args) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {}));
  return self;
}

constexpr NamedMethod kDictMethods[] = {{"copy", same_value},
                                        {"get", dict_get},
                                        {"items", dict_items},
                                        {"keys", dict_keys},
                                        {"values", dict_values}};
constexpr std::string_view kForbiddenDictMethods[] = {"clear", "pop", "popitem", "setdefault",
                                                      "update"};

// ---------------------------------------------------------------- list

Result<Value> list_index(Interpreter& in, const Value& self, const Args& args) {
  if (args.positional.size() != 1) return invalid_argument("expected one argument");
  const auto& items = self.as_list().items;
  for (size_t i = 0; i < items.size(); ++i) {
    TANDEM_ASSIGN_OR_RETURN(const bool same, equal(in, items[i], args.positional[0]));
    if (same) return Value::integer(static_cast<int64_t>(i));
  }
  return invalid_argument("the value is not in the list");
}

Result<Value> list_count(Interpreter& in, const Value& self, const Args& args) {
  if (args.positional.size() != 1) return invalid_argument("expected one argument");
  int64_t count = 0;
  for (const Value& item : self.as_list().items) {
    TANDEM_ASSIGN_OR_RETURN(const bool same, equal(in, item, args.positional[0]));
    count += same ? 1 : 0;
  }
  return Value::integer(count);
}

constexpr NamedMethod kListMethods[] = {
    {"copy", same_value}, {"count", list_count}, {"index", list_index}};
constexpr std::string_view kForbiddenListMethods[] = {"append", "clear",  "extend",  "insert",
                                                      "pop",    "remove", "reverse", "sort"};

// ---------------------------------------------------------------- loop

Result<Value> loop_cycle(Interpreter&, const Value& self, const Args& args) {
  if (args.positional.empty()) return invalid_argument("no items to cycle through");
  return args.positional[self.as_loop().index0 % args.positional.size()];
}

constexpr NamedMethod kLoopMethods[] = {{"cycle", loop_cycle}};

template <size_t n>
const NamedMethod* find_in(const NamedMethod (&methods)[n], std::string_view name) {
  const auto* found = std::find_if(std::begin(methods), std::end(methods),
                                   [&](const NamedMethod& method) { return method.name == name; });
  return found == std::end(methods) ? nullptr : found;
}

}  // namespace

const NamedFunction* global_functions(size_t& count) {
  count = std::size(kFunctions);
  return kFunctions;
}

const NamedMethod* find_method(const Value& self, std::string_view name) {
  switch (self.kind()) {
    case Value::Kind::kString:
      return find_string_method(name);
    case Value::Kind::kMap:
      return find_in(kDictMethods, name);
    case Value::Kind::kList:
      return self.as_list().form == List::Form::kGenerator ? nullptr : find_in(kListMethods, name);
    case Value::Kind::kLoop:
      return find_in(kLoopMethods, name);
    default:
      return nullptr;
  }
}

bool is_forbidden_method(const Value& self, std::string_view name) {
  const auto among = [&](const auto& names) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
  };
  if (self.is_map()) return among(kForbiddenDictMethods);
  return self.is_list() && self.as_list().form == List::Form::kList && among(kForbiddenListMethods);
}

}  // namespace tandem::jinja

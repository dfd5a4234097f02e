// Filters over lists, dicts and the characters of texts.
#include <algorithm>

#include "text/template/builtin_helpers.h"
#include "text/template/unicode.h"

namespace tandem::jinja {
namespace {

using Args = Arguments;

// Arguments from the given place on, names kept: what map() hands on to the filter it names.
Args rest_of(const Args& args, size_t first) {
  Args rest;
  for (size_t i = first; i < args.positional.size(); ++i)
    rest.positional.push_back(args.positional[i]);
  rest.named = args.named;
  return rest;
}

Result<Value> filter_length(Interpreter& in, const Value& input, const Args&) {
  switch (input.kind()) {
    case Value::Kind::kUndefined:
      return Value::integer(0);
    case Value::Kind::kString:
      TANDEM_RETURN_IF_ERROR(in.charge_bytes(input.view().size()));
      return Value::integer(static_cast<int64_t>(count_characters(input.view())));
    case Value::Kind::kList:
      if (input.as_list().form == List::Form::kGenerator) break;
      return Value::integer(static_cast<int64_t>(input.as_list().items.size()));
    case Value::Kind::kMap:
      return Value::integer(static_cast<int64_t>(input.as_map().entries.size()));
    default:
      break;
  }
  return invalid_argument("a value of type " + std::string(input.type_name()) + " has no length");
}

Result<Value> filter_first(Interpreter& in, const Value& input, const Args&) {
  TANDEM_ASSIGN_OR_RETURN(const std::vector<Value> items, in.items_of(input));
  return items.empty() ? Value::undefined("there is no first item in nothing") : items.front();
}

Result<Value> filter_last(Interpreter& in, const Value& input, const Args&) {
  TANDEM_ASSIGN_OR_RETURN(const std::vector<Value> items, in.items_of(input));
  return items.empty() ? Value::undefined("there is no last item in nothing") : items.back();
}

Result<Value> filter_list(Interpreter& in, const Value& input, const Args&) {
  TANDEM_ASSIGN_OR_RETURN(std::vector<Value> items, in.items_of(input));
  return in.make_list(std::move(items));
}

Result<Value> filter_join(Interpreter& in, const Value& input, const Args& args) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {"d", "attribute"}));
  const Value* separator = args.find(0, "d");
  const Value* path = args.find(1, "attribute");
  TANDEM_ASSIGN_OR_RETURN(const std::vector<Value> items, in.items_of(input));
  TextBuilder out = in.builder();
  for (size_t i = 0; i < items.size() && !out.overflowed(); ++i) {
    if (i > 0 && separator != nullptr) TANDEM_RETURN_IF_ERROR(append_string(in, out, *separator));
    Value item = items[i];
    if (path != nullptr && !path->is_none()) {
      TANDEM_ASSIGN_OR_RETURN(item, attribute_path(in, item, *path, nullptr));
    }
    TANDEM_RETURN_IF_ERROR(append_string(in, out, item));
  }
  return in.make_text(out);
}

Result<Value> filter_reverse(Interpreter& in, const Value& input, const Args&) {
  if (input.is_string()) {
    const Value minus_one = Value::integer(-1);
    return slice(in, input, nullptr, nullptr, &minus_one);
  }
  TANDEM_ASSIGN_OR_RETURN(std::vector<Value> items, in.items_of(input));
  std::reverse(items.begin(), items.end());
  return in.make_list(std::move(items), List::Form::kGenerator);
}

Result<Value> filter_items(Interpreter& in, const Value& input, const Args&) {
  if (input.is_undefined()) return in.make_list({}, List::Form::kGenerator);
  if (!input.is_map()) return expected_type("a dict", input);
  std::vector<Value> pairs;
  for (const auto& [key, value] : input.as_map().entries) {
    TANDEM_ASSIGN_OR_RETURN(Value pair, in.make_list({key, value}, List::Form::kTuple));
    pairs.push_back(std::move(pair));
  }
  return in.make_list(std::move(pairs), List::Form::kGenerator);
}

Result<Value> filter_map(Interpreter& in, const Value& input, const Args& args) {
  if (!input.truthy()) return in.make_list({}, List::Form::kGenerator);  // none and 0 too
  TANDEM_ASSIGN_OR_RETURN(std::vector<Value> items, in.items_of(input));
  const Value* path = args.find(SIZE_MAX, "attribute");
  if (path != nullptr && args.positional.empty()) {
    const Value* otherwise = args.find(SIZE_MAX, "default");
    for (Value& item : items) {
      TANDEM_ASSIGN_OR_RETURN(item, attribute_path(in, item, *path, otherwise));
    }
  } else {
    if (args.positional.empty() || !args.positional[0].is_string()) {
      return invalid_argument("expected the name of a filter");
    }
    const Args rest = rest_of(args, 1);
    for (Value& item : items) {
      TANDEM_ASSIGN_OR_RETURN(item, in.apply_filter(args.positional[0].view(), item, rest));
    }
  }
  return in.make_list(std::move(items), List::Form::kGenerator);
}

// select, reject, selectattr and rejectattr.
Result<Value> selected(Interpreter& in, const Value& input, const Args& args, bool by_attribute,
                       bool wanted) {
  if (!input.truthy()) return in.make_list({}, List::Form::kGenerator);
  TANDEM_ASSIGN_OR_RETURN(std::vector<Value> items, in.items_of(input));
  const size_t place = by_attribute ? 1 : 0;
  if (args.positional.size() < place) return invalid_argument("expected the name of an attribute");
  const Value* test = place < args.positional.size() ? &args.positional[place] : nullptr;
  if (test != nullptr && !test->is_string()) return expected_type("the name of a test", *test);
  const Args rest = rest_of(args, place + 1);
  std::vector<Value> kept;
  for (Value& item : items) {
    Value subject = item;
    if (by_attribute) {
      TANDEM_ASSIGN_OR_RETURN(subject, attribute_path(in, item, args.positional[0], nullptr));
    }
    bool passes = subject.truthy();
    if (test != nullptr) {
      TANDEM_ASSIGN_OR_RETURN(passes, in.apply_test(test->view(), subject, rest));
    }
    if (passes == wanted) kept.push_back(std::move(item));
  }
  return in.make_list(std::move(kept), List::Form::kGenerator);
}

template <bool by_attribute, bool wanted>
Result<Value> filter_select(Interpreter& in, const Value& input, const Args& args) {
  return selected(in, input, args, by_attribute, wanted);
}

// ---------------------------------------------------------------- order

struct Keyed {
  Value key, item;
};

Result<Value> sort_key(Interpreter& in, const Value& item, const Value* path, bool case_sensitive,
                       const Value* otherwise = nullptr) {
  Value key = item;
  if (path != nullptr && !path->is_none()) {
    TANDEM_ASSIGN_OR_RETURN(key, attribute_path(in, item, *path, otherwise));
  }
  if (!case_sensitive && key.is_string()) return change_case(in, key.as_text(), Case::kLower);
  return key;
}

Result<std::vector<Keyed>> keyed(Interpreter& in, const Value& input, const Value* path,
                                 bool case_sensitive, const Value* otherwise = nullptr) {
  TANDEM_ASSIGN_OR_RETURN(std::vector<Value> items, in.items_of(input));
  std::vector<Keyed> result;
  TANDEM_RETURN_IF_ERROR(in.charge_memory(items.size() * sizeof(Keyed)));
  for (Value& item : items) {
    TANDEM_ASSIGN_OR_RETURN(Value key, sort_key(in, item, path, case_sensitive, otherwise));
    result.push_back({std::move(key), std::move(item)});
  }
  return result;
}

// Stable.  A merge sort of our own, because a comparison can fail and std::sort must not be left
// half way.
Status sort_keyed(Interpreter& in, std::vector<Keyed>& items, bool reverse) {
  std::vector<Keyed> merged(items.size());
  for (size_t width = 1; width < items.size(); width *= 2) {
    for (size_t begin = 0; begin < items.size(); begin += 2 * width) {
      const size_t middle = std::min(begin + width, items.size());
      const size_t end = std::min(begin + 2 * width, items.size());
      size_t left = begin, right = middle;
      for (size_t out = begin; out < end; ++out) {
        bool take_right = left == middle;
        if (left < middle && right < end) {
          TANDEM_ASSIGN_OR_RETURN(const int sign, order(in, items[right].key, items[left].key));
          take_right = reverse ? sign > 0 : sign < 0;
        }
        merged[out] = std::move(items[take_right ? right++ : left++]);
      }
    }
    items.swap(merged);
  }
  return ok_status();
}

std::vector<Value> items_of(std::vector<Keyed> sorted) {
  std::vector<Value> items;
  for (Keyed& entry : sorted) items.push_back(std::move(entry.item));
  return items;
}

Result<Value> filter_sort(Interpreter& in, const Value& input, const Args& args) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {"reverse", "case_sensitive", "attribute"}));
  const Value* path = args.find(2, "attribute");
  const bool case_sensitive = bool_argument(args, 1, "case_sensitive", false);
  const bool reverse = bool_argument(args, 0, "reverse", false);
  if (path != nullptr && path->is_string() && path->view().find(',') != std::string_view::npos) {
    return unsupported("sorting by several attributes is not supported");
  }
  TANDEM_ASSIGN_OR_RETURN(std::vector<Keyed> items, keyed(in, input, path, case_sensitive));
  TANDEM_RETURN_IF_ERROR(sort_keyed(in, items, reverse));
  return in.make_list(items_of(std::move(items)));
}

Result<Value> filter_dictsort(Interpreter& in, const Value& input, const Args& args) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {"case_sensitive", "by", "reverse"}));
  if (!input.is_map()) return expected_type("a dict", input);
  TANDEM_ASSIGN_OR_RETURN(const Text* by, text_argument(args, 1, "by"));
  const bool by_value = by != nullptr && by->bytes == "value";
  if (by != nullptr && !by_value && by->bytes != "key") {
    return invalid_argument("'by' must be 'key' or 'value'");
  }
  const bool case_sensitive = bool_argument(args, 0, "case_sensitive", false);
  std::vector<Keyed> pairs;
  for (const auto& [key, value] : input.as_map().entries) {
    TANDEM_ASSIGN_OR_RETURN(Value pair, in.make_list({key, value}, List::Form::kTuple));
    TANDEM_ASSIGN_OR_RETURN(Value sorted_by,
                            sort_key(in, by_value ? value : key, nullptr, case_sensitive));
    pairs.push_back({std::move(sorted_by), std::move(pair)});
  }
  TANDEM_RETURN_IF_ERROR(sort_keyed(in, pairs, bool_argument(args, 2, "reverse", false)));
  return in.make_list(items_of(std::move(pairs)));
}

Result<Value> filter_unique(Interpreter& in, const Value& input, const Args& args) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {"case_sensitive", "attribute"}));
  const bool case_sensitive = bool_argument(args, 0, "case_sensitive", false);
  TANDEM_ASSIGN_OR_RETURN(std::vector<Keyed> items,
                          keyed(in, input, args.find(1, "attribute"), case_sensitive));
  std::vector<Keyed> kept;
  for (Keyed& candidate : items) {
    bool seen = false;
    for (const Keyed& earlier : kept) {
      TANDEM_ASSIGN_OR_RETURN(seen, equal(in, earlier.key, candidate.key));
      if (seen) break;
    }
    if (!seen) kept.push_back(std::move(candidate));
  }
  return in.make_list(items_of(std::move(kept)), List::Form::kGenerator);
}

Result<Value> filter_groupby(Interpreter& in, const Value& input, const Args& args) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {"attribute", "default", "case_sensitive"}));
  const Value* path = args.find(0, "attribute");
  if (path == nullptr) return invalid_argument("expected the name of an attribute");
  const Value* otherwise = args.find(1, "default");
  const bool case_sensitive = bool_argument(args, 2, "case_sensitive", false);
  TANDEM_ASSIGN_OR_RETURN(std::vector<Keyed> items,
                          keyed(in, input, path, case_sensitive, otherwise));
  TANDEM_RETURN_IF_ERROR(sort_keyed(in, items, false));
  std::vector<Value> groups;
  for (size_t i = 0; i < items.size();) {
    TANDEM_ASSIGN_OR_RETURN(Value name, attribute_path(in, items[i].item, *path, otherwise));
    std::vector<Value> members;
    const Value key = items[i].key;
    for (; i < items.size(); ++i) {
      TANDEM_ASSIGN_OR_RETURN(const bool same, equal(in, key, items[i].key));
      if (!same) break;
      members.push_back(std::move(items[i].item));
    }
    TANDEM_ASSIGN_OR_RETURN(Value list, in.make_list(std::move(members)));
    TANDEM_ASSIGN_OR_RETURN(Value group, in.make_list({name, list}, List::Form::kTuple));
    groups.push_back(std::move(group));
  }
  return in.make_list(std::move(groups));
}

Result<Value> extreme(Interpreter& in, const Value& input, const Args& args, int wanted_sign) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {"case_sensitive", "attribute"}));
  const bool case_sensitive = bool_argument(args, 0, "case_sensitive", false);
  TANDEM_ASSIGN_OR_RETURN(std::vector<Keyed> items,
                          keyed(in, input, args.find(1, "attribute"), case_sensitive));
  if (items.empty()) return Value::undefined("there is no item in nothing");
  size_t best = 0;
  for (size_t i = 1; i < items.size(); ++i) {
    TANDEM_ASSIGN_OR_RETURN(const int sign, order(in, items[i].key, items[best].key));
    if (sign * wanted_sign > 0) best = i;
  }
  return items[best].item;
}

Result<Value> filter_max(Interpreter& in, const Value& input, const Args& args) {
  return extreme(in, input, args, 1);
}

Result<Value> filter_min(Interpreter& in, const Value& input, const Args& args) {
  return extreme(in, input, args, -1);
}

Result<Value> filter_sum(Interpreter& in, const Value& input, const Args& args) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {"attribute", "start"}));
  const Value* path = args.find(0, "attribute");
  const Value* start = args.find(1, "start");
  Value total = start != nullptr ? *start : Value::integer(0);
  TANDEM_ASSIGN_OR_RETURN(const std::vector<Value> items, in.items_of(input));
  for (const Value& item : items) {
    Value term = item;
    if (path != nullptr && !path->is_none()) {
      TANDEM_ASSIGN_OR_RETURN(term, attribute_path(in, item, *path, nullptr));
    }
    TANDEM_RETURN_IF_ERROR(in.charge(1));
    TANDEM_ASSIGN_OR_RETURN(total, binary_operation(in, Operator::kAdd, total, term));
  }
  return total;
}

Result<Value> filter_batch(Interpreter& in, const Value& input, const Args& args) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {"linecount", "fill_with"}));
  TANDEM_ASSIGN_OR_RETURN(const int64_t count, integer_argument(args, 0, "linecount", 0));
  const Value* fill = args.find(1, "fill_with");
  TANDEM_ASSIGN_OR_RETURN(const std::vector<Value> items, in.items_of(input));
  if (count <= 0) return invalid_argument("the size of a batch must be positive");
  std::vector<Value> batches;
  const auto n = static_cast<size_t>(count);
  for (size_t i = 0; i < items.size();) {
    std::vector<Value> batch;
    for (; i < items.size() && batch.size() < n; ++i) batch.push_back(items[i]);
    if (fill != nullptr && !fill->is_none() && batch.size() < n) {
      TANDEM_RETURN_IF_ERROR(in.charge_memory((n - batch.size()) * sizeof(Value)));
      batch.resize(n, *fill);
    }
    TANDEM_ASSIGN_OR_RETURN(Value list, in.make_list(std::move(batch)));
    batches.push_back(std::move(list));
  }
  return in.make_list(std::move(batches), List::Form::kGenerator);
}

Result<Value> filter_slice(Interpreter& in, const Value& input, const Args& args) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {"slices", "fill_with"}));
  TANDEM_ASSIGN_OR_RETURN(const int64_t count, integer_argument(args, 0, "slices", 0));
  const Value* fill = args.find(1, "fill_with");
  TANDEM_ASSIGN_OR_RETURN(const std::vector<Value> items, in.items_of(input));
  if (count <= 0) return invalid_argument("the number of slices must be positive");
  const auto n = static_cast<size_t>(count);
  const size_t least = items.size() / n;
  const size_t longer = items.size() % n;
  std::vector<Value> slices;
  size_t at = 0;
  for (size_t i = 0; i < n; ++i) {
    std::vector<Value> part;
    for (const size_t end = at + least + (i < longer ? 1 : 0); at < end; ++at) {
      part.push_back(items[at]);
    }
    if (fill != nullptr && !fill->is_none() && i >= longer) part.push_back(*fill);
    TANDEM_ASSIGN_OR_RETURN(Value list, in.make_list(std::move(part)));
    slices.push_back(std::move(list));
  }
  return in.make_list(std::move(slices), List::Form::kGenerator);
}

constexpr Filter kFilters[] = {
    {"batch", filter_batch},
    {"count", filter_length},
    {"dictsort", filter_dictsort},
    {"first", filter_first},
    {"groupby", filter_groupby},
    {"items", filter_items},
    {"join", filter_join},
    {"last", filter_last},
    {"length", filter_length},
    {"list", filter_list},
    {"map", filter_map},
    {"max", filter_max},
    {"min", filter_min},
    {"reject", filter_select<false, false>},
    {"rejectattr", filter_select<true, false>},
    {"reverse", filter_reverse},
    {"select", filter_select<false, true>},
    {"selectattr", filter_select<true, true>},
    {"slice", filter_slice},
    {"sort", filter_sort},
    {"sum", filter_sum},
    {"unique", filter_unique},
};

}  // namespace

const Filter* find_sequence_filter(std::string_view name) {
  const auto* found = std::find_if(std::begin(kFilters), std::end(kFilters),
                                   [&](const Filter& filter) { return filter.name == name; });
  return found != std::end(kFilters) ? found : nullptr;
}

}  // namespace tandem::jinja

// The methods of Python's str.
#include <algorithm>

#include "text/template/builtin_helpers.h"
#include "text/template/unicode.h"

namespace tandem::jinja {
namespace {

using Args = Arguments;

Result<Value> method_strip(Interpreter& in, const Value& self, const Args& args) {
  TANDEM_ASSIGN_OR_RETURN(const Text* set, text_argument(args, 0, "chars"));
  return strip(in, self.as_text(), set, true, true);
}

Result<Value> method_lstrip(Interpreter& in, const Value& self, const Args& args) {
  TANDEM_ASSIGN_OR_RETURN(const Text* set, text_argument(args, 0, "chars"));
  return strip(in, self.as_text(), set, true, false);
}

Result<Value> method_rstrip(Interpreter& in, const Value& self, const Args& args) {
  TANDEM_ASSIGN_OR_RETURN(const Text* set, text_argument(args, 0, "chars"));
  return strip(in, self.as_text(), set, false, true);
}

// Begin and end of the pieces, from the left.
Status add_piece(Interpreter& in, std::vector<Value>& pieces, const Text& text, size_t begin,
                 size_t end) {
  TANDEM_ASSIGN_OR_RETURN(Value piece, in.substring(text, begin, end));
  TANDEM_RETURN_IF_ERROR(in.charge_memory(2 * sizeof(Value)));
  pieces.push_back(std::move(piece));
  return ok_status();
}

Result<std::vector<Value>> split_space(Interpreter& in, const Text& text, int64_t count) {
  std::vector<Value> pieces;
  size_t at = strip_space(text.bytes, true, false).begin;
  while (at < text.bytes.size()) {
    if (count-- == 0) {
      TANDEM_RETURN_IF_ERROR(add_piece(in, pieces, text, at, text.bytes.size()));
      break;
    }
    size_t end = at;
    while (end < text.bytes.size() && !is_space(character_at(text.bytes, end))) {
      end += character_bytes(text.bytes, end);
    }
    TANDEM_RETURN_IF_ERROR(add_piece(in, pieces, text, at, end));
    at = end + strip_space(text.view().substr(end), true, false).begin;
  }
  return pieces;
}

Result<std::vector<Value>> rsplit_space(Interpreter& in, const Text& text, int64_t count) {
  std::vector<Value> pieces;
  size_t end = strip_space(text.bytes, false, true).end;
  while (end > 0) {
    size_t begin = 0;
    if (count-- != 0) {
      for (size_t at = 0; at < end; at += character_bytes(text.bytes, at)) {
        if (is_space(character_at(text.bytes, at))) begin = at + character_bytes(text.bytes, at);
      }
      TANDEM_RETURN_IF_ERROR(in.charge(1 + end / 16));
    }
    TANDEM_RETURN_IF_ERROR(add_piece(in, pieces, text, begin, end));
    end = strip_space(text.view().substr(0, begin), false, true).end;
  }
  std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

size_t rfind_text(std::string_view text, std::string_view needle, size_t end) {
  return text.substr(0, end).rfind(needle);
}

Result<Value> split_any(Interpreter& in, const Value& self, const Args& args, bool from_right) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {"sep", "maxsplit"}));
  TANDEM_ASSIGN_OR_RETURN(const Text* separator, text_argument(args, 0, "sep"));
  TANDEM_ASSIGN_OR_RETURN(int64_t count, integer_argument(args, 1, "maxsplit", -1));
  const Text& text = self.as_text();
  TANDEM_RETURN_IF_ERROR(in.charge(1 + text.bytes.size() / 64));
  if (separator == nullptr) {
    TANDEM_ASSIGN_OR_RETURN(std::vector<Value> pieces, from_right ? rsplit_space(in, text, count)
                                                                  : split_space(in, text, count));
    return in.make_list(std::move(pieces));
  }
  if (separator->bytes.empty()) return invalid_argument("the separator is empty");
  std::vector<Value> pieces;
  if (from_right) {
    size_t end = text.bytes.size();
    TANDEM_RETURN_IF_ERROR(in.charge(end * separator->bytes.size() / 256));
    for (; count != 0; --count) {
      const size_t found = rfind_text(text.bytes, separator->bytes, end);
      if (found == std::string_view::npos) break;
      TANDEM_RETURN_IF_ERROR(add_piece(in, pieces, text, found + separator->bytes.size(), end));
      end = found;
    }
    TANDEM_RETURN_IF_ERROR(add_piece(in, pieces, text, 0, end));
    std::reverse(pieces.begin(), pieces.end());
    return in.make_list(std::move(pieces));
  }
  size_t begin = 0;
  for (; count != 0; --count) {
    const size_t found = find_text(text.bytes, separator->bytes, begin);
    if (found == std::string_view::npos) break;
    TANDEM_RETURN_IF_ERROR(add_piece(in, pieces, text, begin, found));
    begin = found + separator->bytes.size();
  }
  TANDEM_RETURN_IF_ERROR(add_piece(in, pieces, text, begin, text.bytes.size()));
  return in.make_list(std::move(pieces));
}

Result<Value> method_split(Interpreter& in, const Value& self, const Args& args) {
  return split_any(in, self, args, false);
}

Result<Value> method_rsplit(Interpreter& in, const Value& self, const Args& args) {
  return split_any(in, self, args, true);
}

Result<Value> method_splitlines(Interpreter& in, const Value& self, const Args& args) {
  TANDEM_ASSIGN_OR_RETURN(
      std::vector<Value> lines,
      split_lines(in, self.as_text(), bool_argument(args, 0, "keepends", false)));
  return in.make_list(std::move(lines));
}

Result<Value> partition_any(Interpreter& in, const Value& self, const Args& args, bool from_right) {
  TANDEM_ASSIGN_OR_RETURN(const Text* separator, text_argument(args, 0, "sep"));
  if (separator == nullptr || separator->bytes.empty()) {
    return invalid_argument("the separator is empty");
  }
  const Text& text = self.as_text();
  const size_t size = text.bytes.size();
  TANDEM_RETURN_IF_ERROR(in.charge(1 + (from_right ? size * separator->bytes.size() : size) / 256));
  size_t found = from_right ? rfind_text(text.bytes, separator->bytes, size)
                            : find_text(text.bytes, separator->bytes, 0);
  std::vector<Value> parts;
  if (found == std::string_view::npos) {
    const Value empty = Value::trusted("");
    return in.make_list(from_right ? std::vector<Value>{empty, empty, self}
                                   : std::vector<Value>{self, empty, empty},
                        List::Form::kTuple);
  }
  const size_t after = found + separator->bytes.size();
  TANDEM_RETURN_IF_ERROR(add_piece(in, parts, text, 0, found));
  TANDEM_RETURN_IF_ERROR(add_piece(in, parts, text, found, after));
  TANDEM_RETURN_IF_ERROR(add_piece(in, parts, text, after, size));
  return in.make_list(std::move(parts), List::Form::kTuple);
}

Result<Value> method_partition(Interpreter& in, const Value& self, const Args& args) {
  return partition_any(in, self, args, false);
}

Result<Value> method_rpartition(Interpreter& in, const Value& self, const Args& args) {
  return partition_any(in, self, args, true);
}

// The part of the text that optional start and end (in characters) leave; null when start is past
// its end.
Result<Value> part_of(Interpreter& in, const Value& self, const Args& args, size_t first) {
  if (args.positional.size() <= first) return self;
  const Value* start = &args.positional[first];
  const Value* stop = args.positional.size() > first + 1 ? &args.positional[first + 1] : nullptr;
  if (start->is_none()) start = nullptr;
  if (stop != nullptr && stop->is_none()) stop = nullptr;
  return slice(in, self, start, stop, nullptr);
}

Result<bool> has_affix(Interpreter& in, const Value& self, const Args& args, bool at_start) {
  if (args.positional.empty()) return invalid_argument("expected a string");
  TANDEM_ASSIGN_OR_RETURN(const Value part, part_of(in, self, args, 1));
  const Value& affix = args.positional[0];
  const auto matches = [&](const Value& candidate) {
    return candidate.is_string() && (at_start ? part.view().starts_with(candidate.view())
                                              : part.view().ends_with(candidate.view()));
  };
  if (affix.is_list() && affix.as_list().form == List::Form::kTuple) {
    const auto& items = affix.as_list().items;
    TANDEM_RETURN_IF_ERROR(in.charge(items.size()));
    return std::any_of(items.begin(), items.end(), matches);
  }
  if (!affix.is_string()) return expected_type("a string", affix);
  TANDEM_RETURN_IF_ERROR(in.charge_bytes(affix.view().size()));
  return matches(affix);
}

Result<Value> method_startswith(Interpreter& in, const Value& self, const Args& args) {
  TANDEM_ASSIGN_OR_RETURN(const bool answer, has_affix(in, self, args, true));
  return Value::boolean(answer);
}

Result<Value> method_endswith(Interpreter& in, const Value& self, const Args& args) {
  TANDEM_ASSIGN_OR_RETURN(const bool answer, has_affix(in, self, args, false));
  return Value::boolean(answer);
}

Result<Value> remove_affix(Interpreter& in, const Value& self, const Args& args, bool at_start) {
  TANDEM_ASSIGN_OR_RETURN(const Text* affix, text_argument(args, 0, "prefix"));
  if (affix == nullptr) return invalid_argument("expected a string");
  const std::string_view text = self.view();
  const size_t bytes = affix->bytes.size();
  if (at_start && text.starts_with(affix->bytes)) {
    return in.substring(self.as_text(), bytes, text.size());
  }
  if (!at_start && bytes > 0 && text.ends_with(affix->bytes)) {
    return in.substring(self.as_text(), 0, text.size() - bytes);
  }
  return self;
}

Result<Value> method_removeprefix(Interpreter& in, const Value& self, const Args& args) {
  return remove_affix(in, self, args, true);
}

Result<Value> method_removesuffix(Interpreter& in, const Value& self, const Args& args) {
  return remove_affix(in, self, args, false);
}

// The character where `needle` stands, -1 when it does not.
Result<int64_t> find_character(Interpreter& in, const Value& self, const Args& args,
                               bool from_right) {
  TANDEM_ASSIGN_OR_RETURN(const Text* needle, text_argument(args, 0, "sub"));
  if (needle == nullptr) return invalid_argument("expected a string");
  const std::string_view text = self.view();
  TANDEM_RETURN_IF_ERROR(in.charge(1 + text.size() / 64));
  if (from_right) TANDEM_RETURN_IF_ERROR(in.charge(text.size() * needle->bytes.size() / 256));
  TANDEM_ASSIGN_OR_RETURN(const int64_t start, integer_argument(args, 1, "start", 0));
  if (start < 0 || args.positional.size() > 2) {
    return unsupported("only a start of 0 or more is supported here");
  }
  const size_t begin = byte_of_character(text, static_cast<size_t>(start));
  size_t found = from_right ? text.rfind(needle->bytes) : find_text(text, needle->bytes, begin);
  if (found == std::string_view::npos || found < begin) return int64_t{-1};
  return static_cast<int64_t>(count_characters(text.substr(0, found)));
}

Result<Value> method_find(Interpreter& in, const Value& self, const Args& args) {
  TANDEM_ASSIGN_OR_RETURN(const int64_t at, find_character(in, self, args, false));
  return Value::integer(at);
}

Result<Value> method_rfind(Interpreter& in, const Value& self, const Args& args) {
  TANDEM_ASSIGN_OR_RETURN(const int64_t at, find_character(in, self, args, true));
  return Value::integer(at);
}

Result<Value> method_index(Interpreter& in, const Value& self, const Args& args) {
  TANDEM_ASSIGN_OR_RETURN(const int64_t at, find_character(in, self, args, false));
  if (at < 0) return invalid_argument("the text is not found");
  return Value::integer(at);
}

Result<Value> method_rindex(Interpreter& in, const Value& self, const Args& args) {
  TANDEM_ASSIGN_OR_RETURN(const int64_t at, find_character(in, self, args, true));
  if (at < 0) return invalid_argument("the text is not found");
  return Value::integer(at);
}

Result<Value> method_count(Interpreter& in, const Value& self, const Args& args) {
  TANDEM_ASSIGN_OR_RETURN(const Text* needle, text_argument(args, 0, "sub"));
  if (needle == nullptr) return invalid_argument("expected a string");
  TANDEM_RETURN_IF_ERROR(in.charge(1 + self.view().size() / 16));
  if (needle->bytes.empty()) {
    return Value::integer(static_cast<int64_t>(count_characters(self.view())) + 1);
  }
  int64_t count = 0;
  for (size_t at = find_text(self.view(), needle->bytes, 0); at != std::string_view::npos;
       at = find_text(self.view(), needle->bytes, at + needle->bytes.size())) {
    ++count;
  }
  return Value::integer(count);
}

Result<Value> method_replace(Interpreter& in, const Value& self, const Args& args) {
  TANDEM_ASSIGN_OR_RETURN(const Text* old, text_argument(args, 0, "old"));
  TANDEM_ASSIGN_OR_RETURN(const Text* replacement, text_argument(args, 1, "new"));
  TANDEM_ASSIGN_OR_RETURN(const int64_t count, integer_argument(args, 2, "count", -1));
  if (old == nullptr || replacement == nullptr) return invalid_argument("expected two strings");
  return replace(in, self.as_text(), *old, *replacement, count);
}

Result<Value> method_join(Interpreter& in, const Value& self, const Args& args) {
  if (args.positional.size() != 1) return invalid_argument("expected one argument");
  TANDEM_ASSIGN_OR_RETURN(const std::vector<Value> items, in.items_of(args.positional[0]));
  TextBuilder out = in.builder();
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].is_string()) return expected_type("strings to join", items[i]);
    if (i > 0) out.append(self.as_text());
    TANDEM_RETURN_IF_ERROR(append_string(in, out, items[i]));
    if (out.overflowed()) break;
  }
  return in.make_text(out);
}

template <Case how>
Result<Value> method_case(Interpreter& in, const Value& self, const Args& args) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {}));
  return change_case(in, self.as_text(), how);
}

// str.title(): a letter after anything that is no letter.
Result<Value> method_title(Interpreter& in, const Value& self, const Args& args) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {}));
  const Text& text = self.as_text();
  TANDEM_RETURN_IF_ERROR(in.charge(1 + text.bytes.size() / 32));
  TextBuilder out = in.builder();
  bool after_letter = false;
  for (size_t at = 0; at < text.bytes.size(); at += character_bytes(text.bytes, at)) {
    const uint32_t c = character_at(text.bytes, at);
    std::string character;
    if (after_letter) {
      append_lower(character, c);
    } else {
      append_upper(character, c);
    }
    out.append(character, text.trusted_at(at));
    after_letter = is_cased(c);
  }
  return in.make_text(out);
}

template <typename Matches>
Result<Value> all_characters(Interpreter& in, const Value& self, Matches matches) {
  const std::string_view text = self.view();
  TANDEM_RETURN_IF_ERROR(in.charge(1 + text.size() / 64));
  for (size_t at = 0; at < text.size(); at += character_bytes(text, at)) {
    if (!matches(character_at(text, at))) return Value::boolean(false);
  }
  return Value::boolean(!text.empty());
}

bool is_digit(uint32_t c) { return c >= '0' && c <= '9'; }
// Beyond ASCII every character that has case, and the scripts that have none, count as letters.
bool is_letter(uint32_t c) { return is_cased(c) || (c >= 0x5D0 && c < 0x2000) || c >= 0x3040; }

Result<Value> method_isdigit(Interpreter& in, const Value& self, const Args&) {
  return all_characters(in, self, is_digit);
}

Result<Value> method_isalpha(Interpreter& in, const Value& self, const Args&) {
  return all_characters(in, self, is_letter);
}

Result<Value> method_isalnum(Interpreter& in, const Value& self, const Args&) {
  return all_characters(in, self, [](uint32_t c) { return is_digit(c) || is_letter(c); });
}

Result<Value> method_isspace(Interpreter& in, const Value& self, const Args&) {
  return all_characters(in, self, is_space);
}

Result<Value> method_isupper(Interpreter& in, const Value& self, const Args&) {
  bool any = false;
  TANDEM_ASSIGN_OR_RETURN(const Value none_lower, all_characters(in, self, [&](uint32_t c) {
                            any = any || is_upper(c);
                            return !is_lower(c);
                          }));
  return Value::boolean(any && none_lower.as_bool());
}

Result<Value> method_islower(Interpreter& in, const Value& self, const Args&) {
  bool any = false;
  TANDEM_ASSIGN_OR_RETURN(const Value none_upper, all_characters(in, self, [&](uint32_t c) {
                            any = any || is_lower(c);
                            return !is_upper(c);
                          }));
  return Value::boolean(any && none_upper.as_bool());
}

Result<Value> justified(Interpreter& in, const Value& self, const Args& args, bool left) {
  TANDEM_ASSIGN_OR_RETURN(const int64_t width, integer_argument(args, 0, "width", 0));
  TANDEM_ASSIGN_OR_RETURN(const Text* given, text_argument(args, 1, "fillchar"));
  const Text fill = given != nullptr ? *given : make_text(" ", true);
  if (count_characters(fill.bytes) != 1) return invalid_argument("expected one character to fill");
  const int64_t missing = width - static_cast<int64_t>(count_characters(self.view()));
  if (missing <= 0) return self;
  if (missing > static_cast<int64_t>(in.limits().text_bytes)) {
    return in.charge_memory(UINT64_MAX);
  }
  TANDEM_RETURN_IF_ERROR(in.charge(static_cast<uint64_t>(missing) / 16));
  TextBuilder out = in.builder();
  if (left) out.append(self.as_text());
  for (int64_t i = 0; i < missing; ++i) out.append(fill);
  if (!left) out.append(self.as_text());
  return in.make_text(out);
}

Result<Value> method_ljust(Interpreter& in, const Value& self, const Args& args) {
  return justified(in, self, args, true);
}

Result<Value> method_rjust(Interpreter& in, const Value& self, const Args& args) {
  return justified(in, self, args, false);
}

Result<Value> method_center(Interpreter& in, const Value& self, const Args& args) {
  TANDEM_RETURN_IF_ERROR(check_arguments(args, {"width"}));
  TANDEM_ASSIGN_OR_RETURN(const int64_t width, integer_argument(args, 0, "width", 0));
  return centered(in, self.as_text(), width);
}

Result<Value> method_zfill(Interpreter& in, const Value& self, const Args& args) {
  TANDEM_ASSIGN_OR_RETURN(const int64_t width, integer_argument(args, 0, "width", 0));
  const int64_t missing = width - static_cast<int64_t>(count_characters(self.view()));
  if (missing <= 0) return self;
  if (missing > static_cast<int64_t>(in.limits().text_bytes)) {
    return in.charge_memory(UINT64_MAX);
  }
  const bool has_sign = self.view().starts_with('-') || self.view().starts_with('+');
  const size_t sign = has_sign ? 1 : 0;
  TextBuilder out = in.builder();
  out.append(self.as_text(), 0, sign);
  out.append(std::string(static_cast<size_t>(missing), '0'), true);
  out.append(self.as_text(), sign, self.view().size());
  return in.make_text(out);
}

Result<Value> method_format(Interpreter& in, const Value& self, const Args& args) {
  return format_braces(in, self.as_text(), args);
}

constexpr NamedMethod kStringMethods[] = {
    {"capitalize", method_case<Case::kCapitalize>},
    {"casefold", method_case<Case::kLower>},
    {"center", method_center},
    {"count", method_count},
    {"endswith", method_endswith},
    {"find", method_find},
    {"format", method_format},
    {"index", method_index},
    {"isalnum", method_isalnum},
    {"isalpha", method_isalpha},
    {"isdecimal", method_isdigit},
    {"isdigit", method_isdigit},
    {"islower", method_islower},
    {"isnumeric", method_isdigit},
    {"isspace", method_isspace},
    {"isupper", method_isupper},
    {"join", method_join},
    {"ljust", method_ljust},
    {"lower", method_case<Case::kLower>},
    {"lstrip", method_lstrip},
    {"partition", method_partition},
    {"removeprefix", method_removeprefix},
    {"removesuffix", method_removesuffix},
    {"replace", method_replace},
    {"rfind", method_rfind},
    {"rindex", method_rindex},
    {"rjust", method_rjust},
    {"rpartition", method_rpartition},
    {"rsplit", method_rsplit},
    {"rstrip", method_rstrip},
    {"split", method_split},
    {"splitlines", method_splitlines},
    {"startswith", method_startswith},
    {"strip", method_strip},
    {"swapcase", method_case<Case::kSwap>},
    {"title", method_title},
    {"upper", method_case<Case::kUpper>},
    {"zfill", method_zfill},
};

}  // namespace

const NamedMethod* find_string_method(std::string_view name) {
  const auto* found = std::find_if(std::begin(kStringMethods), std::end(kStringMethods),
                                   [&](const NamedMethod& method) { return method.name == name; });
  return found == std::end(kStringMethods) ? nullptr : found;
}

}  // namespace tandem::jinja

#include "text/template/lexer.h"

#include <algorithm>
#include <charconv>

#include "text/template/unicode.h"

namespace tandem::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}
bool is_name(char c) { return is_name_start(c) || is_digit(c); }

std::string normalised(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      text.push_back('\n');
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      text.push_back(source[i]);
    }
  }
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : owned_(std::move(source)), source_(owned_) {}

  Result<std::vector<Token>> run() {
    while (at_ < source_.size()) TANDEM_RETURN_IF_ERROR(next_data());
    push(TokenKind::kEnd);
    return std::move(tokens_);
  }

 private:
  Status fail(size_t at, const std::string& what) {
    count_lines(std::max(at, counted_));
    return template_error(Code::kCorrupt, line_, static_cast<uint32_t>(at), what);
  }

  bool starts_with(std::string_view text) const { return source_.substr(at_).starts_with(text); }

  // Lines are counted as tokens are made: each byte is looked at once.
  void count_lines(size_t upto) {
    const auto begin = source_.begin() + static_cast<std::ptrdiff_t>(counted_);
    line_ += static_cast<uint32_t>(
        std::count(begin, source_.begin() + static_cast<std::ptrdiff_t>(upto), '\n'));
    counted_ = upto;
  }

  Token& push(TokenKind kind) {
    if (at_ > counted_) count_lines(at_);
    Token token;
    token.kind = kind;
    token.line = line_;
    token.offset = static_cast<uint32_t>(at_);
    tokens_.push_back(std::move(token));
    return tokens_.back();
  }

  size_t next_tag(size_t from) const {
    for (size_t at = source_.find('{', from); at != std::string_view::npos;
         at = source_.find('{', at + 1)) {
      if (at + 1 < source_.size() &&
          (source_[at + 1] == '{' || source_[at + 1] == '%' || source_[at + 1] == '#')) {
        return at;
      }
    }
    return std::string_view::npos;
  }

  // Text up to the next tag, less what the tag's sign and lstrip_blocks take from its end.
  void push_data(size_t end, char sign, bool is_variable) {
    std::string_view data = source_.substr(at_, end - at_);
    if (sign == '-') {
      data = data.substr(0, strip_space(data, false, true).end);
    } else if (sign != '+' && !is_variable) {
      const size_t line_start = data.rfind('\n') + 1;  // npos + 1 == 0
      const std::string_view indent = data.substr(line_start);
      const bool only_space = strip_space(indent, true, false).begin == indent.size();
      if ((line_start > 0 || line_starting_) && only_space) data = data.substr(0, line_start);
    }
    if (!data.empty()) push(TokenKind::kData).text = std::string(data);
    at_ = end;
  }

  Status next_data() {
    const size_t tag = next_tag(at_);
    if (tag == std::string_view::npos) {
      push(TokenKind::kData).text = std::string(source_.substr(at_));
      at_ = source_.size();
      return ok_status();
    }
    const char kind = source_[tag + 1];
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    const bool has_sign = sign == '-' || sign == '+';
    push_data(tag, has_sign ? sign : '\0', kind == '{');
    if (kind == '#') return skip_comment(has_sign ? 3 : 2);
    if (kind == '%' && is_raw_tag("raw")) return raw_block();
    push(kind == '{' ? TokenKind::kVariableBegin : TokenKind::kBlockBegin);
    at_ += has_sign ? 3 : 2;
    return inside_tag(kind == '{' ? '}' : '%', tag);
  }

  // What follows "-%}", "+%}" or "%}": at_ stands on the closing pair.
  void close(char sign, bool is_variable) {
    at_ += 2;
    const size_t end = at_;
    if (sign == '-') {
      at_ += strip_space(source_.substr(at_), true, false).begin;
    } else if (sign != '+' && !is_variable && at_ < source_.size() && source_[at_] == '\n') {
      ++at_;
    }
    line_starting_ = at_ > end && source_[at_ - 1] == '\n';
  }

  Status skip_comment(size_t opening_bytes) {
    const size_t begin = at_;
    const size_t end = source_.find("#}", at_ + opening_bytes);
    if (end == std::string_view::npos) return fail(begin, "comment '{#' is not closed");
    const char sign = end > begin + opening_bytes ? source_[end - 1] : '\0';
    at_ = end;
    close(sign, false);
    return ok_status();
  }

  // "{%- word -%}" at at_.
  bool is_raw_tag(std::string_view word) const {
    std::string_view rest = source_.substr(at_ + 2);
    if (!rest.empty() && (rest[0] == '-' || rest[0] == '+')) rest.remove_prefix(1);
    rest.remove_prefix(strip_space(rest, true, false).begin);
    if (!rest.starts_with(word)) return false;
    rest.remove_prefix(word.size());
    rest.remove_prefix(strip_space(rest, true, false).begin);
    return rest.starts_with("%}") || rest.starts_with("-%}") || rest.starts_with("+%}");
  }

  Status raw_block() {
    const size_t begin = at_;
    const size_t opened = source_.find("%}", at_);
    // Unlike other tags, "raw" keeps a newline after it.
    const bool strip_after = source_[opened - 1] == '-';
    at_ = opened + 2;
    if (strip_after) at_ += strip_space(source_.substr(at_), true, false).begin;
    line_starting_ = source_[at_ - 1] == '\n';
    size_t end = at_;
    for (;; ++end) {
      end = source_.find("{%", end);
      if (end == std::string_view::npos) return fail(begin, "'raw' is not closed by 'endraw'");
      const size_t here = at_;
      at_ = end;
      const bool found = is_raw_tag("endraw");
      at_ = here;
      if (found) break;
    }
    const char sign = source_[end + 2];
    push_data(end, sign == '-' || sign == '+' ? sign : '\0', false);
    const size_t closing = source_.find("%}", at_);
    at_ = closing;
    close(source_[closing - 1], false);
    return ok_status();
  }

  Status inside_tag(char closer, size_t tag) {
    std::string open;  // brackets
    while (true) {
      at_ += strip_space(source_.substr(at_), true, false).begin;
      if (at_ >= source_.size()) {
        return fail(tag, closer == '}' ? "'{{' is not closed" : "'{%' is not closed");
      }
      if (open.empty()) {
        const char sign = source_[at_];
        const bool has_sign = sign == '-' || (sign == '+' && closer == '%');
        const size_t end = at_ + (has_sign ? 1 : 0);
        if (source_.substr(end).starts_with(closer == '}' ? "}}" : "%}")) {
          push(closer == '}' ? TokenKind::kVariableEnd : TokenKind::kBlockEnd);
          at_ = end;
          close(has_sign ? sign : '\0', closer == '}');
          return ok_status();
        }
      }
      TANDEM_RETURN_IF_ERROR(token(open));
    }
  }

  Status token(std::string& open) {
    const char c = source_[at_];
    if (c == '"' || c == '\'') return string_literal();
    if (is_digit(c)) return number();
    if (is_name_start(c)) {
      size_t end = at_;
      while (end < source_.size() && is_name(source_[end])) ++end;
      push(TokenKind::kName).text = std::string(source_.substr(at_, end - at_));
      at_ = end;
      return ok_status();
    }
    return operator_sign(open);
  }

  Status operator_sign(std::string& open) {
    static constexpr std::string_view kSigns[] = {"//", "**", "==", "!=", "<=", ">=", "+", "-", "/",
                                                  "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                  ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    for (const std::string_view sign : kSigns) {
      if (!starts_with(sign)) continue;
      const char c = sign[0];
      if (c == '(') open.push_back(')');
      if (c == '[') open.push_back(']');
      if (c == '{') open.push_back('}');
      if (c == ')' || c == ']' || c == '}') {
        if (open.empty() || open.back() != c) {
          return fail(at_, std::string("unexpected '") + c + "'");
        }
        open.pop_back();
      }
      push(TokenKind::kOperator).text = std::string(sign);
      at_ += sign.size();
      return ok_status();
    }
    return fail(at_, "unexpected character '" +
                         std::string(source_.substr(at_, character_bytes(source_, at_))) + "'");
  }

  // Digits with '_' between them, appended to `digits`.
  void take_digits(std::string& digits, int base) {
    const auto fits = [&](char c) {
      const int value = is_digit(c)            ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : 99;
      return value < base;
    };
    while (at_ < source_.size()) {
      if (fits(source_[at_])) {
        digits.push_back(source_[at_++]);
      } else if (source_[at_] == '_' && at_ + 1 < source_.size() && fits(source_[at_ + 1])) {
        ++at_;
      } else {
        return;
      }
    }
  }

  Status number() {
    Token& token = push(TokenKind::kInteger);
    const size_t begin = at_;
    int base = 10;
    if (source_[at_] == '0' && at_ + 2 < source_.size()) {
      const char mark = static_cast<char>(source_[at_ + 1] | 0x20);
      base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
      if (base != 10) at_ += 2;
    }
    std::string digits;
    take_digits(digits, base);
    const auto peek = [&](size_t ahead) {
      return at_ + ahead < source_.size() ? source_[at_ + ahead] : '\0';
    };
    // "a.0.1": digits after a dot are an index, not a fraction.
    const bool after_dot = begin > 0 && source_[begin - 1] == '.';
    if (base == 10 && !after_dot) {
      if (peek(0) == '.' && is_digit(peek(1))) {
        token.kind = TokenKind::kFloat;
        ++at_;
        digits.push_back('.');
        take_digits(digits, 10);
      }
      const bool sign = peek(1) == '+' || peek(1) == '-';
      if ((peek(0) | 0x20) == 'e' && is_digit(peek(sign ? 2 : 1))) {
        token.kind = TokenKind::kFloat;
        digits.push_back('e');
        ++at_;
        if (sign) digits.push_back(source_[at_++]);
        take_digits(digits, 10);
      }
    }
    const char* end = digits.data() + digits.size();
    if (token.kind == TokenKind::kFloat) {
      if (digits.find("e+") != std::string::npos) digits.erase(digits.find("e+") + 1, 1);
      end = digits.data() + digits.size();
      const auto parsed = std::from_chars(digits.data(), end, token.number);
      if (parsed.ec != std::errc()) return fail(begin, "number is out of range");
      return ok_status();
    }
    const auto parsed = std::from_chars(digits.data(), end, token.integer, base);
    if (parsed.ec != std::errc() || parsed.ptr != end) {
      return fail(begin, "integer does not fit 64 bits");
    }
    return ok_status();
  }

  Status string_literal() {
    Token& token = push(TokenKind::kString);
    const size_t begin = at_;
    const char quote = source_[at_++];
    while (at_ < source_.size() && source_[at_] != quote) {
      if (source_[at_] == '\\') {
        TANDEM_RETURN_IF_ERROR(escape(token.text, begin));
      } else {
        token.text.push_back(source_[at_++]);
      }
    }
    if (at_ >= source_.size()) return fail(begin, "string is not closed");
    ++at_;
    return ok_status();
  }

  // The escapes of Python's string literals; an unknown one keeps its backslash.
  Status escape(std::string& text, size_t string_begin) {
    static constexpr std::string_view kNames = "abfnrtv\\'\"";
    static constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\'\"";
    if (at_ + 1 >= source_.size()) return fail(string_begin, "string is not closed");
    const char c = source_[at_ + 1];
    at_ += 2;
    if (const size_t known = kNames.find(c); known != std::string_view::npos) {
      text.push_back(kMeanings[known]);
    } else if (c >= '0' && c <= '7') {
      --at_;
      return numbered_escape(text, 1, 3, 8);
    } else if (c == 'x') {
      return numbered_escape(text, 2, 2, 16);
    } else if (c == 'u') {
      return numbered_escape(text, 4, 4, 16);
    } else if (c == 'U') {
      return numbered_escape(text, 8, 8, 16);
    } else if (c != '\n') {
      text.push_back('\\');
      --at_;
      const size_t bytes = character_bytes(source_, at_);
      text.append(source_.substr(at_, bytes));
      at_ += bytes;
    }
    return ok_status();
  }

  Status numbered_escape(std::string& text, size_t least, size_t most, int base) {
    const std::string_view digits = source_.substr(at_, most);
    uint32_t code_point = 0;
    const auto parsed =
        std::from_chars(digits.data(), digits.data() + digits.size(), code_point, base);
    const auto used = static_cast<size_t>(parsed.ptr - digits.data());
    if (parsed.ec != std::errc() || used < least || code_point > 0x10FFFF ||
        (code_point >= 0xD800 && code_point < 0xE000)) {
      return fail(at_, "escape in a string names no character");
    }
    append_character(text, code_point);
    at_ += used;
    return ok_status();
  }

  std::string owned_;
  std::string_view source_;
  size_t at_ = 0;
  size_t counted_ = 0;
  uint32_t line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

Status template_error(Code code, uint32_t line, uint32_t offset, const std::string& what) {
  return Status(code, "chat template, line " + std::to_string(line) + ": " + what)
      .at_offset(offset);
}

Result<std::vector<Token>> tokenize(std::string_view source) {
  return Lexer(normalised(source)).run();
}

}  // namespace tandem::jinja

#include "text/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <span>
#include <string>

#include "text/utf8.h"

namespace tandem {
namespace {

// The patterns say the same as the published ones of each model, rewritten so that no run of equal
// characters is read twice: `\s*[\r\n]+` becomes a possessive loop, `\s+(?!\S)|\s+` gives back one
// character at most.  White space is Unicode's White_Space property, spelled out because PCRE2's \s
// counts U+180E too.
#define SPACES "\\t-\\r\\x{85}\\p{Z}"
#define SPACES_WITHOUT_NEWLINES "\\t\\x{0b}\\x{0c}\\x{85}\\p{Z}"
#define SPACE_RUN "[" SPACES "]+(?![^" SPACES "])|[" SPACES "]"
#define LAST_NEWLINE "(?:[" SPACES_WITHOUT_NEWLINES "]*+[\\r\\n]++)++"

constexpr const char* kGpt2 =
    "'(?:[sdmt]|ll|ve|re)| ?\\p{L}++| ?\\p{N}++| ?[^" SPACES "\\p{L}\\p{N}]++|" SPACE_RUN;

#define LLAMA_LIKE(digits)                                                                       \
  "(?i:'(?:[sdmt]|ll|ve|re))|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}++|" digits "| ?[^" SPACES             \
  "\\p{L}\\p{N}]++[\\r\\n]*+|" LAST_NEWLINE "|" SPACE_RUN

constexpr const char* kLlamaBpe = LLAMA_LIKE("\\p{N}{1,3}+");
constexpr const char* kQwen2 = LLAMA_LIKE("\\p{N}");

constexpr const char* kGpt2Only[] = {kGpt2};
constexpr const char* kLlamaBpeOnly[] = {kLlamaBpe};
constexpr const char* kQwen2Only[] = {kQwen2};
// What GGUF programs do when a file does not say: punctuation apart, then words, then digits by three.
constexpr const char* kDefault[] = {"[\\p{P}$+<=>^~|]++", kGpt2, "\\p{N}++", "[0-9]{3}"};

struct Named {
  std::string_view name;
  std::span<const char* const> patterns;
};

constexpr Named kKnown[] = {
    {"default", kDefault},       {"gpt-2", kGpt2Only},         {"llama-bpe", kLlamaBpeOnly},
    {"llama3", kLlamaBpeOnly},   {"llama-v3", kLlamaBpeOnly},  {"qwen2", kQwen2Only},
};

struct FreeCode {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct FreeMatchData {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct FreeMatchContext {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

std::string pcre2_text(int error) {
  PCRE2_UCHAR buffer[256] = {};
  pcre2_get_error_message(error, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

// What one split() call matches with.
struct Matcher {
  std::unique_ptr<pcre2_match_data, FreeMatchData> data;
  std::unique_ptr<pcre2_match_context, FreeMatchContext> context;

  static Result<Matcher> create(size_t n_bytes) {
    Matcher matcher;
    matcher.data.reset(pcre2_match_data_create(1, nullptr));
    matcher.context.reset(pcre2_match_context_create(nullptr));
    if (!matcher.data || !matcher.context) return out_of_memory("pre-tokenizer: no match state");
    // A safety net only: a word costs a few steps per character.
    const size_t steps = std::min<size_t>(1000 + 64 * n_bytes, UINT32_MAX);
    pcre2_set_match_limit(matcher.context.get(), static_cast<uint32_t>(steps));
    pcre2_set_depth_limit(matcher.context.get(), 1000);
    pcre2_set_heap_limit(matcher.context.get(), 1024);  // KiB
    return matcher;
  }
};

// Bytes that are not UTF-8 become U+0001: one byte as well, and of no class the patterns name.
std::string with_invalid_bytes_masked(std::string_view text) {
  std::string masked(text);
  for (size_t at = 0; at < text.size();) {
    const utf8::Character character = utf8::decode(text.substr(at));
    if (character.state != utf8::Character::State::kWhole) {
      std::fill_n(masked.begin() + static_cast<std::ptrdiff_t>(at), character.length, '\x01');
    }
    at += character.length;
  }
  return masked;
}

}  // namespace

class PreTokenizer::Pattern {
 public:
  static Result<Pattern> compile(const char* source, bool allow_jit) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    Pattern pattern;
    pattern.code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source), PCRE2_ZERO_TERMINATED,
                                      PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr));
    if (!pattern.code_) return internal_error("pre-tokenizer pattern: " + pcre2_text(error));
    pattern.jit_ = allow_jit && pcre2_jit_compile(pattern.code_.get(), PCRE2_JIT_COMPLETE) == 0;
    return pattern;
  }

  bool jit() const { return jit_; }

  // Cuts piece [begin, end) of valid UTF-8 into matches and what lies between them.
  Status cut(std::string_view text, uint32_t begin, uint32_t end, const Matcher& matcher,
             const CancelFlag& cancel, std::vector<uint32_t>& ends) const {
    const std::string_view piece = text.substr(begin, end - begin);
    size_t at = 0;
    while (at < piece.size()) {
      if (ends.size() % 1024 == 0 && cancel.cancelled()) return cancelled("cancelled while tokenizing");
      const int n = match(piece, at, matcher);
      if (n == PCRE2_ERROR_NOMATCH) break;
      if (n < 0) return internal_error("pre-tokenizer: " + pcre2_text(n));
      const PCRE2_SIZE* found = pcre2_get_ovector_pointer(matcher.data.get());
      if (found[0] > at) ends.push_back(begin + static_cast<uint32_t>(found[0]));
      ends.push_back(begin + static_cast<uint32_t>(found[1]));
      at = found[1];
    }
    if (at < piece.size()) ends.push_back(end);
    return ok_status();
  }

 private:
  int match(std::string_view piece, size_t at, const Matcher& matcher) const {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(piece.data());
    if (jit_) {
      const int n = pcre2_jit_match(code_.get(), subject, piece.size(), at, 0, matcher.data.get(),
                                    matcher.context.get());
      if (n != PCRE2_ERROR_JIT_STACKLIMIT) return n;
    }
    return pcre2_match(code_.get(), subject, piece.size(), at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                       matcher.data.get(), matcher.context.get());
  }

  std::unique_ptr<pcre2_code, FreeCode> code_;
  bool jit_ = false;
};

PreTokenizer::PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;
PreTokenizer::~PreTokenizer() = default;

Result<PreTokenizer> PreTokenizer::create(std::string_view name, bool allow_jit) {
  if (name.empty()) name = "default";
  const auto* known = std::find_if(std::begin(kKnown), std::end(kKnown),
                                   [&](const Named& entry) { return entry.name == name; });
  if (known == std::end(kKnown)) {
    std::string message = "tokenizer.ggml.pre: pre-tokenizer \"" + std::string(name.substr(0, 64)) +
                          "\" is not supported; supported are";
    for (const Named& entry : kKnown) message += " " + std::string(entry.name);
    return unsupported(std::move(message));
  }
  PreTokenizer made;
  for (const char* source : known->patterns) {
    TANDEM_ASSIGN_OR_RETURN(Pattern pattern, Pattern::compile(source, allow_jit));
    made.patterns_.push_back(std::move(pattern));
  }
  return made;
}

bool PreTokenizer::compiled_to_machine_code() const {
  return std::all_of(patterns_.begin(), patterns_.end(), [](const Pattern& p) { return p.jit(); });
}

Status PreTokenizer::split(std::string_view text, const CancelFlag& cancel,
                           std::vector<uint32_t>& word_ends) const {
  if (text.empty()) return ok_status();
  if (!utf8::is_valid(text)) return split(with_invalid_bytes_masked(text), cancel, word_ends);
  TANDEM_ASSIGN_OR_RETURN(const Matcher matcher, Matcher::create(text.size()));
  std::vector<uint32_t> pieces = {static_cast<uint32_t>(text.size())};
  std::vector<uint32_t> cut;
  for (const Pattern& pattern : patterns_) {
    cut.clear();
    uint32_t begin = 0;
    for (const uint32_t end : pieces) {
      TANDEM_RETURN_IF_ERROR(pattern.cut(text, begin, end, matcher, cancel, cut));
      begin = end;
    }
    pieces.swap(cut);
  }
  word_ends.insert(word_ends.end(), pieces.begin(), pieces.end());
  return ok_status();
}

}  // namespace tandem

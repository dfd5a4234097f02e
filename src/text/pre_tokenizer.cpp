#include "text/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <span>
#include <string>

#include "base/utf8.h"
#include "text/text_encoder.h"

namespace tandem {
namespace {

// The patterns say the same as the published ones of each model, rewritten so that no run of equal
// characters is read twice: `\s*[\r\n]+` becomes a possessive loop, `\s+(?!\S)|\s+` gives back one
// character at most.  White space is Unicode's White_Space property, spelled out because PCRE2's \s
// counts U+180E too.
//
// One match may be as long as the text, and a match cannot be cancelled but by a callout.  So each
// loop runs in blocks, RUN(), and from the second block on there is one; words of usual length
// never get there.
#define SPACES "\\t-\\r\\x{85}\\p{Z}"
#define SPACES_WITHOUT_NEWLINES "\\t\\x{0b}\\x{0c}\\x{85}\\p{Z}"
#define BLOCK "{1,60000}"
#define RUN(set) set BLOCK "+(?:" set BLOCK "+(?C1))*+"
#define SPACE_BLOCK "[" SPACES "]" BLOCK "(?![^" SPACES "])"
#define SPACE_RUN SPACE_BLOCK "(?:" SPACE_BLOCK "(?C1))*+|[" SPACES "]"
#define LINE_END "(?:" RUN("[" SPACES_WITHOUT_NEWLINES "]") ")?+" RUN("[\\r\\n]")
#define LAST_NEWLINE LINE_END "(?:" LINE_END "(?C1))*+"

constexpr const char* kGpt2 = "'(?:[sdmt]|ll|ve|re)| ?" RUN("\\p{L}") "| ?" RUN("\\p{N}") "| ?" RUN(
    "[^" SPACES "\\p{L}\\p{N}]") "|" SPACE_RUN;

#define LLAMA_LIKE(digits)                                                                \
  "(?i:'(?:[sdmt]|ll|ve|re))|[^\\r\\n\\p{L}\\p{N}]?+" RUN("\\p{L}") "|" digits "| ?" RUN( \
      "[^" SPACES "\\p{L}\\p{N}]") "(?:" RUN("[\\r\\n]") ")?+|" LAST_NEWLINE "|" SPACE_RUN

constexpr const char* kLlamaBpe = LLAMA_LIKE("\\p{N}{1,3}+");
constexpr const char* kQwen2 = LLAMA_LIKE("\\p{N}");

constexpr const char* kGpt2Only[] = {kGpt2};
constexpr const char* kLlamaBpeOnly[] = {kLlamaBpe};
constexpr const char* kQwen2Only[] = {kQwen2};
// What GGUF programs do when a file does not say: punctuation apart, then words, then digits by
// three.
constexpr const char* kDefault[] = {RUN("[\\p{P}$+<=>^~|]"), kGpt2, RUN("\\p{N}"), "[0-9]{3}"};

struct Named {
  std::string_view name;
  std::span<const char* const> patterns;
};

constexpr Named kKnown[] = {
    {"default", kDefault},     {"gpt-2", kGpt2Only},        {"llama-bpe", kLlamaBpeOnly},
    {"llama3", kLlamaBpeOnly}, {"llama-v3", kLlamaBpeOnly}, {"qwen2", kQwen2Only},
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

int look_at_flag(pcre2_callout_block*, void* cancel) {
  return static_cast<const CancelFlag*>(cancel)->cancelled() ? PCRE2_ERROR_CALLOUT : 0;
}

// What one split() call matches with.
struct Matcher {
  std::unique_ptr<pcre2_match_data, FreeMatchData> data;
  std::unique_ptr<pcre2_match_context, FreeMatchContext> context;
  const CancelFlag* cancel = nullptr;

  static Result<Matcher> create(size_t n_bytes, const CancelFlag& cancel) {
    Matcher matcher;
    matcher.cancel = &cancel;
    matcher.data.reset(pcre2_match_data_create(1, nullptr));
    matcher.context.reset(pcre2_match_context_create(nullptr));
    if (!matcher.data || !matcher.context) return out_of_memory("pre-tokenizer: no match state");
    // A safety net only: a word costs a few steps per character.
    const size_t steps = std::min<size_t>(1000 + 64 * n_bytes, UINT32_MAX);
    pcre2_set_match_limit(matcher.context.get(), static_cast<uint32_t>(steps));
    pcre2_set_depth_limit(matcher.context.get(), 1000);
    pcre2_set_heap_limit(matcher.context.get(), 1024);  // KiB
    pcre2_set_callout(matcher.context.get(), look_at_flag, const_cast<CancelFlag*>(&cancel));
    return matcher;
  }
};

constexpr size_t kBlockBytes = size_t{1} << 20;  // handled between two looks at the cancel flag
constexpr size_t kMatchesBetweenLooks = 4096;

// The start of a text in which no character is cut through.
std::string_view first_block(std::string_view text) {
  if (text.size() <= kBlockBytes) return text;
  return text.substr(0, utf8::complete_length(text.substr(0, kBlockBytes)));
}

// Bytes that are not UTF-8 become U+0001: one byte as well, and of no class the patterns name.
void mask_invalid_bytes(std::span<char> block) {
  const std::string_view text(block.data(), block.size());
  for (size_t at = 0; at < text.size();) {
    const utf8::Character character = utf8::decode(text.substr(at));
    if (character.state != utf8::Character::State::kWhole) {
      std::fill_n(block.begin() + static_cast<std::ptrdiff_t>(at), character.length, '\x01');
    }
    at += character.length;
  }
}

// The text if it is UTF-8, else a copy in `masked` with the wrong bytes masked.
Result<std::string_view> valid_text(std::string_view text, std::string& masked,
                                    const CancelFlag& cancel) {
  for (std::string_view rest = text; !rest.empty();) {
    if (cancel.cancelled()) return encoding_cancelled();
    const std::string_view block = first_block(rest);
    const size_t begin = static_cast<size_t>(block.data() - text.data());
    rest.remove_prefix(block.size());
    if (utf8::is_valid(block)) continue;
    if (masked.empty()) masked = text;
    mask_invalid_bytes(std::span(masked).subspan(begin, block.size()));
  }
  return masked.empty() ? text : std::string_view(masked);
}

}  // namespace

class PreTokenizer::Pattern {
 public:
  static Result<Pattern> compile(const char* source, bool allow_jit) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    Pattern pattern;
    pattern.code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source), PCRE2_ZERO_TERMINATED,
                                      PCRE2_UTF | PCRE2_UCP | PCRE2_USE_OFFSET_LIMIT, &error,
                                      &offset, nullptr));
    if (!pattern.code_) return internal_error("pre-tokenizer pattern: " + pcre2_text(error));
    pattern.jit_ = allow_jit && pcre2_jit_compile(pattern.code_.get(), PCRE2_JIT_COMPLETE) == 0;
    return pattern;
  }

  bool jit() const { return jit_; }

  // Cuts piece [begin, end) of valid UTF-8 into matches and what lies between them.
  Status cut(std::string_view text, uint32_t begin, uint32_t end, const Matcher& matcher,
             std::vector<uint32_t>& ends) const {
    const std::string_view piece = text.substr(begin, end - begin);
    size_t at = 0, n_matches = 0;
    while (at < piece.size()) {
      if (++n_matches % kMatchesBetweenLooks == 0 && matcher.cancel->cancelled()) {
        return encoding_cancelled();
      }
      const int n = next_match(piece, at, matcher);
      if (n == PCRE2_ERROR_NOMATCH) break;
      if (n == PCRE2_ERROR_CALLOUT) return encoding_cancelled();
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
  // The first match from `at` on, looked for block by block.
  int next_match(std::string_view piece, size_t at, const Matcher& matcher) const {
    while (true) {
      const size_t limit = at + first_block(piece.substr(at)).size();
      pcre2_set_offset_limit(matcher.context.get(), limit);
      const int n = match(piece, at, matcher);
      if (n != PCRE2_ERROR_NOMATCH || limit == piece.size()) return n;
      if (matcher.cancel->cancelled()) return PCRE2_ERROR_CALLOUT;
      at = limit;
    }
  }

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

Status PreTokenizer::split(std::string_view unchecked, const CancelFlag& cancel,
                           std::vector<uint32_t>& word_ends) const {
  if (unchecked.empty()) return ok_status();
  std::string masked;
  TANDEM_ASSIGN_OR_RETURN(const std::string_view text, valid_text(unchecked, masked, cancel));
  TANDEM_ASSIGN_OR_RETURN(const Matcher matcher, Matcher::create(text.size(), cancel));
  std::vector<uint32_t> pieces = {static_cast<uint32_t>(text.size())};
  std::vector<uint32_t> cut;
  for (const Pattern& pattern : patterns_) {
    cut.clear();
    uint32_t begin = 0;
    for (const uint32_t end : pieces) {
      TANDEM_RETURN_IF_ERROR(pattern.cut(text, begin, end, matcher, cut));
      begin = end;
    }
    pieces.swap(cut);
  }
  word_ends.insert(word_ends.end(), pieces.begin(), pieces.end());
  return ok_status();
}

}  // namespace tandem

#include "edit_reader.h"

#include <histedit.h>
#include <langinfo.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cwchar>
#include <deque>
#include <filesystem>
#include <string_view>

#include "interrupts.h"

namespace tandem::cli {
namespace {

namespace fs = std::filesystem;

// The editor knows lines only: a pasted newline is shown, edited and kept in the history as this
// sign.
constexpr wchar_t kNewlineSign = L'\u2424';
constexpr std::string_view kPasteBegin = "\x1b[200~";
constexpr std::string_view kPasteEnd = "\x1b[201~";
constexpr int kEscapeMs = 25;  // the bytes of one key come within this time
constexpr int kHistorySize = 1000;

std::string utf8_of(const std::wstring& text) {
  std::string result;
  for (const wchar_t wide : text) {
    const auto c = static_cast<uint32_t>(wide);
    if (c < 0x80) {
      result += static_cast<char>(c);
    } else if (c < 0x800) {
      result += static_cast<char>(0xC0 | (c >> 6));
      result += static_cast<char>(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
      result += static_cast<char>(0xE0 | (c >> 12));
      result += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
      result += static_cast<char>(0x80 | (c & 0x3F));
    } else {
      result += static_cast<char>(0xF0 | (c >> 18));
      result += static_cast<char>(0x80 | ((c >> 12) & 0x3F));
      result += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
      result += static_cast<char>(0x80 | (c & 0x3F));
    }
  }
  return result;
}

// Bytes that follow the first one of a character; -1: it cannot begin one.
int n_continuations(unsigned char first) {
  if (first < 0x80) return 0;
  if (first >= 0xC2 && first <= 0xDF) return 1;
  if (first >= 0xE0 && first <= 0xEF) return 2;
  if (first >= 0xF0 && first <= 0xF4) return 3;
  return -1;
}

// Broken sequences become U+FFFD.
std::wstring wide_of(std::string_view text) {
  std::wstring result;
  for (size_t i = 0; i < text.size();) {
    const auto first = static_cast<unsigned char>(text[i++]);
    int rest = n_continuations(first);
    uint32_t c = rest == 0 ? first : first & (0x3Fu >> rest);
    bool whole = rest >= 0;
    for (; rest > 0 && whole; --rest) {
      whole = i < text.size() && (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80;
      if (whole) c = (c << 6) | (static_cast<unsigned char>(text[i++]) & 0x3F);
    }
    result += whole ? static_cast<wchar_t>(c) : L'\uFFFD';
  }
  return result;
}

// Cells on a terminal; the editor shows a control character as two.
size_t columns_of(std::wstring_view text) {
  size_t n = 0;
  for (const wchar_t c : text) {
    const int width = ::wcwidth(c);
    n += width < 0 ? 2 : static_cast<size_t>(width);
  }
  return n;
}

fs::path history_path() {
  const char* state = std::getenv("XDG_STATE_HOME");
  if (state != nullptr && *state == '/') return fs::path(state) / "tandem" / "history";
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home != '/') return {};
  return fs::path(home) / ".local" / "state" / "tandem" / "history";
}

class EditReader : public LineReader {
 public:
  EditReader();
  ~EditReader() override;
  bool works() const { return edit_ != nullptr; }

  Outcome read(const char* prompt, std::string& line) override;
  void remember(const std::string& text) override;

 private:
  enum class Got { kByte, kTimeOut, kInterrupted, kEnd };

  void bind_keys();
  void load_history();
  Got get_byte(unsigned char& byte, int timeout_ms);
  Got take_escape();
  Got take_paste();
  int read_char(wchar_t* c);
  void redraw_if_needed();
  void leave_drawn_line();

  static int on_read_char(EditLine* edit, wchar_t* c) { return self(edit)->read_char(c); }
  static wchar_t* on_prompt(EditLine* edit) { return self(edit)->prompt_.data(); }
  static EditReader* self(EditLine* edit) {
    void* data = nullptr;
    el_wget(edit, EL_CLIENTDATA, &data);
    return static_cast<EditReader*>(data);
  }

  EditLine* edit_ = nullptr;
  HistoryW* history_ = nullptr;
  std::string history_file_;
  std::wstring prompt_;
  std::wstring typed_;                // when an interrupt came
  std::deque<wchar_t> ready_;         // characters that the editor has not asked for yet
  std::deque<unsigned char> unread_;  // bytes taken to recognise a paste, which were something else
  bool interrupted_ = false, ended_ = false;
};

EditReader::EditReader() {
  // The editor needs to know how wide characters are. A terminal that shows no UTF-8 is not seen
  // any more, a container without a locale is.
  std::setlocale(LC_CTYPE, "");
  if (std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) std::setlocale(LC_CTYPE, "C.UTF-8");
  edit_ = el_init("tandem", stdin, stderr, stderr);
  if (edit_ == nullptr) return;
  el_wset(edit_, EL_CLIENTDATA, this);
  el_wset(edit_, EL_PROMPT, on_prompt);
  el_wset(edit_, EL_EDITOR, L"emacs");
  el_wset(edit_, EL_SIGNAL, 0);
  el_wset(edit_, EL_GETCFN, on_read_char);
  bind_keys();
  load_history();
  el_source(edit_, nullptr);
}

EditReader::~EditReader() {
  if (edit_ != nullptr) el_end(edit_);
  if (history_ != nullptr) history_wend(history_);
}

// Keys that people expect and libedit leaves alone.
void EditReader::bind_keys() {
  const auto bind = [this](const wchar_t* key, const wchar_t* command) {
    el_wset(edit_, EL_BIND, key, command, nullptr);
  };
  bind(L"^I", L"ed-insert");
  bind(L"^W", L"ed-delete-prev-word");
  bind(L"^R", L"em-inc-search-prev");
  bind(L"\\e[3~", L"ed-delete-next-char");
  bind(L"\\e[H", L"ed-move-to-beg");
  bind(L"\\e[F", L"ed-move-to-end");
  bind(L"\\e[1~", L"ed-move-to-beg");
  bind(L"\\e[4~", L"ed-move-to-end");
  bind(L"\\e[1;5C", L"em-next-word");
  bind(L"\\e[1;5D", L"ed-prev-word");
}

void EditReader::load_history() {
  history_ = history_winit();
  if (history_ == nullptr) return;
  HistEventW event;
  history_w(history_, &event, H_SETSIZE, kHistorySize);
  history_w(history_, &event, H_SETUNIQUE, 1);
  el_wset(edit_, EL_HIST, history_w, history_);
  const fs::path path = history_path();
  if (path.empty()) return;
  std::error_code failed;
  fs::create_directories(path.parent_path(), failed);
  if (failed) return;  // a history that cannot be kept is not worth a word
  history_file_ = path.string();
  history_w(history_, &event, H_LOAD, history_file_.c_str());
}

void EditReader::remember(const std::string& text) {
  if (history_ == nullptr || text.empty()) return;
  std::wstring wide = wide_of(text);
  for (wchar_t& c : wide) {
    if (c == L'\n') c = kNewlineSign;
  }
  HistEventW event;
  history_w(history_, &event, H_ENTER, wide.c_str());
  // At once: a program that is killed has not lost it.
  if (!history_file_.empty()) history_w(history_, &event, H_SAVE, history_file_.c_str());
}

// The editor draws where the cursor is and knows only the old width: go up to where the prompt
// stands now and clear all below.  Terminals break lines anew when their width changes, nearly all
// of them; on one that does not, a piece of the old line stays.
void EditReader::leave_drawn_line() {
  winsize size = {};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) size.ws_col = 80;
  const LineInfoW* line = el_wline(edit_);
  const auto before = static_cast<size_t>(line->cursor - line->buffer);
  const size_t n_columns = columns_of(prompt_) + columns_of({line->buffer, before});
  const size_t n_rows = n_columns / size.ws_col;
  std::fputs("\r", stderr);
  if (n_rows > 0) std::fprintf(stderr, "\x1b[%zuA", n_rows);
  std::fputs("\x1b[J", stderr);
  std::fflush(stderr);
}

void EditReader::redraw_if_needed() {
  if (interrupts::take_continue()) {
    el_wset(edit_, EL_PREP_TERM, 1);
    el_wset(edit_, EL_REFRESH);
  }
  if (interrupts::take_window_change()) {
    leave_drawn_line();
    el_resize(edit_);
    el_wset(edit_, EL_REFRESH);
  }
}

EditReader::Got EditReader::get_byte(unsigned char& byte, int timeout_ms) {
  if (!unread_.empty()) {
    byte = unread_.front();
    unread_.pop_front();
    return Got::kByte;
  }
  while (true) {
    redraw_if_needed();
    pollfd watched[2] = {{STDIN_FILENO, POLLIN, 0}, {interrupts::fd(), POLLIN, 0}};
    const int n_ready = ::poll(watched, 2, timeout_ms);
    if (interrupts::pending()) return Got::kInterrupted;
    if (n_ready == 0) return Got::kTimeOut;
    if (n_ready < 0) continue;
    const ssize_t n = ::read(STDIN_FILENO, &byte, 1);
    if (n == 1) return Got::kByte;
    if (n == 0 || (errno != EINTR && errno != EAGAIN)) return Got::kEnd;
  }
}

// After an ESC: a paste, or a key whose bytes go to the editor.
EditReader::Got EditReader::take_escape() {
  std::string seen(1, kPasteBegin[0]);
  while (seen.size() < kPasteBegin.size()) {
    unsigned char byte = 0;
    const Got got = get_byte(byte, kEscapeMs);
    if (got == Got::kInterrupted || got == Got::kEnd) return got;
    if (got == Got::kByte) seen += static_cast<char>(byte);
    if (got == Got::kTimeOut || seen.back() != kPasteBegin[seen.size() - 1]) {
      ready_.push_back(L'\x1b');
      unread_.insert(unread_.begin(), seen.begin() + 1, seen.end());
      return Got::kByte;
    }
  }
  return take_paste();
}

EditReader::Got EditReader::take_paste() {
  std::string text;
  while (!text.ends_with(kPasteEnd)) {
    unsigned char byte = 0;
    const Got got = get_byte(byte, -1);
    if (got != Got::kByte) return got;
    text += static_cast<char>(byte);
  }
  text.resize(text.size() - kPasteEnd.size());
  while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
  bool after_return = false;
  for (const wchar_t c : wide_of(text)) {
    const bool is_newline = c == L'\n' || c == L'\r';
    if (is_newline && !(c == L'\n' && after_return)) ready_.push_back(kNewlineSign);
    after_return = c == L'\r';
    if (c == L'\t' || (c >= 0x20 && c != 0x7F)) ready_.push_back(c);
  }
  return Got::kByte;
}

int EditReader::read_char(wchar_t* c) {
  while (ready_.empty()) {
    unsigned char byte = 0;
    Got got = get_byte(byte, -1);
    if (got == Got::kByte && byte == 0x1b) {
      got = take_escape();
      if (got == Got::kByte) continue;
    }
    if (got == Got::kInterrupted) {
      interrupted_ = true;
      const LineInfoW* line = el_wline(edit_);
      typed_.assign(line->buffer, line->lastchar);
      errno = EINTR;
      return -1;
    }
    if (got != Got::kByte) {
      ended_ = true;
      return 0;
    }
    std::string bytes(1, static_cast<char>(byte));
    for (int rest = n_continuations(byte); rest > 0; --rest) {
      if (get_byte(byte, kEscapeMs) != Got::kByte) break;
      bytes += static_cast<char>(byte);
    }
    for (const wchar_t wide : wide_of(bytes)) ready_.push_back(wide);
  }
  *c = ready_.front();
  ready_.pop_front();
  return 1;
}

LineReader::Outcome EditReader::read(const char* prompt, std::string& line) {
  prompt_ = wide_of(prompt);
  interrupted_ = ended_ = false;
  std::fputs("\x1b[?2004h", stderr);
  int n_chars = 0;
  const wchar_t* typed = el_wgets(edit_, &n_chars);
  std::fputs("\x1b[?2004l", stderr);
  std::fflush(stderr);
  if (interrupted_) {
    ready_.clear();
    unread_.clear();
    std::fputs("^C\n", stderr);
    line = utf8_of(typed_);
    return Outcome::kInterrupted;
  }
  if (typed == nullptr || n_chars <= 0) {
    std::fputs("\n", stderr);
    return Outcome::kEnd;
  }
  std::wstring wide(typed, static_cast<size_t>(n_chars));
  while (!wide.empty() && (wide.back() == L'\n' || wide.back() == L'\r')) wide.pop_back();
  for (wchar_t& c : wide) {
    if (c == kNewlineSign) c = L'\n';
  }
  line = utf8_of(wide);
  return Outcome::kLine;
}

}  // namespace

std::unique_ptr<LineReader> make_edit_reader() {
  auto reader = std::make_unique<EditReader>();
  if (!reader->works()) return nullptr;
  return reader;
}

}  // namespace tandem::cli

// Runs the real program: through pipes, or on a terminal of its own.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

namespace tandem::testing {

struct Outcome {
  int exit_code = -1;  // 128 + n when a signal n ended it
  std::string out;     // standard output
  std::string err;     // standard error
  bool timed_out = false;
};

// Runs `tandem ARGUMENTS` with `input` on standard input and waits for its end, at most a minute.
// The environment is small and the same everywhere: HOME and XDG_STATE_HOME lie in a temporary
// folder.
Outcome tandem(const std::vector<std::string>& arguments, std::string_view input = "");

// The same with standard output closed early: after `n_bytes` were read.
Outcome tandem_with_reader_that_leaves(const std::vector<std::string>& arguments, size_t n_bytes);

// The same where no file may grow past `n_bytes`, as on a full drive.
Outcome tandem_on_a_full_drive(const std::vector<std::string>& arguments, size_t n_bytes,
                               std::string_view input = "");

// The program on a pseudo-terminal. Ends it when it goes.
class TerminalProgram {
 public:
  explicit TerminalProgram(const std::vector<std::string>& arguments,
                           const std::vector<std::string>& environment = {});
  ~TerminalProgram();
  TerminalProgram(const TerminalProgram&) = delete;
  TerminalProgram& operator=(const TerminalProgram&) = delete;

  void type(std::string_view keys);
  void resize(unsigned short n_columns);
  // Waits until what came since the last wait holds the text; false after 20 seconds.
  bool shows(std::string_view text) { return shows_within(text, 20); }
  bool shows_within(std::string_view text, double seconds);
  // The prompt is there and the terminal takes keys one by one: until then Ctrl-D means something
  // else.
  bool prompts();
  // Waits for so many more bytes of anything; false after 20 seconds.
  bool shows_more(size_t n_bytes);
  // All of it so far.
  const std::string& seen() const { return all_; }
  // Waits for the end.
  int exit_code();

 private:
  bool read_some(int timeout_ms);

  pid_t process_ = -1;
  int terminal_ = -1;
  std::string all_;
  size_t looked_at_ = 0;
};

// Names of fixtures.
std::string golden(std::string_view name);
std::string bundled();  // the model that comes with tandem

}  // namespace tandem::testing

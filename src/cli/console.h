// Where the program speaks: answers on standard output, everything else on standard error.
//
// Threading: one thread at a time, except progress, which is drawn from the library's threads while
// the program's own thread waits. Errors: a failed write to standard output is remembered; finish()
// turns it into the exit code.
#pragma once

#include <string>
#include <string_view>

#include "tandem/tandem.hpp"

namespace tandem::cli {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitInterrupted = 130;

class Console {
 public:
  Console();

  // Standard output. False when nobody reads it any more, or it is full: stop producing.
  bool out(std::string_view text);
  // The same for what a model wrote: on a terminal without control characters.
  bool answer(std::string_view text);
  bool out_works() const { return out_errno_ == 0; }

  // Standard error.
  void err(std::string_view text);
  // A line without control characters, since it may quote a file.
  void line(std::string_view text);
  // "note        ..." in the manner of the first lines of a chat.
  void note(std::string_view text);
  // For what stands beside an answer: dim where the terminal can.
  void dim_line(std::string_view text);
  // "error: ..." with an indented suggestion, which may be empty.
  void error(std::string_view text, std::string_view suggestion = "");

  // Prints the error and gives the exit code: 130 when the user cancelled, else 1.
  int fail(const api::Error& error);

  bool in_is_terminal() const { return in_is_terminal_; }
  bool out_is_terminal() const { return out_is_terminal_; }
  bool err_is_terminal() const { return err_is_terminal_; }
  // Whether standard error understands cursor movement: a terminal that is not TERM=dumb.
  bool err_can_move() const { return err_can_move_; }
  bool err_has_colour() const { return err_has_colour_; }
  int err_width() const;

  // The exit code of the program: `code`, unless standard output failed. Ends the process by
  // SIGPIPE when the reader went away, as other tools do.
  int finish(int code);

 private:
  bool in_is_terminal_, out_is_terminal_, err_is_terminal_, err_can_move_, err_has_colour_;
  int out_errno_ = 0;
};

}  // namespace tandem::cli

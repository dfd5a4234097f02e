// The arguments of one command: CLI11 with one manner of help, of errors and of suggestions.
//
// Values are written to the variables only by parse(). Ownership: keeps references to them.
// Errors: parse() prints the error or the help itself and gives the exit code.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "console.h"
#include "numbers.h"

namespace CLI {
class App;  // its headers take a second to compile: command_line.cpp alone has them
}

namespace tandem::cli {

using Arguments = std::vector<std::string>;

class CommandLine {
 public:
  // `example` heads the help: one or more command lines. `positionals` is how they are shown:
  // "MODEL [TEXT]".
  CommandLine(std::string name, std::string summary, std::string example, std::string positionals);
  ~CommandLine();

  // Options that follow stand under this heading in the help.
  void group(std::string name) { group_ = std::move(name); }

  void flag(const std::string& names, bool& value, const std::string& help);
  void text(const std::string& names, std::string& value, const std::string& type,
            const std::string& help);
  void text(const std::string& names, std::optional<std::string>& value, const std::string& type,
            const std::string& help);
  // May be given more than once; an empty one is refused.
  void texts(const std::string& names, std::vector<std::string>& values, const std::string& type,
             const std::string& help);
  void choice(const std::string& names, std::string& value, std::vector<std::string> choices,
              const std::string& help);
  // A whole number, `least` to `most`; suffixes like 4k where sizes are allowed.
  template <typename T>
  void whole(const std::string& names, T& value, int64_t least, int64_t most,
             const std::string& help);
  template <typename T>
  void real(const std::string& names, T& value, double least, double most, const std::string& help);

  // Nothing to go on with, or the exit code to end with. Requires: called once.
  std::optional<int> parse(Console& console, const Arguments& arguments);

  // What stood without a flag, in order.
  const std::vector<std::string>& positionals() const { return positional_values_; }
  // Takes the first positional unless `from_flag` has a value already. Prints the error when there
  // is none.
  std::optional<std::string> take_model(Console& console, const std::string& from_flag);
  // Prints that there is one too many, unless all positionals are taken.
  bool all_taken(Console& console) const;
  std::optional<std::string> take_positional();

  // Prints a usage error of this command and gives its exit code.
  int usage_error(Console& console, std::string_view text, std::string_view suggestion = "") const;
  std::string help() const;

 private:
  using Accept = std::function<std::string(const std::string&)>;  // "" or what it expects
  void value(const std::string& names, const std::string& type, const std::string& help,
             Accept accept);
  void require_least_most(const std::string& names, const std::string& help, int64_t least,
                          int64_t most, std::function<void(int64_t)> set);
  void require_real(const std::string& names, const std::string& help, double least, double most,
                    std::function<void(double)> set);
  std::string unknown_option() const;
  std::string nearest_option(const std::string& flag) const;

  std::string name_, summary_, example_, positional_usage_;
  std::string group_ = "Options";
  std::unique_ptr<CLI::App> app_;
  Arguments arguments_;  // as typed, for error messages
  std::vector<std::string> positional_values_;
  size_t positionals_taken_ = 0;
  bool help_wanted_ = false;
};

template <typename T>
struct Unwrapped {
  using type = T;
};
template <typename T>
struct Unwrapped<std::optional<T>> {
  using type = T;
};

template <typename T>
void CommandLine::whole(const std::string& names, T& target, int64_t least, int64_t most,
                        const std::string& help) {
  require_least_most(names, help, least, most, [&target](int64_t number) {
    target = static_cast<typename Unwrapped<T>::type>(number);
  });
}

template <typename T>
void CommandLine::real(const std::string& names, T& target, double least, double most,
                       const std::string& help) {
  require_real(names, help, least, most, [&target](double number) {
    target = static_cast<typename Unwrapped<T>::type>(number);
  });
}

}  // namespace tandem::cli

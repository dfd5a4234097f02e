// A conversation at the prompt: what was said, how answers are sampled, and the commands that begin
// with a slash.
//
// Threading: one thread. Ownership: the Console and the Loaded model must outlive it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "answer.h"
#include "console.h"
#include "line_reader.h"
#include "loading.h"
#include "sampling_flags.h"

namespace tandem::cli {

// What was said, without the system message's place in it.
struct Conversation {
  std::string system;
  std::vector<api::Message> turns;  // user, assistant, user, ...

  std::vector<api::Message> messages() const;
  std::string to_json(const std::string& model) const;
  // Nothing, and `error` says why, when the text is no conversation.
  static std::optional<Conversation> from_json(std::string_view text, std::string& error);
};

class Chat {
 public:
  Chat(Console& console, Loaded& loaded, api::Session session, api::AnswerOptions options,
       std::string system);

  // Until the input ends or /quit; the exit code.
  int run(LineReader& reader);

 private:
  struct Command {
    std::string_view name, usage, help;
    void (Chat::*run)(const std::string& argument);
  };
  static const std::vector<Command>& command_table();

  void take(const std::string& message);
  void answer();
  void keep(const Answer& answer);
  void obey(const std::string& line);
  void failed(const api::Error& error);

  void help(const std::string&);
  void reset(const std::string&);
  void system(const std::string& text);
  void undo(const std::string&);
  void regen(const std::string&);
  void set(const std::string& argument);
  void save(const std::string& path);
  void load(const std::string& path);
  void stats(const std::string&);
  void quit(const std::string&);
  void print_settings();

  Console& console_;
  Loaded& loaded_;
  api::Session session_;
  api::AnswerOptions options_;
  Conversation conversation_;
  uint32_t n_context_ = 0;
  uint64_t next_seed_ = 0;  // each answer takes the next one, so that /regen gives another
  bool quit_ = false, failed_ = false;
};

}  // namespace tandem::cli

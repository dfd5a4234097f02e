// A model's chat template: turns messages into the prompt the model was trained on.
//
// Threading: immutable; render() may be called from any thread at once.  parse() and render() take up to 1 MiB of
// stack from a hostile template (optimised build, measured; under the address sanitizer more than 2 MiB).
// Ownership: owns its source's tree; results own their text.
// Errors: parse() gives kCorrupt or kUnsupported, render() kInvalidArgument for what the template
// refuses (its raise_exception() text included) and kUnsupported for a limit; all name the
// template's line.
//
// Templates come with model files and are hostile input: what they can do is bounded
// (interpreter.h, Limits; the limits grow with the size of the input, never faster).  They cannot
// reach files, the network or the program.
#pragma once

#include <ctime>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "text/template/value.h"

namespace tandem {

struct ChatMessage {
  std::string role;
  std::string content;
};

// A stretch of the prompt.  Control tokens may only be recognised in trusted pieces, and never
// across the border of two pieces; apart from that a tokenizer sees the pieces' texts joined.
struct RenderedPiece {
  std::string text;
  bool trusted = false;  // written by the template, not by whoever wrote the messages
};

class ChatTemplate {
 public:
  static constexpr size_t kMaxSourceBytes = size_t{1} << 20;

  struct Inputs {
    std::span<const ChatMessage> messages;
    bool add_generation_prompt = true;
    std::string bos_token, eos_token;  // their spelling; left undefined when empty
    std::optional<std::tm> now;  // local time for strftime_now(), which is undefined without it
    // Everything else a template may ask for (tools, enable_thinking, ...).  These win over the
    // fields above: a variable "messages" brings messages with tool calls or parts.
    std::vector<std::pair<std::string, jinja::Value>> variables;
    const CancelFlag* cancel = nullptr;  // looked at with every step; kCancelled when set
  };

  static Result<std::unique_ptr<const ChatTemplate>> parse(std::string source);
  ~ChatTemplate();

  // Neighbouring pieces differ in `trusted`; empty pieces do not occur.
  Result<std::vector<RenderedPiece>> render(const Inputs& inputs) const;

  const std::string& source() const { return source_; }

 private:
  struct Parsed;
  ChatTemplate(std::string source, std::unique_ptr<const Parsed> parsed);

  const std::string source_;
  const std::unique_ptr<const Parsed> parsed_;
};

// A message's role is the application's word, not the writer's text: the usual ones may be part of
// a control token's spelling ("<|user|>"), all others are untrusted.
jinja::Value role_value(const std::string& role);

// The pieces' texts joined.
std::string joined_text(std::span<const RenderedPiece> pieces);

}  // namespace tandem

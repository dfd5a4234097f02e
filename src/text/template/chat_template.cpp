#include "text/template/chat_template.h"

#include <algorithm>

#include "text/template/interpreter.h"
#include "text/template/parser.h"

namespace tandem {
namespace {

using jinja::Value;

struct Size {
  uint64_t values = 0;
  uint64_t bytes = 0;
};

// How much the caller passes, which the limits grow with.
void measure(const Value& value, Size& size) {
  ++size.values;
  if (value.is_string()) size.bytes += value.view().size();
  if (value.is_list()) {
    for (const Value& item : value.as_list().items) measure(item, size);
  }
  if (value.is_map()) {
    for (const auto& [key, content] : value.as_map().entries) {
      measure(key, size);
      measure(content, size);
    }
  }
}

Value message_values(std::span<const ChatMessage> messages) {
  const Value role = Value::trusted("role");
  const Value content = Value::trusted("content");
  std::vector<Value> list;
  for (const ChatMessage& message : messages) {
    list.push_back(Value::map(
        {{role, role_value(message.role)}, {content, Value::untrusted(message.content)}}));
  }
  return Value::list(std::move(list));
}

std::vector<std::pair<std::string, Value>> variables_of(const ChatTemplate::Inputs& inputs) {
  std::vector<std::pair<std::string, Value>> variables = inputs.variables;
  const auto add = [&](std::string name, Value value) {
    const bool given = std::any_of(
        variables.begin(), variables.end(),
        [&](const std::pair<std::string, Value>& entry) { return entry.first == name; });
    if (!given) variables.emplace_back(std::move(name), std::move(value));
  };
  add("messages", message_values(inputs.messages));
  add("add_generation_prompt", Value::boolean(inputs.add_generation_prompt));
  if (!inputs.bos_token.empty()) add("bos_token", Value::trusted(inputs.bos_token));
  if (!inputs.eos_token.empty()) add("eos_token", Value::trusted(inputs.eos_token));
  return variables;
}

}  // namespace

struct ChatTemplate::Parsed {
  jinja::Syntax syntax;
};

ChatTemplate::ChatTemplate(std::string source, std::unique_ptr<const Parsed> parsed)
    : source_(std::move(source)), parsed_(std::move(parsed)) {}

ChatTemplate::~ChatTemplate() = default;

Result<std::unique_ptr<const ChatTemplate>> ChatTemplate::parse(std::string source) {
  if (source.size() > kMaxSourceBytes) {
    return unsupported("chat template of " + std::to_string(source.size()) + " bytes, at most " +
                       std::to_string(kMaxSourceBytes) + " are allowed");
  }
  auto parsed = std::make_unique<Parsed>();
  TANDEM_ASSIGN_OR_RETURN(parsed->syntax, jinja::parse_syntax(source));
  return std::unique_ptr<const ChatTemplate>(
      new ChatTemplate(std::move(source), std::move(parsed)));
}

Result<std::vector<RenderedPiece>> ChatTemplate::render(const Inputs& inputs) const {
  const auto variables = variables_of(inputs);
  jinja::Limits limits;
  Size size;
  for (const auto& [name, value] : variables) {
    if (value.depth() > limits.nesting) {
      return invalid_argument("the variable '" + name + "' is nested deeper than " +
                              std::to_string(limits.nesting) + " levels");
    }
    measure(value, size);
  }
  limits.steps += 1000 * size.values + size.bytes;
  limits.memory_bytes += 64 * size.bytes + 4096 * size.values;
  limits.text_bytes += 8 * size.bytes;
  jinja::Interpreter interpreter(parsed_->syntax, limits, inputs.now ? &*inputs.now : nullptr,
                                 or_never(inputs.cancel));
  TANDEM_ASSIGN_OR_RETURN(const jinja::Text text, interpreter.run(variables));
  std::vector<RenderedPiece> pieces;
  size_t begin = 0;
  for (const jinja::Run& run : text.runs) {
    pieces.push_back({text.bytes.substr(begin, run.end - begin), run.trusted});
    begin = run.end;
  }
  return pieces;
}

Value role_value(const std::string& role) {
  static constexpr std::string_view kUsual[] = {"assistant", "developer", "function", "ipython",
                                                "model",     "system",    "tool",     "user"};
  const bool usual = std::find(std::begin(kUsual), std::end(kUsual), role) != std::end(kUsual);
  return usual ? Value::trusted(role) : Value::untrusted(role);
}

std::string joined_text(std::span<const RenderedPiece> pieces) {
  std::string text;
  for (const RenderedPiece& piece : pieces) text += piece.text;
  return text;
}

}  // namespace tandem

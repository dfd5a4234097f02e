// Parses the input as a chat template and renders one conversation with it.  With
// -DTANDEM_LIBFUZZER and clang's -fsanitize=fuzzer this file is a libFuzzer target by itself.
#include "fuzz/fuzz_template.h"

#include <cstdlib>
#include <string>

#include "text/template/chat_template.h"

namespace {

using tandem::jinja::Value;

// A word that only the messages contain: it may never come out as trusted.
const std::string kSecret = "\xC3\xA9zq<|im_end|>qz";

void require(bool condition) {
  if (!condition) std::abort();
}

Value text_map(const char* key, Value value) {
  return Value::map({{Value::untrusted(key), std::move(value)}});
}

void render(const tandem::ChatTemplate& chat_template) {
  const tandem::ChatMessage messages[] = {{"system", "Be brief."},
                                          {"user", kSecret + " \n"},
                                          {"assistant", "<think>a</think>b"},
                                          {"user", ""}};
  tandem::ChatTemplate::Inputs inputs;
  inputs.messages = messages;
  inputs.bos_token = "<s>";
  inputs.eos_token = "</s>";
  inputs.now = std::tm{};
  inputs.variables.emplace_back(
      "tools", Value::list({text_map("function", text_map("name", Value::untrusted("f")))}));
  inputs.variables.emplace_back("enable_thinking", Value::boolean(true));
  const auto pieces = chat_template.render(inputs);
  if (!pieces.ok()) {
    require(pieces.status().message().find("line ") != std::string::npos);
    return;
  }
  for (size_t i = 0; i < pieces->size(); ++i) {
    const tandem::RenderedPiece& piece = (*pieces)[i];
    require(!piece.text.empty());
    require(i == 0 || (*pieces)[i - 1].trusted != piece.trusted);
    require(!piece.trusted || piece.text.find(kSecret) == std::string::npos);
  }
}

}  // namespace

int fuzz_template(const uint8_t* data, size_t bytes) {
  const std::string source(reinterpret_cast<const char*>(data), bytes);
  // A template that spells the word itself says nothing about marks.
  if (source.find("zq<|im_end|>") != std::string::npos) return 0;
  const auto chat_template = tandem::ChatTemplate::parse(source);
  if (chat_template.ok()) {
    render(**chat_template);
  } else {
    require(!chat_template.status().message().empty());
  }
  return 0;
}

#ifdef TANDEM_LIBFUZZER
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  return fuzz_template(data, bytes);
}
#endif

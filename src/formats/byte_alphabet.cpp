#include "formats/byte_alphabet.h"

#include <array>

#include "base/utf8.h"

namespace tandem::byte_alphabet {
namespace {

constexpr bool stands_for_itself(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Tables {
  std::array<uint16_t, 256> letter{};
  std::array<int16_t, 0x144> byte{};  // by letter; -1: outside the alphabet
};

constexpr Tables make_tables() {
  Tables tables;
  for (auto& byte : tables.byte) byte = -1;
  uint16_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const uint16_t letter = stands_for_itself(byte) ? static_cast<uint16_t>(byte) : next++;
    tables.letter[byte] = letter;
    tables.byte[letter] = static_cast<int16_t>(byte);
  }
  return tables;
}

constexpr Tables kTables = make_tables();

}  // namespace

char32_t letter_of(uint8_t byte) { return kTables.letter[byte]; }

std::optional<uint8_t> byte_of(char32_t letter) {
  if (letter >= kTables.byte.size() || kTables.byte[letter] < 0) return std::nullopt;
  return static_cast<uint8_t>(kTables.byte[letter]);
}

std::optional<std::string> bytes_of(std::string_view written) {
  std::string bytes;
  bytes.reserve(written.size());
  while (!written.empty()) {
    const utf8::Character character = utf8::decode(written);
    if (character.state != utf8::Character::State::kWhole) return std::nullopt;
    const auto byte = byte_of(character.code_point);
    if (!byte) return std::nullopt;
    bytes.push_back(static_cast<char>(*byte));
    written.remove_prefix(character.length);
  }
  return bytes;
}

std::string written(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char byte : bytes) utf8::append(letter_of(static_cast<uint8_t>(byte)), out);
  return out;
}

}  // namespace tandem::byte_alphabet

// The alphabet in which byte-level BPE vocabularies are written: every byte is one printable
// character.  Printable Latin-1 bytes stand for themselves; the other 68, in order, are U+0100 on.
// Source: the published GPT-2 encoder's byte table (a fact of the format).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tandem::byte_alphabet {

char32_t letter_of(uint8_t byte);
std::optional<uint8_t> byte_of(char32_t letter);

// The bytes a vocabulary entry stands for; nothing when it has a character outside the alphabet.
std::optional<std::string> bytes_of(std::string_view written);

// The other way: how bytes are written in a vocabulary.
std::string written(std::string_view bytes);

}  // namespace tandem::byte_alphabet

#pragma once

#include <cstddef>
#include <cstdint>

// Aborts when an invariant does not hold; see the .cpp.
int fuzz_tokenizer(const uint8_t* data, size_t bytes);

// What the fuzzers call; returns 0 always, as libFuzzer wants.
#pragma once

#include <cstddef>
#include <cstdint>

int fuzz_template(const uint8_t* data, size_t bytes);

// Parses the input as a model file and looks at everything that parsing gives.  With
// -DTANDEM_LIBFUZZER and clang's -fsanitize=fuzzer this file is a libFuzzer target by itself.
#include "fuzz/fuzz_gguf.h"

#include <cstdlib>
#include <span>

#include "formats/gguf/gguf.h"

namespace {

// Outside of the file's own bytes nothing may be reachable.
void require(bool condition) {
  if (!condition) std::abort();
}

void look_at(const tandem::GgufFile& file, size_t bytes) {
  for (const tandem::MetadataEntry& entry : file.metadata()) {
    require(file.find(entry.key) == &entry);
    require(entry.byte_offset <= bytes);
    (void)entry.printable();
    (void)entry.type_text();
    (void)file.get_string(entry.key);
    (void)file.get_uint(entry.key);
    (void)file.get_int(entry.key);
    (void)file.get_float(entry.key);
    (void)file.get_bool(entry.key);
    (void)file.get_string_array(entry.key);
    (void)file.get_float_array(entry.key);
    (void)file.get_int_array(entry.key);
  }
  for (const tandem::TensorInfo& tensor : file.tensors()) {
    require(file.find_tensor(tensor.name) == &tensor);
    require(tensor.extent.offset <= bytes && tensor.bytes <= bytes - tensor.extent.offset);
    require(tensor.row_length() > 0 && tensor.rows() > 0);
  }
}

}  // namespace

int fuzz_gguf(const uint8_t* data, size_t bytes) {
  const auto file = tandem::GgufFile::parse(std::as_bytes(std::span(data, bytes)));
  if (file.ok()) {
    look_at(*file, bytes);
  } else {
    require(!file.status().message().empty());
  }
  return 0;
}

#ifdef TANDEM_LIBFUZZER
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  return fuzz_gguf(data, bytes);
}
#endif

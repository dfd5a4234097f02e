// What the files of the C API share: codes and error objects, structs that grow, strings that the
// caller frees.
//
// Threading: no state of its own.
// Errors: guarded() turns a Status, and whatever the standard library throws, into a code and an
// error object.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/result.h"
#include "runtime/engine.h"
#include "runtime/model.h"
#include "runtime/session.h"
#include "tandem/c.h"

// Handles share what they stand for, so that a host may free them in any order.
struct tandem_model {
  std::shared_ptr<const tandem::Model> model;
};

struct tandem_engine {
  std::shared_ptr<tandem::Engine> engine;  // its deleter holds the model
};

struct tandem_cancel {
  tandem::CancelFlag flag;
};

namespace tandem::c_api {

// A struct_bytes above this is taken for memory that nobody set.
inline constexpr size_t kMaxStructBytes = 4096;

// Sets *error (unless `error` is NULL) and gives the code; TANDEM_OK leaves *error alone.
tandem_code report(const Status& status, tandem_error** error) noexcept;
// The same for what a catch (...) block has in hand.
tandem_code report_exception(tandem_error** error) noexcept;
// As code, text and details; the strings belong to `status`.
tandem_error error_view(const Status& status);

template <typename Body>
tandem_code guarded(tandem_error** error, Body body) noexcept {
  try {
    return report(body(), error);
  } catch (...) {
    return report_exception(error);
  }
}

#define TANDEM_REQUIRE_ARGUMENT(argument)                                               \
  do {                                                                                  \
    if ((argument) == nullptr) return ::tandem::invalid_argument(#argument " is NULL"); \
  } while (false)

Status check_struct_bytes(size_t struct_bytes, size_t alignment, const std::string& name);

// A caller's struct as this library knows it: fields past the caller's are zero.  NULL gives the
// defaults.
template <typename T>
Result<T> read_struct(const T* in, const std::string& name) {
  T known = {};
  known.struct_bytes = sizeof(T);
  if (in == nullptr) return known;
  const size_t bytes = in->struct_bytes;
  TANDEM_RETURN_IF_ERROR(check_struct_bytes(bytes, alignof(T), name));
  std::memcpy(static_cast<void*>(&known), in, bytes < sizeof(T) ? bytes : sizeof(T));
  known.struct_bytes = sizeof(T);
  return known;
}

// Fills a caller's struct up to the size that the caller gave it; what only the caller knows
// becomes zero. Requires: check_struct_bytes passed.
template <typename T>
void write_struct(const T& value, T* out) {
  const size_t bytes = out->struct_bytes;
  auto* to = reinterpret_cast<std::byte*>(out);
  std::memset(to, 0, bytes);
  std::memcpy(to, &value, bytes < sizeof(T) ? bytes : sizeof(T));
  std::memcpy(to, &bytes, sizeof(bytes));
}

// Checks, then fills.
template <typename T>
Status fill_struct(const T& value, T* out, const std::string& name) {
  TANDEM_RETURN_IF_ERROR(check_struct_bytes(out->struct_bytes, alignof(T), name));
  write_struct(value, out);
  return ok_status();
}

// Element i of a caller's array of structs (T may be const), whose size need not be ours. Requires:
// check_elements passed for more than i elements.
template <typename T>
T* element(T* array, size_t i) {
  using Byte = std::conditional_t<std::is_const_v<T>, const std::byte, std::byte>;
  return reinterpret_cast<T*>(reinterpret_cast<Byte*>(array) + i * array->struct_bytes);
}

// The first element says how large all of them are.
template <typename T>
Status check_elements(const T* array, size_t n, const std::string& name) {
  for (size_t i = 0; i < n; ++i) {
    const size_t bytes = element(array, i)->struct_bytes;
    const std::string element_name = name + "[" + std::to_string(i) + "]";
    TANDEM_RETURN_IF_ERROR(check_struct_bytes(bytes, alignof(T), element_name));
    if (bytes != array->struct_bytes) {
      return invalid_argument(element_name + ".struct_bytes is " + std::to_string(bytes) +
                              ", that of " + name + "[0] is " +
                              std::to_string(array->struct_bytes));
    }
  }
  return ok_status();
}

// A zero-terminated copy for tandem_string_free.
char* copy_string(std::string_view text);

// Copies min(capacity, all) ids; *n_tokens is the whole count.
Status give_tokens(std::span<const TokenId> all, int32_t* tokens, size_t capacity,
                   size_t* n_tokens);

// kInvalidArgument for more than any context holds, which a wrapped count is.
Status check_token_count(size_t n_tokens);
Result<std::vector<TokenId>> read_tokens(const int32_t* tokens, size_t n_tokens);
Result<std::vector<ChatMessage>> read_messages(const tandem_message* messages, size_t n_messages);
Result<SamplingParameters> read_sampling(const tandem_sampling* sampling);
ProgressCallback progress_callback(tandem_progress_fn callback, void* user);
tandem_progress progress_of(const Progress& progress);

}  // namespace tandem::c_api

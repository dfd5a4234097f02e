// Errors, strings, structs and flags of the C API.
#include <algorithm>
#include <exception>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "runtime/c_api.h"

#ifndef TANDEM_VERSION
#error "the build sets TANDEM_VERSION to the project's version"
#endif

namespace tandem::c_api {
namespace {

// What the caller holds is the first member, so that freeing finds the rest.
struct ErrorObject {
  tandem_error view;
  Status status;  // owns the view's strings
};

// Given when there is no memory left for an error object; never freed.
tandem_error* no_memory_for_error() {
  static constinit tandem_error error = {sizeof(tandem_error),
                                         TANDEM_ERROR_OUT_OF_MEMORY,
                                         "out of memory",
                                         "",
                                         "",
                                         "",
                                         TANDEM_NO_OFFSET,
                                         0,
                                         0};
  return &error;
}

Status status_of_exception() {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return out_of_memory("out of memory");
  } catch (const std::length_error& error) {
    return out_of_memory(std::string("a size is beyond what memory can hold: ") + error.what());
  } catch (const std::system_error& error) {
    return error.code().category() == std::generic_category() ||
                   error.code().category() == std::system_category()
               ? status_from_errno(error.code().value(), error.what())
               : internal_error(error.what());
  } catch (const std::exception& error) {
    return internal_error(error.what());
  } catch (...) {
    return internal_error("an exception of unknown type");
  }
}

}  // namespace

tandem_error error_view(const Status& status) {
  return {sizeof(tandem_error),     static_cast<tandem_code>(status.code()),
          status.message().c_str(), status.file().c_str(),
          status.tensor().c_str(),  status.suggestion().c_str(),
          status.offset(),          status.bytes_needed(),
          status.bytes_available()};
}

tandem_code report(const Status& status, tandem_error** error) noexcept {
  if (status.ok()) return TANDEM_OK;
  if (error != nullptr) {
    auto* object = new (std::nothrow) ErrorObject{{}, status};
    if (object != nullptr) object->view = error_view(object->status);
    *error = object != nullptr ? &object->view : no_memory_for_error();
  }
  return static_cast<tandem_code>(status.code());
}

tandem_code report_exception(tandem_error** error) noexcept {
  try {
    return report(status_of_exception(), error);
  } catch (...) {  // no memory for the Status
    if (error != nullptr) *error = no_memory_for_error();
    return TANDEM_ERROR_OUT_OF_MEMORY;
  }
}

Status check_struct_bytes(size_t struct_bytes, size_t alignment, const std::string& name) {
  const bool plausible = struct_bytes >= sizeof(size_t) && struct_bytes <= kMaxStructBytes &&
                         struct_bytes % alignment == 0;
  if (plausible) return ok_status();
  return invalid_argument(name + ".struct_bytes is " + std::to_string(struct_bytes) +
                          ", expected the struct's size")
      .suggest("initialise the struct with TANDEM_INIT");
}

char* copy_string(std::string_view text) {
  char* copy = new char[text.size() + 1];
  if (!text.empty()) std::memcpy(copy, text.data(), text.size());
  copy[text.size()] = '\0';
  return copy;
}

Status give_tokens(std::span<const TokenId> all, int32_t* tokens, size_t capacity,
                   size_t* n_tokens) {
  static_assert(sizeof(TokenId) == sizeof(int32_t));
  TANDEM_REQUIRE_ARGUMENT(n_tokens);
  if (capacity > 0) TANDEM_REQUIRE_ARGUMENT(tokens);
  const size_t n = std::min(capacity, all.size());
  if (n > 0) std::memcpy(tokens, all.data(), n * sizeof(int32_t));
  *n_tokens = all.size();
  return ok_status();
}

Status check_token_count(size_t n_tokens) {
  if (n_tokens <= TANDEM_MOST_CONTEXT) return ok_status();
  return invalid_argument("n_tokens is " + std::to_string(n_tokens) + ", expected at most " +
                          std::to_string(TANDEM_MOST_CONTEXT));
}

Result<std::vector<TokenId>> read_tokens(const int32_t* tokens, size_t n_tokens) {
  TANDEM_RETURN_IF_ERROR(check_token_count(n_tokens));
  return std::vector<TokenId>(tokens, tokens + n_tokens);
}

tandem_progress progress_of(const Progress& progress) {
  return {sizeof(tandem_progress), static_cast<tandem_stage>(progress.stage), progress.done,
          progress.total, progress.eta_seconds};
}

ProgressCallback progress_callback(tandem_progress_fn callback, void* user) {
  if (callback == nullptr) return {};
  return [callback, user](const Progress& progress) {
    const tandem_progress view = progress_of(progress);
    callback(user, &view);
  };
}

}  // namespace tandem::c_api

using namespace tandem::c_api;

extern "C" {

void tandem_error_free(tandem_error* error) noexcept {
  if (error == nullptr || error == no_memory_for_error()) return;
  delete reinterpret_cast<ErrorObject*>(error);
}

void tandem_string_free(char* text) noexcept { delete[] text; }

const char* tandem_code_name(tandem_code code) noexcept {
  return tandem::code_name(static_cast<tandem::Code>(code)).data();  // literals
}

const char* tandem_version(void) noexcept { return TANDEM_VERSION; }

tandem_cancel* tandem_cancel_create(void) noexcept { return new (std::nothrow) tandem_cancel; }

void tandem_cancel_trigger(tandem_cancel* cancel) noexcept {
  if (cancel != nullptr) cancel->flag.cancel();
}

void tandem_cancel_reset(tandem_cancel* cancel) noexcept {
  if (cancel != nullptr) cancel->flag.reset();
}

void tandem_cancel_free(tandem_cancel* cancel) noexcept { delete cancel; }

}  // extern "C"

// Errors as values.  Every function that can fail because of input, files, memory or devices returns
// a Status, or a Result<T> (result.h).
//
// Threading: a Status is a value; copies share an immutable record and may be read from any thread.
// Ownership: owns its text.
// Errors: none of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace tandem {

// The numbers are part of the C API (TANDEM_ERROR_* in tandem/c.h) and never change.
enum class Code : int {
  kOk = 0,
  kInvalidArgument = 1,
  kNotFound = 2,
  kUnsupported = 3,
  kCorrupt = 4,
  kIo = 5,
  kOutOfMemory = 6,
  kDevice = 7,
  kDeviceLost = 8,
  kCancelled = 9,
  kBusy = 10,
  kInternal = 11,
};

// "corrupt", "out_of_memory", ...
std::string_view code_name(Code code);

class [[nodiscard]] Status {
 public:
  static constexpr uint64_t kNoOffset = UINT64_MAX;

  Status() = default;  // ok
  Status(Code code, std::string message);

  bool ok() const { return record_ == nullptr; }
  Code code() const { return record_ ? record_->code : Code::kOk; }

  // What, where, expected and found, in one sentence.  Empty when ok.
  const std::string& message() const;

  // Details a program can act on; empty, 0 or kNoOffset where they do not apply.
  const std::string& file() const;
  const std::string& tensor() const;
  const std::string& suggestion() const;
  uint64_t offset() const { return record_ ? record_->offset : kNoOffset; }
  uint64_t bytes_needed() const { return record_ ? record_->bytes_needed : 0; }
  uint64_t bytes_available() const { return record_ ? record_->bytes_available : 0; }

  // The same error with one detail added; ok stays ok.
  Status in_file(std::string path) const;
  // The same, with "path: " before the message: for what read a text and did not know whose it was.
  Status named_after_file(const std::string& path) const;
  Status at_offset(uint64_t offset_bytes) const;
  Status in_tensor(std::string name) const;
  Status with_bytes(uint64_t needed, uint64_t available) const;
  Status suggest(std::string change) const;

  // "corrupt: <message>", for logs and tests.
  std::string to_string() const;

 private:
  struct Record {
    Code code = Code::kInternal;
    std::string message, file, tensor, suggestion;
    uint64_t offset = kNoOffset;
    uint64_t bytes_needed = 0;
    uint64_t bytes_available = 0;
  };
  template <typename Change>
  Status changed(Change change) const;

  std::shared_ptr<const Record> record_;  // null means ok
};

inline Status ok_status() { return Status(); }

Status invalid_argument(std::string message);
Status not_found(std::string message);
Status unsupported(std::string message);
Status corrupt(std::string message);
Status io_error(std::string message);
Status out_of_memory(std::string message);
Status cancelled(std::string message);
Status busy(std::string message);
Status internal_error(std::string message);

// The one place that turns errno into a Status: "<what>: <strerror text>".
Status status_from_errno(int error_number, std::string what);

#define TANDEM_RETURN_IF_ERROR(expression)                                    \
  do {                                                                        \
    if (::tandem::Status tandem_status_ = (expression); !tandem_status_.ok()) \
      return tandem_status_;                                                  \
  } while (false)

// Stops on a broken invariant of our own in debug and sanitizer builds; never used on input.
#if defined(TANDEM_ASSERTS)
#define TANDEM_ASSERT(condition) \
  ((condition) ? void(0) : ::tandem::assertion_failed(#condition, __FILE__, __LINE__))
#else
#define TANDEM_ASSERT(condition) ((void)sizeof(!(condition)))
#endif
[[noreturn]] void assertion_failed(const char* condition, const char* file, int line);

}  // namespace tandem

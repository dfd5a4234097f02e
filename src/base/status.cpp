#include "base/status.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <system_error>
#include <utility>

namespace tandem {
namespace {

const std::string& empty_string() {
  static const std::string empty;
  return empty;
}

Code code_of_errno(int error_number) {
  switch (error_number) {
    case ENOENT:
    case ENOTDIR:
      return Code::kNotFound;
    case ENOMEM:
      return Code::kOutOfMemory;
    case ECANCELED:
      return Code::kCancelled;
    case EINVAL:
    case EISDIR:
      return Code::kInvalidArgument;
    default:
      return Code::kIo;
  }
}

}  // namespace

std::string_view code_name(Code code) {
  switch (code) {
    case Code::kOk:
      return "ok";
    case Code::kInvalidArgument:
      return "invalid_argument";
    case Code::kNotFound:
      return "not_found";
    case Code::kUnsupported:
      return "unsupported";
    case Code::kCorrupt:
      return "corrupt";
    case Code::kIo:
      return "io";
    case Code::kOutOfMemory:
      return "out_of_memory";
    case Code::kDevice:
      return "device";
    case Code::kDeviceLost:
      return "device_lost";
    case Code::kCancelled:
      return "cancelled";
    case Code::kBusy:
      return "busy";
    case Code::kInternal:
      return "internal";
  }
  return "unknown";
}

Status::Status(Code code, std::string message) {
  if (code == Code::kOk) return;
  Record record;
  record.code = code;
  record.message = std::move(message);
  record_ = std::make_shared<const Record>(std::move(record));
}

const std::string& Status::message() const { return record_ ? record_->message : empty_string(); }
const std::string& Status::file() const { return record_ ? record_->file : empty_string(); }
const std::string& Status::tensor() const { return record_ ? record_->tensor : empty_string(); }
const std::string& Status::suggestion() const {
  return record_ ? record_->suggestion : empty_string();
}

template <typename Change>
Status Status::changed(Change change) const {
  if (ok()) return *this;
  Record record = *record_;
  change(record);
  Status result;
  result.record_ = std::make_shared<const Record>(std::move(record));
  return result;
}

Status Status::in_file(std::string path) const {
  return changed([&](Record& record) { record.file = std::move(path); });
}

Status Status::named_after_file(const std::string& path) const {
  return changed([&](Record& record) {
    record.message.insert(0, path + ": ");
    record.file = path;
  });
}

Status Status::at_offset(uint64_t offset_bytes) const {
  return changed([&](Record& record) { record.offset = offset_bytes; });
}

Status Status::in_tensor(std::string name) const {
  return changed([&](Record& record) { record.tensor = std::move(name); });
}

Status Status::with_bytes(uint64_t needed, uint64_t available) const {
  return changed([&](Record& record) {
    record.bytes_needed = needed;
    record.bytes_available = available;
  });
}

Status Status::suggest(std::string change) const {
  return changed([&](Record& record) { record.suggestion = std::move(change); });
}

std::string Status::to_string() const {
  if (ok()) return "ok";
  return std::string(code_name(code())) + ": " + message();
}

Status invalid_argument(std::string message) {
  return Status(Code::kInvalidArgument, std::move(message));
}
Status not_found(std::string message) { return Status(Code::kNotFound, std::move(message)); }
Status unsupported(std::string message) { return Status(Code::kUnsupported, std::move(message)); }
Status corrupt(std::string message) { return Status(Code::kCorrupt, std::move(message)); }
Status io_error(std::string message) { return Status(Code::kIo, std::move(message)); }
Status out_of_memory(std::string message) { return Status(Code::kOutOfMemory, std::move(message)); }
Status cancelled(std::string message) { return Status(Code::kCancelled, std::move(message)); }
Status busy(std::string message) { return Status(Code::kBusy, std::move(message)); }
Status internal_error(std::string message) { return Status(Code::kInternal, std::move(message)); }

Status status_from_errno(int error_number, std::string what) {
  return Status(code_of_errno(error_number),
                std::move(what) + ": " + std::generic_category().message(error_number));
}

void assertion_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "tandem: broken invariant: %s (%s:%d)\n", condition, file, line);
  std::abort();
}

}  // namespace tandem

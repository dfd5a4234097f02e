// Reading whole inputs, and files that are either the old one or the whole new one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tandem::cli {

// A file, or standard input for "-". On failure nothing, and `error` says why.
std::optional<std::string> read_all(const std::string& path, std::string& error);
std::optional<std::string> read_standard_input(std::string& error);

// A file that appears under its name only when commit() succeeded; else its part is removed.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  bool open();
  bool write(const void* bytes, size_t n_bytes);
  bool commit();
  // What went wrong, after one of them gave false.
  const std::string& error() const { return error_; }

 private:
  bool fail(const std::string& what, int error_number);

  std::string path_, part_path_, error_;
  int fd_ = -1;
  uint64_t n_written_ = 0;
  bool committed_ = false;
  bool in_place_ = false;  // a device or a pipe: written to, never replaced
};

// A folder, device, pipe: nothing that a file beside it would belong to.
bool is_special_file(const std::string& path);

bool write_file(const std::string& path, std::string_view content, std::string& error);

}  // namespace tandem::cli

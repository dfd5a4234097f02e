// Files that the program writes: either the old one or the whole new one.
//
// A link is followed, so that it stays; an existing file keeps its permissions.  Devices and pipes are written to
// where they are, "-" is standard output; an interrupt ends waiting for whoever reads them.  A model is never
// overwritten.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tandem::cli {

// Threading: one thread at a time.  Errors: what gives false has set error(), which names the file.
class OutputFile {
 public:
  // A new file gets `mode` less the process's umask.
  explicit OutputFile(std::string path, mode_t mode = 0666);
  // Without commit() nothing stays.
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  bool open();
  bool write(const void* bytes, size_t n_bytes);
  bool commit();
  const std::string& error() const { return error_; }

 private:
  bool open_beside();
  bool open_in_place();
  bool open_standard_output();
  bool wait_for_room();
  bool fail(const std::string& what, int error_number);

  std::string path_;    // as it was typed
  std::string target_;  // the same with links resolved
  mode_t mode_;
  std::string part_path_, error_;  // part_path_ is "" when written in place
  int fd_ = -1;
  uint64_t n_written_ = 0;
};

// A folder, device or pipe: nothing that a file beside it would belong to.
bool is_special_file(const std::string& path);

// Whether a file could be written there now, so that nobody waits for what cannot be kept.
bool can_write(const std::string& path, std::string& error);

bool write_file(const std::string& path, std::string_view content, std::string& error,
                mode_t mode = 0666);

}  // namespace tandem::cli

// A file that appears under its name whole or not at all.
//
//   TANDEM_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(path));
//   TANDEM_RETURN_IF_ERROR(file.write(bytes));   // as often as needed
//   return file.commit();
//
// Writes go to a new file beside the path; commit() syncs it and renames it over the path: after a
// crash there is the old file or the new one.  Two writers of one path never meet: the last commit
// wins.  A link to a file is
// followed, so the link stays and the file is replaced; one that points nowhere is replaced itself.
//
// Threading: one thread at a time.
// Ownership: owns the new file, and removes it unless commit() succeeded.
// Errors: kIo and the like naming the path; kInvalidArgument when a folder, device or pipe has that
// name (renaming would destroy /dev/null).
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "base/result.h"

namespace tandem {

class AtomicFile {
 public:
  // An existing file's permissions are kept; a new one gets `mode` less the process's umask.
  static Result<AtomicFile> create(const std::filesystem::path& path, mode_t mode = 0666);
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&& other) noexcept;
  ~AtomicFile();

  Status write(std::span<const std::byte> bytes);
  Status commit();

  // The last error was a full drive or quota.
  bool drive_is_full() const { return drive_is_full_; }

 private:
  AtomicFile(std::string path, std::string target)
      : path_(std::move(path)), target_(std::move(target)) {}
  Status create_beside(mode_t mode);
  Status failed(int error_number, const char* doing);
  void drop();

  std::string path_;       // as the caller said it
  std::string target_;     // the same with links resolved
  std::string temporary_;  // beside target_
  int fd_ = -1;
  uint64_t n_written_ = 0;
  bool drive_is_full_ = false;
};

// All of `contents`, one after the other.
Status write_file_atomically(const std::filesystem::path& path,
                             std::span<const std::span<const std::byte>> contents,
                             mode_t mode = 0666);

}  // namespace tandem

// A file that is only read: size once, then positioned reads.
//
// Threading: read_at may be called from any thread at once.
// Ownership: owns the descriptor.
// Errors: kNotFound, kIo, kInvalidArgument (a folder), naming the path; a file that became shorter
// while it was open gives kIo with the offset.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"

namespace tandem {

class ReadFile {
 public:
  enum class Mode { kBuffered, kDirect };

  // kDirect: kUnsupported where the file system refuses O_DIRECT.
  static Result<std::unique_ptr<ReadFile>> open(const std::filesystem::path& path,
                                                Mode mode = Mode::kBuffered);
  virtual ~ReadFile() = default;
  ReadFile(const ReadFile&) = delete;
  ReadFile& operator=(const ReadFile&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size_bytes() const { return size_bytes_; }  // when it was opened
  Mode mode() const { return mode_; }
  // Offsets, lengths and buffers of direct reads are multiples of this; 1 when buffered.
  uint32_t alignment() const { return alignment_; }

  // Fills `buffer` whole, retrying short and interrupted reads.  With kDirect the last read may pass
  // the end of the file; bytes past it are left as they were.
  virtual Status read_at(uint64_t offset, std::span<std::byte> buffer) const = 0;

  // The share of [0, size) that the page cache holds, 0..1, sampled; 0 when it cannot be known.
  virtual double cached_share() const = 0;

 protected:
  ReadFile(std::string path, uint64_t size_bytes, Mode mode, uint32_t alignment)
      : path_(std::move(path)), size_bytes_(size_bytes), mode_(mode), alignment_(alignment) {}

 private:
  std::string path_;
  uint64_t size_bytes_;
  Mode mode_;
  uint32_t alignment_;
};

// How a reader gets its files; tests replace it to make them fail.
using OpenReadFile =
    std::function<Result<std::unique_ptr<ReadFile>>(const std::filesystem::path&, ReadFile::Mode)>;

// Whether a finished file may be renamed over `path`: kInvalidArgument when a folder, device or pipe has that name
// (renaming would destroy /dev/null).
Status check_replaceable(const std::filesystem::path& path);

// Writes the whole of `contents` beside `path`, syncs it and renames it over `path`: after a crash
// there is the old file or the new one, never a part.  Errors: kIo and the like naming the path.
Status write_file_atomically(const std::filesystem::path& path,
                             std::span<const std::span<const std::byte>> contents);

}  // namespace tandem

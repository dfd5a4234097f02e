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

// What tells a file from another one that has taken its name, or from itself with other contents.
struct FileIdentity {
  uint64_t device = 0, inode = 0;
  uint64_t size_bytes = 0;
  int64_t modified_ns = 0;  // since 1970
  bool operator==(const FileIdentity&) const = default;
};

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
  uint64_t size_bytes() const { return size_bytes_; }         // when it was opened
  const FileIdentity& identity() const { return identity_; }  // likewise
  Mode mode() const { return mode_; }
  // Offsets, lengths and buffers of direct reads are multiples of this; 1 when buffered.
  uint32_t alignment() const { return alignment_; }

  // Fills `buffer` whole, retrying short and interrupted reads.  With kDirect the last read may pass
  // the end of the file; bytes past it are left as they were.
  virtual Status read_at(uint64_t offset, std::span<std::byte> buffer) const = 0;

  // The share of [0, size) that the page cache holds, 0..1, sampled; 0 when it cannot be known.
  virtual double cached_share() const = 0;

 protected:
  ReadFile(std::string path, uint64_t size_bytes, Mode mode, uint32_t alignment,
           const FileIdentity& identity = {})
      : path_(std::move(path)),
        size_bytes_(size_bytes),
        mode_(mode),
        alignment_(alignment),
        identity_(identity) {}

 private:
  std::string path_;
  uint64_t size_bytes_;
  Mode mode_;
  uint32_t alignment_;
  FileIdentity identity_;
};

// How a reader gets its files; tests replace it to make them fail.
using OpenReadFile =
    std::function<Result<std::unique_ptr<ReadFile>>(const std::filesystem::path&, ReadFile::Mode)>;

}  // namespace tandem

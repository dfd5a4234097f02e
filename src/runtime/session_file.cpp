// A session on disk.  Little-endian:
//
//   "TNDMSESS"  version u32 (1)  KV type u32  model fingerprint u64
//   layers, key-value heads, head width, number of tokens: i64 each
//   tokens: i32 each, padded with zeros to 8 bytes;  page groups in use (sequence_state.h)
//   checksum u64 of everything before it
#include <array>
#include <cstring>
#include <string>
#include <system_error>

#include "base/atomic_file.h"
#include "base/checked.h"
#include "base/file.h"
#include "runtime/session_run.h"

namespace tandem {
namespace {

constexpr char kMagic[8] = {'T', 'N', 'D', 'M', 'S', 'E', 'S', 'S'};
constexpr uint32_t kVersion = 1;
constexpr size_t kChunkBytes = size_t{4} << 20;

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t kv_type;
  uint64_t fingerprint;
  int64_t n_layers, n_kv_heads, head_width, n_tokens;
};
static_assert(sizeof(Header) == 56);

uint64_t token_bytes(int64_t n_tokens) {
  return align_up(static_cast<uint64_t>(n_tokens) * sizeof(TokenId), 8);
}

// Eight bytes at a time.  Against accidents, not against forgery.  Requires: all but the last call in multiples of 8.
class Checksum {
 public:
  void add(std::span<const std::byte> bytes) {
    size_t i = 0;
    for (; i + 8 <= bytes.size(); i += 8) {
      uint64_t word = 0;
      std::memcpy(&word, bytes.data() + i, 8);
      mix(word);
    }
    for (; i < bytes.size(); ++i) mix(static_cast<uint64_t>(bytes[i]) + 0x100);
  }
  uint64_t value() const { return hash_; }

 private:
  void mix(uint64_t word) {
    hash_ = (hash_ ^ word) * 0x9E3779B97F4A7C15u;
    hash_ ^= hash_ >> 29;
  }
  uint64_t hash_ = 0x74616E64656D0001u;
};

Status damaged(const ReadFile& file, const std::string& what, uint64_t offset) {
  return corrupt(file.path() + ": " + what).in_file(file.path()).at_offset(offset);
}

Status check_header(const ReadFile& file, const Header& header, const Engine& engine,
                    const SequenceState& state) {
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0)
    return damaged(file, "is not a saved session", 0);
  if (header.version != kVersion) {
    return unsupported(file.path() + ": session format version " + std::to_string(header.version) +
                       ", expected " + std::to_string(kVersion))
        .in_file(file.path())
        .at_offset(8);
  }
  const KvLayout& layout = state.layout();
  if (header.fingerprint != engine.fingerprint() || header.n_layers != layout.n_layers ||
      header.n_kv_heads != layout.n_kv_heads || header.head_width != layout.head_width) {
    return invalid_argument(file.path() + ": was saved with another model than " +
                            engine.model().info().name)
        .in_file(file.path())
        .at_offset(16);
  }
  if (header.kv_type != static_cast<uint32_t>(layout.type)) {
    return invalid_argument(file.path() + ": was saved with another KV type")
        .in_file(file.path())
        .at_offset(12);
  }
  if (header.n_tokens < 0) return damaged(file, "token count is negative", 48);
  if (header.n_tokens > state.capacity()) {
    return invalid_argument(file.path() + ": holds " + std::to_string(header.n_tokens) +
                            " tokens, the context has " + std::to_string(state.capacity()))
        .in_file(file.path())
        .suggest("use a context of at least " + std::to_string(header.n_tokens));
  }
  const uint64_t expected =
      sizeof(Header) + token_bytes(header.n_tokens) + layout.bytes_for(header.n_tokens) + 8;
  if (file.size_bytes() != expected) {
    return damaged(
        file,
        "has " + std::to_string(file.size_bytes()) + " bytes, expected " + std::to_string(expected),
        std::min(file.size_bytes(), expected));
  }
  return ok_status();
}

Status check_contents(const ReadFile& file) {
  const uint64_t end = file.size_bytes() - 8;
  std::vector<std::byte> chunk(kChunkBytes);
  Checksum checksum;
  for (uint64_t offset = 0; offset < end; offset += kChunkBytes) {
    const std::span<std::byte> part(chunk.data(), std::min<uint64_t>(kChunkBytes, end - offset));
    TANDEM_RETURN_IF_ERROR(file.read_at(offset, part));
    checksum.add(part);
  }
  uint64_t stored = 0;
  TANDEM_RETURN_IF_ERROR(file.read_at(end, std::as_writable_bytes(std::span(&stored, 1))));
  if (stored != checksum.value())
    return damaged(file, "checksum does not match: the file is damaged", end);
  return ok_status();
}

// A model begins with these bytes; nobody wants one replaced by a conversation.
Status refuse_model(const std::filesystem::path& path) {
  std::error_code none;
  if (!std::filesystem::is_regular_file(path, none)) return ok_status();
  const Result<std::unique_ptr<ReadFile>> file = ReadFile::open(path);
  std::array<std::byte, 4> start = {};
  if (!file.ok() || (*file)->size_bytes() < start.size() || !(*file)->read_at(0, start).ok()) {
    return ok_status();
  }
  if (std::memcmp(start.data(), "GGUF", start.size()) != 0) return ok_status();
  return invalid_argument(path.string() + " is a model (GGUF), which is not overwritten")
      .in_file(path.string());
}

}  // namespace

Status save_session_file(const std::filesystem::path& path, const SessionContents& contents) {
  TANDEM_RETURN_IF_ERROR(refuse_model(path));
  const KvLayout& layout = contents.state.layout();
  Header header = {};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.version = kVersion;
  header.kv_type = static_cast<uint32_t>(layout.type);
  header.fingerprint = contents.model_fingerprint;
  header.n_layers = layout.n_layers;
  header.n_kv_heads = layout.n_kv_heads;
  header.head_width = layout.head_width;
  header.n_tokens = static_cast<int64_t>(contents.tokens.size());
  std::vector<std::byte> tokens(token_bytes(header.n_tokens));
  if (!tokens.empty())
    std::memcpy(tokens.data(), contents.tokens.data(), contents.tokens.size_bytes());
  const std::span<const std::byte> head = std::as_bytes(std::span(&header, 1));
  Checksum checksum;
  checksum.add(head);
  checksum.add(tokens);
  checksum.add(contents.state.used());
  const uint64_t sum = checksum.value();
  const std::span<const std::byte> parts[] = {head, tokens, contents.state.used(),
                                              std::as_bytes(std::span(&sum, 1))};
  // A conversation is its writer's own.
  return write_file_atomically(path, parts, 0600);
}

Status load_session_file(const std::filesystem::path& path, const Engine& engine,
                         std::vector<TokenId>& tokens, SequenceState& state) {
  TANDEM_ASSIGN_OR_RETURN(const std::unique_ptr<ReadFile> file, ReadFile::open(path));
  Header header = {};
  if (file->size_bytes() < sizeof(Header) + 8)
    return damaged(*file, "is too short for a saved session", 0);
  TANDEM_RETURN_IF_ERROR(file->read_at(0, std::as_writable_bytes(std::span(&header, 1))));
  TANDEM_RETURN_IF_ERROR(check_header(*file, header, engine, state));
  TANDEM_RETURN_IF_ERROR(check_contents(*file));

  std::vector<TokenId> loaded(static_cast<size_t>(header.n_tokens));
  TANDEM_RETURN_IF_ERROR(file->read_at(sizeof(Header), std::as_writable_bytes(std::span(loaded))));
  for (const TokenId token : loaded) {
    if (token < 0 || token >= engine.model().program().shape.n_vocabulary) {
      return damaged(*file, "token " + std::to_string(token) + " is outside the vocabulary",
                     sizeof(Header));
    }
  }
  TANDEM_RETURN_IF_ERROR(
      engine.admit("reading " + path.string(), state.layout().bytes_for(header.n_tokens)));
  TANDEM_ASSIGN_OR_RETURN(const std::unique_ptr<SequenceState> fresh,
                          SequenceState::create(state.layout(), state.capacity()));
  TANDEM_RETURN_IF_ERROR(fresh->restore_from(header.n_tokens, [&](std::span<std::byte> groups) {
    return file->read_at(sizeof(Header) + token_bytes(header.n_tokens), groups);
  }));
  state.swap(*fresh);
  tokens.assign(loaded.begin(), loaded.end());  // has room for a whole context
  return ok_status();
}

}  // namespace tandem

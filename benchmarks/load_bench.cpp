// How close loading comes to what the drive and the page cache give.
//
//   load_bench MODEL.gguf [ROUNDS]
//
// Every round runs all arms once, in an order that rotates, so that a drive shared with others
// disturbs each alike:
//   drive, 1 read      direct reads of 4 MiB, one after the other, into one buffer (as dd
//   iflag=direct) drive, 4 reads     direct reads of 2 MiB by four threads, each into one buffer
//   drive, old pages   the same into memory of the file's size, written before: a buffer stays in
//   the processor's caches,
//                      weights do not
//   store, direct      BlockStore::load_all with direct reads, page cache dropped, fresh memory
//   cache, old pages   the page cache copied by as many threads as there are cores into memory
//   written before cache, fresh       the same into fresh huge pages: what the system's clearing of
//   pages costs store, buffered    BlockStore::load_all with buffered reads, file in the page
//   cache, fresh memory
// Before every arm as much memory as the file has bytes is written and freed: a virtual machine may
// have given free memory back to its host, and taking it again would fall on whichever arm comes
// first. TANDEM_COLD_MEMORY=1 leaves that out. CPU seconds are of the process (user and system),
// median.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "formats/gguf/gguf.h"
#include "memory/arena.h"
#include "memory/block_store.h"

namespace tandem {
namespace {

constexpr uint64_t kMib = uint64_t{1} << 20;

struct Measurement {
  double seconds = 0, cpu_seconds = 0;
  uint64_t bytes = 0;
  double rate() const { return static_cast<double>(bytes) / seconds / 1e9; }
};

struct Arm {
  std::string name;
  std::function<Result<Measurement>()> run;
  std::vector<Measurement> measured;
};

double cpu_seconds() {
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

Status write_and_free_memory(uint64_t bytes) {
  TANDEM_ASSIGN_OR_RETURN(const Arena memory, Arena::create(bytes));
  std::memset(memory.data(), 1, memory.bytes());
  return ok_status();
}

template <typename Body>
Result<Measurement> timed(uint64_t bytes, Body body) {
  if (std::getenv("TANDEM_COLD_MEMORY") == nullptr)
    TANDEM_RETURN_IF_ERROR(write_and_free_memory(bytes));
  const double cpu = cpu_seconds();
  const auto start = Clock::now();
  TANDEM_RETURN_IF_ERROR(body());
  return Measurement{seconds_since(start), cpu_seconds() - cpu, bytes};
}

// Only clean pages leave the page cache, hence the sync.
Status drop_from_page_cache(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    const bool done =
        fd >= 0 && ::fsync(fd) == 0 && ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0;
    if (fd >= 0) ::close(fd);
    if (!done) return io_error(path + ": cannot be dropped from the page cache");
  }
  return ok_status();
}

// All of `file` in pieces; thread t reads its pieces to where `target(t, offset)` says.
Status read_whole(const ReadFile& file, unsigned n_threads, uint64_t piece_bytes,
                  const std::function<std::byte*(unsigned, uint64_t)>& target) {
  std::atomic<uint64_t> next{0};
  std::vector<Status> results(n_threads);
  {
    std::vector<std::jthread> threads;
    for (unsigned t = 0; t < n_threads; ++t) {
      threads.emplace_back([&, t] {
        while (results[t].ok()) {
          const uint64_t offset = next.fetch_add(piece_bytes);
          if (offset >= file.size_bytes()) break;
          uint64_t bytes = piece_bytes;
          if (file.mode() == ReadFile::Mode::kBuffered)
            bytes = std::min(bytes, file.size_bytes() - offset);
          results[t] = file.read_at(offset, {target(t, offset), bytes});
        }
      });
    }
  }
  for (const Status& status : results) TANDEM_RETURN_IF_ERROR(status);
  return ok_status();
}

Result<Measurement> read_drive(const std::string& path, unsigned n_threads, uint64_t piece_bytes) {
  TANDEM_RETURN_IF_ERROR(drop_from_page_cache({path}));
  TANDEM_ASSIGN_OR_RETURN(const auto file, ReadFile::open(path, ReadFile::Mode::kDirect));
  TANDEM_ASSIGN_OR_RETURN(const Arena buffers, Arena::create(n_threads * piece_bytes));
  return timed(file->size_bytes(), [&] {
    return read_whole(*file, n_threads, piece_bytes,
                      [&](unsigned t, uint64_t) { return buffers.data() + t * piece_bytes; });
  });
}

Result<Measurement> read_drive_to_memory(const std::string& path) {
  TANDEM_RETURN_IF_ERROR(drop_from_page_cache({path}));
  TANDEM_ASSIGN_OR_RETURN(const auto file, ReadFile::open(path, ReadFile::Mode::kDirect));
  TANDEM_ASSIGN_OR_RETURN(const Arena memory, Arena::create(file->size_bytes() + 2 * kMib));
  std::memset(memory.data(), 1, memory.bytes());
  return timed(file->size_bytes(), [&] {
    return read_whole(*file, 4, 2 * kMib,
                      [&](unsigned, uint64_t offset) { return memory.data() + offset; });
  });
}

Status warm_page_cache(const ReadFile& file) {
  std::vector<std::byte> buffer(kMib);
  return read_whole(file, 1, kMib, [&](unsigned, uint64_t) { return buffer.data(); });
}

Result<Measurement> copy_page_cache(const std::string& path, bool fresh) {
  TANDEM_ASSIGN_OR_RETURN(const auto file, ReadFile::open(path, ReadFile::Mode::kBuffered));
  TANDEM_ASSIGN_OR_RETURN(const Arena memory, Arena::create(file->size_bytes()));
  TANDEM_RETURN_IF_ERROR(warm_page_cache(*file));
  const auto copy = [&] {
    return read_whole(*file, std::max(std::thread::hardware_concurrency(), 1u), 2 * kMib,
                      [&](unsigned, uint64_t offset) { return memory.data() + offset; });
  };
  if (!fresh) TANDEM_RETURN_IF_ERROR(copy());
  return timed(file->size_bytes(), copy);
}

Result<Measurement> load(const GgufFile& model, const BlockStoreOptions& options) {
  std::vector<BlockSpec> blocks;
  uint64_t bytes = 0;
  for (const TensorInfo& tensor : model.tensors()) {
    blocks.push_back({std::string(tensor.name), {tensor.extent}});
    bytes += tensor.bytes;
  }
  TANDEM_ASSIGN_OR_RETURN(const auto store,
                          BlockStore::create(model.paths(), std::move(blocks), options));
  const bool direct = options.read_mode == BlockStoreOptions::ReadMode::kDirect;
  for (const std::string& path : model.paths()) {
    TANDEM_ASSIGN_OR_RETURN(const auto file, ReadFile::open(path));
    TANDEM_RETURN_IF_ERROR(direct ? drop_from_page_cache({path}) : warm_page_cache(*file));
  }
  const CancelFlag never;
  return timed(bytes, [&] { return store->load_all({}, never); });
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

void print_row(const char* name, const std::vector<double>& values, const char* unit) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  std::printf("%-44s %6.2f %s  (%.2f to %.2f)", name, median(values), unit, *low, *high);
}

std::vector<double> rates(const Arm& arm) {
  std::vector<double> values;
  for (const Measurement& m : arm.measured) values.push_back(m.rate());
  return values;
}

// Within rounds, so that what slows a whole round down cancels.
void print_ratio(const Arm& arm, const Arm& to) {
  std::vector<double> values;
  for (size_t i = 0; i < arm.measured.size(); ++i) {
    values.push_back(100 * arm.measured[i].rate() / to.measured[i].rate());
  }
  print_row((arm.name + " / " + to.name).c_str(), values, "%   ");
  std::printf("\n");
}

Status measure(const std::string& path, int n_rounds) {
  using enum BlockStoreOptions::ReadMode;
  TANDEM_ASSIGN_OR_RETURN(const GgufFile model, GgufFile::open(path));
  std::vector<Arm> arms = {
      {"drive, 1 read", [&] { return read_drive(path, 1, 4 * kMib); }, {}},
      {"drive, 4 reads", [&] { return read_drive(path, 4, 2 * kMib); }, {}},
      {"drive, old pages", [&] { return read_drive_to_memory(path); }, {}},
      {"store, direct",
       [&] {
         return load(model, {kDirect, 0});
       },
       {}},
      {"cache, old pages", [&] { return copy_page_cache(path, false); }, {}},
      {"cache, fresh pages", [&] { return copy_page_cache(path, true); }, {}},
      {"store, buffered",
       [&] {
         return load(model, {kBuffered, 0});
       },
       {}},
  };
  for (int round = 0; round < n_rounds; ++round) {
    for (size_t i = 0; i < arms.size(); ++i) {
      Arm& arm = arms[(i + static_cast<size_t>(round)) % arms.size()];
      TANDEM_ASSIGN_OR_RETURN(const Measurement measured, arm.run());
      arm.measured.push_back(measured);
    }
  }
  std::printf("%s: %.2f GB, %d rounds: median (lowest to highest)\n", path.c_str(),
              static_cast<double>(model.file_bytes()) / 1e9, n_rounds);
  for (const Arm& arm : arms) {
    std::vector<double> cpu;
    for (const Measurement& m : arm.measured) cpu.push_back(m.cpu_seconds);
    print_row(arm.name.c_str(), rates(arm), "GB/s");
    std::printf("  %.2f CPU s\n", median(cpu));
  }
  for (size_t drive : {0u, 1u, 2u}) print_ratio(arms[3], arms[drive]);
  for (size_t cache : {4u, 5u}) print_ratio(arms[6], arms[cache]);
  return ok_status();
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  const int n_rounds = argc > 2 ? std::atoi(argv[2]) : 5;
  if (argc < 2 || argc > 3 || n_rounds < 1) {
    std::fprintf(stderr, "usage: load_bench MODEL.gguf [ROUNDS]\n");
    return 2;
  }
  const tandem::Status status = tandem::measure(argv[1], n_rounds);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.message().c_str());
  return status.ok() ? 0 : 1;
}

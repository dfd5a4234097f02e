// What a workstation has: processors, caches, memories, drives, and what this process may use of it.
// Discovered, or read from a machine file (docs/machine-file.md) so that a plan can be made for a
// computer one does not own.
//
// Threading: a value; const methods from any thread.
// Ownership: owns its tables.
// Errors: discover() gives kUnsupported when the processors cannot be read; from_json() gives
// kCorrupt naming the field, or the byte offset where the text stops being JSON, and kUnsupported for
// a newer version.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/cpu_features.h"
#include "base/result.h"
#include "machine/drives.h"
#include "machine/free_memory.h"
#include "machine/topology.h"

namespace tandem {

class Machine {
 public:
  static constexpr unsigned kFileVersion = 1;

  CpuFeatures cpu;
  Topology topology;
  uint64_t memory_bytes = 0;  // 0: not known
  HugePages huge_pages;
  std::vector<Drive> drives;

  // What the process that looked was allowed; not a property of the hardware.
  struct Limits {
    std::vector<unsigned> allowed_threads;  // affinity mask, ascending; empty: all
    std::optional<double> cpu_quota;        // processors' worth of time
    std::optional<uint64_t> memory_limit_bytes;

    bool operator==(const Limits&) const = default;
  } limits;

  // Free when it was looked at; plans on the own machine ask free_memory() again.
  uint64_t free_memory_bytes = 0;

  // What could not be read or was not believed, in sentences.
  std::vector<std::string> notes;

  // /proc and /sys are looked for under `root`; processors are always this machine's.
  static Result<Machine> discover(const std::filesystem::path& root = "/");

  static Result<Machine> from_json(std::string_view text);
  // Ends with a newline; from_json() of it gives an equal machine.
  std::string to_json() const;

  // Threads that may run at once: those of the affinity mask, not more than the quota rounded up.
  unsigned usable_threads() const;
  // One thread of every usable core, performance cores alone where there are two kinds: what runs
  // matrix products best.  Never empty, never longer than usable_threads().
  std::vector<int> compute_cpus() const;
  unsigned default_compute_threads() const { return static_cast<unsigned>(compute_cpus().size()); }
  // What the caches of one level hold together, as far as anybody claims, at the level that holds
  // most: for measurements that must not fit there.  UINT64_MAX where no number is large enough.
  uint64_t largest_reported_caches_bytes() const;

  bool operator==(const Machine&) const = default;
};

}  // namespace tandem

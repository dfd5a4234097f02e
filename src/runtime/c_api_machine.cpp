// What this machine is and how fast its memory is, in the C API.
#include <algorithm>
#include <mutex>

#include "dispatch/team.h"
#include "machine/free_memory.h"
#include "machine/machine.h"
#include "profiler/read_bandwidth.h"
#include "runtime/c_api.h"

struct tandem_bandwidth {
  std::mutex one_at_a_time;  // guards a measurement
  std::unique_ptr<tandem::Team> team;
  std::unique_ptr<tandem::profile::ReadBandwidth> reader;  // refers to the team
};

using namespace tandem;
using namespace tandem::c_api;

extern "C" {

tandem_code tandem_machine_json(char** json, tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(json);
    TANDEM_ASSIGN_OR_RETURN(const Machine machine, Machine::discover());
    *json = copy_string(machine.to_json());
    return ok_status();
  });
}

tandem_code tandem_bandwidth_create(unsigned n_threads, uint64_t buffer_bytes,
                                    tandem_cancel* cancel, tandem_bandwidth** out,
                                    tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(out);
    Team::Options options;
    options.n_threads = n_threads;
    if (n_threads == 0 || buffer_bytes == 0) {
      TANDEM_ASSIGN_OR_RETURN(const Machine machine, Machine::discover());
      if (n_threads == 0) options.n_threads = machine.default_compute_threads();
      if (buffer_bytes == 0) {
        buffer_bytes =
            profile::ReadBandwidth::recommended_bytes(machine.largest_reported_caches_bytes());
      }
    }
    auto object = std::make_unique<tandem_bandwidth>();
    TANDEM_ASSIGN_OR_RETURN(object->team, Team::create(options));
    TANDEM_ASSIGN_OR_RETURN(object->reader, profile::ReadBandwidth::create(
                                                *object->team, buffer_bytes, free_memory(),
                                                cancel != nullptr ? &cancel->flag : nullptr));
    *out = object.release();
    return ok_status();
  });
}

tandem_code tandem_bandwidth_measure(tandem_bandwidth* bandwidth, tandem_cancel* cancel,
                                     double* gb_per_s, tandem_error** error) noexcept {
  return guarded(error, [&]() -> Status {
    TANDEM_REQUIRE_ARGUMENT(bandwidth);
    TANDEM_REQUIRE_ARGUMENT(gb_per_s);
    const std::lock_guard lock(bandwidth->one_at_a_time);
    TANDEM_ASSIGN_OR_RETURN(
        const profile::ReadBandwidth::Pass pass,
        bandwidth->reader->measure(cancel != nullptr ? &cancel->flag : nullptr));
    *gb_per_s = pass.best();
    return ok_status();
  });
}

void tandem_bandwidth_free(tandem_bandwidth* bandwidth) noexcept { delete bandwidth; }

}  // extern "C"

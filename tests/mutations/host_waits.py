#!/usr/bin/env python3
"""Leaves out the host's own waits, one at a time, and tells which of them no test misses.

    host_waits.py --source COPY --build COPY/build/tsan [--only TEXT]

COPY is a copy of the sources that this program may change, BUILD its thread-sanitizer build.  Waits for the device are left out by
tests/dispatch/order_test.cpp; here it is barriers of the team and locks.  Takes some minutes for each.
"""

import argparse
import pathlib
import subprocess
import sys

# File, what stands there, what stands there without the wait.
EXECUTOR, TEAM, KV = "src/dispatch/executor.cpp", "src/dispatch/team.cpp", "src/memory/device_kv.cpp"
LOCK_KV = "  const std::lock_guard lock(pool_.mutex());\n"
LOCK_COUNTERS = "  const std::lock_guard lock(walk_->lane->mutex());\n  return walk_->lane->expert_slots()->"
LOCK_RECORDER = "  const std::lock_guard lock(mutex_);\n"
MUTATIONS = {
    "barrier before the first task": (EXECUTOR, "  walk.team.barrier(thread_index);\n  for (", "  for ("),
    "barrier after a wait for the device": (EXECUTOR, "      walk.team.barrier(thread_index);\n      if (!walk.lane_status", "      if (!walk.lane_status"),
    "barrier after a task": (EXECUTOR, "    walk.team.barrier(thread_index);\n    if (recorded)", "    if (recorded)"),
    "end of the team's run": (TEAM, "  body(context, 0);\n  barrier(0);\n", "  body(context, 0);\n"),
    "lock of the lane in forward": (EXECUTOR, "  if (walk.lane != nullptr) lock = std::unique_lock(walk.lane->mutex());\n", ""),
    "lock of the lane in a step": (EXECUTOR, "  if (lane != nullptr) lock = std::unique_lock(lane->mutex());\n", ""),
    "lock for the cache's counters": (EXECUTOR, LOCK_COUNTERS + "counters();", "  return walk_->lane->expert_slots()->counters();"),
    "lock for the number of slots": (EXECUTOR, LOCK_COUNTERS + "n_slots();", "  return walk_->lane->expert_slots()->n_slots();"),
    "lock in park": (KV, "Status DeviceKv::park() {\n" + LOCK_KV, "Status DeviceKv::park() {\n"),
    "lock in truncate": (KV, "void DeviceKv::truncate(int64_t n) {\n" + LOCK_KV, "void DeviceKv::truncate(int64_t n) {\n"),
    "lock for a new sequence": (KV, "  const std::lock_guard lock(pool_.mutex_);\n  pool_.kvs_.push_back(this);", "  pool_.kvs_.push_back(this);"),
    "lock for a sequence's end": (KV, "DeviceKv::~DeviceKv() {\n  const std::lock_guard lock(pool_.mutex_);\n", "DeviceKv::~DeviceKv() {\n"),
    "lock of the recorder": ("src/dispatch/step_recorder.cpp", "TraceSummary StepRecorder::summarize() const {\n" + LOCK_RECORDER,
                             "TraceSummary StepRecorder::summarize() const {\n"),
}
TESTS = {
    "dispatch_test": "*Executor*:*HybridTest.Any*:*KvSplit*:*ExpertCacheTest.OfAny*:*Team*:*Beside*",
    "runtime_api_test": "*EngineWithDevice*:*EngineDevice*:*EngineTrace*:*Fork*",
}


def built(build):
    command = ["ninja", "-C", str(build), *TESTS]
    return subprocess.run(command, capture_output=True, text=True)


def failing_test(build, suppressions):
    """The first program that ends otherwise than well; None: all pass."""
    for name, tests in TESTS.items():
        program = next(build.glob(f"tests/*/{name}"))
        try:
            done = subprocess.run(["setarch", "x86_64", "-R", str(program), f"--gtest_filter={tests}", "--gtest_brief=1"],
                                  capture_output=True, timeout=600, cwd=build,
                                  env={"TSAN_OPTIONS": f"suppressions={suppressions} halt_on_error=1", "PATH": "/usr/bin:/bin"})
            if done.returncode != 0:
                return name
        except subprocess.TimeoutExpired:
            return f"{name} (hangs)"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=pathlib.Path, required=True)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    suppressions = (arguments.source / "tests/tsan.supp").resolve()
    first = built(arguments.build)
    if first.returncode != 0:
        sys.exit(first.stdout[-2000:])
    unmutated = failing_test(arguments.build, suppressions)
    if unmutated is not None:
        sys.exit(f"{unmutated} fails with every wait in place")
    n_missed = n_all = 0
    for what, (file, before, after) in MUTATIONS.items():
        if arguments.only not in what:
            continue
        path = arguments.source / file
        text = path.read_text()
        if text.count(before) != 1:
            sys.exit(f"{file}: what is to be left out, {what}, stands there {text.count(before)} times, expected once")
        path.write_text(text.replace(before, after))
        try:
            made = built(arguments.build)
            caught = failing_test(arguments.build, suppressions) if made.returncode == 0 else "the compiler"
        finally:
            path.write_text(text)
        n_all += 1
        n_missed += caught is not None
        print(f"{what}: {'missed by ' + caught if caught else 'NOT MISSED'}", flush=True)
    print(f"{n_missed} of {n_all} are missed")
    sys.exit(n_missed != n_all)


if __name__ == "__main__":
    main()

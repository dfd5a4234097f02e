#!/usr/bin/env python3
"""Fails when decoding a token takes another number of instructions than it used to.

    instructions.py --program tandem --model tiny-verse.gguf --build GNU-12-RelWithDebInfo

Counted by callgrind for one thread with AVX2, which it can run: the difference between two lengths of the same answer.  The numbers
that are expected lie beside this file, by compiler and kind of build; for others the count is told and the test skipped.
After a change that was meant to change it, write the new number there.
"""

import argparse
import json
import os
import re
import subprocess
import sys

SHORT, LONG = 20, 84
TOLERANCE = 0.03
SKIPPED = 77


def collected(program, model, n_tokens):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, "run", model, "--raw", "-p", "KING: ",
               "--temp", "1.5", "--seed", "3", "-t", "1", "-n", str(n_tokens)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TANDEM_CPU_ISA": "avx2"})
    count = re.search(r"Collected : (\d+)", done.stderr)
    if "instruction set" in done.stderr:
        print(f"no AVX2 here: {done.stderr[-300:]}")
        sys.exit(SKIPPED)
    if done.returncode != 0 or count is None:
        sys.exit(f"callgrind failed with exit code {done.returncode}: {done.stderr[-500:]}")
    return int(count.group(1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--build", required=True)
    arguments = parser.parse_args()
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "instructions.json")) as file:
        expected = json.load(file).get(arguments.build)
    counts = [collected(arguments.program, arguments.model, n) for n in (SHORT, LONG)]
    per_token = (counts[1] - counts[0]) // (LONG - SHORT)
    print(f"{per_token} instructions per token, expected {expected} for {arguments.build}")
    if expected is None:
        sys.exit(SKIPPED)
    if abs(per_token - expected) > TOLERANCE * expected:
        sys.exit(f"off by {100 * (per_token / expected - 1):+.1f} %, allowed are {100 * TOLERANCE:.0f} %")


if __name__ == "__main__":
    main()

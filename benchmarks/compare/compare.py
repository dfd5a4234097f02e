#!/usr/bin/env python3
"""Runs tandem and a reference engine alternately on the same file and tells the ratio of their speeds.

    compare.py --tandem build/release/src/cli/tandem --reference ik_llama.cpp/build/bin/llama-bench \\
               --model 1b-q4k.gguf --threads 2

The reference is a `llama-bench` of llama.cpp or ik_llama.cpp; --flags are tried in turn (before what is measured), and the
fastest for each of prompt and decode is the one that is compared with. Rounds alternate who goes first. A set whose spread
is above --spread of its median is measured again, three times at most; then the spread is told.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from dataclasses import dataclass, field


class EngineFailed(Exception):
    pass


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        tail = done.stderr.strip().splitlines()[-3:]
        raise EngineFailed(f"{shlex.join(command)}: exit code {done.returncode}: {' / '.join(tail)}")
    return done.stdout


@dataclass
class Rates:
    """Tokens per second; bandwidth in GB/s, measured beside them, or None."""

    prompt: float
    decode: float
    bandwidth: float | None = None
    bytes_per_token: int | None = None


@dataclass
class Workload:
    model: str
    threads: int
    n_prompt: int
    n_decode: int


@dataclass
class Tandem:
    program: str
    name: str = "tandem"

    def measure(self, work):
        command = [self.program, "bench", work.model, "-p", str(work.n_prompt), "-n", str(work.n_decode),
                   "-t", str(work.threads), "-r", "1", "--json"]
        return self.read(run(command))

    @staticmethod
    def read(text):
        told = json.loads(text)
        median = lambda key: (told.get(key) or {}).get("median")
        return Rates(median("prompt_tokens_per_s"), median("decode_tokens_per_s"),
                     median("read_bandwidth_gb_per_s"), told["bytes_per_token"])


@dataclass
class LlamaBench:
    program: str
    flags: list = field(default_factory=list)
    name: str = "reference"

    def measure(self, work):
        command = [self.program, "-m", work.model, "-p", str(work.n_prompt), "-n", str(work.n_decode),
                   "-t", str(work.threads), "-r", "1", "-o", "json", *self.flags]
        return self.read(run(command))

    @staticmethod
    def read(text):
        # Some builds write log lines around the array and into it; what belongs to it is indented.
        array = [line for line in text.splitlines() if line.startswith((" ", "[", "]"))]
        tests = json.loads("\n".join(array))
        rate = lambda of: next((t["avg_ts"] for t in tests if of(t)), None)
        return Rates(rate(lambda t: t["n_gen"] == 0), rate(lambda t: t["n_prompt"] == 0))


@dataclass
class Spread:
    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values):
        return cls(statistics.median(values), min(values), max(values))

    def relative(self):
        return (self.most - self.least) / self.median

    def __str__(self):
        return f"{self.median:.1f} ({self.least:.1f} to {self.most:.1f})"


def alternate(engines, work, rounds):
    """Rates of each engine; who goes first changes with each round."""
    rates = {engine.name: [] for engine in engines}
    for i in range(rounds):
        for engine in engines if i % 2 == 0 else reversed(engines):
            rates[engine.name].append(engine.measure(work))
    return rates


def compare(ours, reference, work, rounds, most_spread, what):
    """Medians of `what` ("prompt" or "decode") of both, and of the ratios of each round."""
    for attempt in range(3):
        rates = alternate([ours, reference], work, rounds)
        a = [getattr(r, what) for r in rates[ours.name]]
        b = [getattr(r, what) for r in rates[reference.name]]
        result = {
            "what": what,
            "attempts": attempt + 1,
            "ours": Spread.of(a),
            "reference": Spread.of(b),
            "ratio": Spread.of([x / y for x, y in zip(a, b)]),
            "share": shares(rates[ours.name]) if what == "decode" else None,
        }
        if max(result["ours"].relative(), result["reference"].relative()) <= most_spread:
            break
    return result


def shares(rates):
    """Of the read bandwidth that was measured beside each decode."""
    known = [r.decode * r.bytes_per_token / 1e9 / r.bandwidth for r in rates if r.bandwidth]
    return Spread.of([100 * s for s in known]) if known else None


def fastest(program, flag_sets, work, what):
    candidates = []
    for flags in flag_sets:
        engine = LlamaBench(program, shlex.split(flags))
        try:
            candidates.append((getattr(engine.measure(work), what), engine))
        except EngineFailed as failure:
            print(f"left out: {failure}", file=sys.stderr)
    if not candidates:
        raise EngineFailed(f"{program}: no set of flags works")
    return max(candidates, key=lambda c: c[0])[1]


def row(result, work, flags):
    n = work.n_prompt if result["what"] == "prompt" else work.n_decode
    share = result["share"]
    return (f"| {result['what']} {n} | {result['ours']} | {result['reference']} | {result['ratio'].median:.2f} "
            f"({result['ratio'].least:.2f} to {result['ratio'].most:.2f}) | "
            f"{f'{share.median:.0f} %' if share else ''} | `{shlex.join(flags) or '-'}` | {result['attempts']} |")


HEADING = """| what | tandem, tok/s | reference, tok/s | ratio | of read bandwidth | reference's flags | sets |
| --- | --- | --- | --- | --- | --- | --- |"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tandem", required=True)
    parser.add_argument("--reference", required=True, help="a llama-bench")
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--decode", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spread", type=float, default=0.05)
    parser.add_argument("--flags", action="append", help="of the reference; may be repeated (default: a list)")
    arguments = parser.parse_args()
    flag_sets = arguments.flags or ["-fa 1", "-fa 1 -thp 1", "-fa 1 -rtr 1", "-fa 1 -rtr 1 -thp 1", ""]
    try:
        print(HEADING)
        for what, n_prompt, n_decode in (("prompt", arguments.prompt, 0), ("decode", 0, arguments.decode)):
            if n_prompt + n_decode == 0:
                continue
            work = Workload(arguments.model, arguments.threads, n_prompt, n_decode)
            reference = fastest(arguments.reference, flag_sets, work, what)
            result = compare(Tandem(arguments.tandem), reference, work, arguments.rounds, arguments.spread, what)
            print(row(result, work, reference.flags), flush=True)
    except EngineFailed as failure:
        sys.exit(f"error: {failure}")


if __name__ == "__main__":
    main()

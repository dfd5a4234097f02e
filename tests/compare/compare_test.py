"""The comparer, with engines that are scripts: who is asked what, how often, and what is told."""

import importlib.util
import json
import os
import stat
import sys
import tempfile
import unittest

PATH = os.path.join(os.path.dirname(__file__), "..", "..", "benchmarks", "compare", "compare.py")
SPEC = importlib.util.spec_from_file_location("compare", PATH)
compare = importlib.util.module_from_spec(SPEC)
sys.modules["compare"] = compare
SPEC.loader.exec_module(compare)

TANDEM = json.dumps({
    "prompt_tokens_per_s": {"median": 300.0}, "decode_tokens_per_s": {"median": 20.0},
    "read_bandwidth_gb_per_s": {"median": 20.0}, "bytes_per_token": 500000000})
RATES = [{"n_prompt": 512, "n_gen": 0, "avg_ts": 150.0}, {"n_prompt": 0, "n_gen": 32, "avg_ts": 16.0}]
# The first line of an array, then one of the log, as some builds write them.
BENCH = "a line of its log\n" + json.dumps(RATES, indent=1).replace("[\n", "[\nWARNING: of [0] bytes\n", 1)


class Script:
    """An executable that prints a text, and notes in a file that it was called."""

    def __init__(self, folder, name, text, code=0):
        self.path = os.path.join(folder, name)
        self.calls_path = self.path + ".calls"
        with open(self.path + ".out", "w") as out:
            out.write(text)
        with open(self.path, "w") as script:
            script.write(f'#!/bin/sh\necho "{name} $*" >> "{folder}/calls"\ncat "{self.path}.out"\nexit {code}\n')
        os.chmod(self.path, os.stat(self.path).st_mode | stat.S_IXUSR)


class CompareTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.work = compare.Workload("m.gguf", 2, 512, 32)

    def script(self, *arguments):
        return Script(self.folder.name, *arguments).path

    def calls(self):
        with open(os.path.join(self.folder.name, "calls")) as calls:
            return calls.read().splitlines()

    def test_reads_what_the_engines_say(self):
        ours = compare.Tandem.read(TANDEM)
        self.assertEqual((ours.prompt, ours.decode, ours.bandwidth), (300.0, 20.0, 20.0))
        theirs = compare.LlamaBench.read(BENCH)
        self.assertEqual((theirs.prompt, theirs.decode), (150.0, 16.0))

    def test_takes_turns_in_going_first(self):
        ours = compare.Tandem(self.script("ours", TANDEM))
        theirs = compare.LlamaBench(self.script("theirs", BENCH))
        compare.alternate([ours, theirs], self.work, 3)
        self.assertEqual([c.split()[0] for c in self.calls()],
                         ["ours", "theirs", "theirs", "ours", "ours", "theirs"])

    def test_gives_the_same_file_and_threads_to_both(self):
        compare.Tandem(self.script("ours", TANDEM)).measure(self.work)
        compare.LlamaBench(self.script("theirs", BENCH)).measure(self.work)
        for call in self.calls():
            self.assertIn("m.gguf", call)
            self.assertIn("-t 2", call)
            self.assertIn("-p 512 -n 32", call)

    def test_tells_ratio_and_share(self):
        ours = compare.Tandem(self.script("ours", TANDEM))
        theirs = compare.LlamaBench(self.script("theirs", BENCH))
        decode = compare.compare(ours, theirs, self.work, 3, 0.05, "decode")
        self.assertEqual(decode["attempts"], 1)
        self.assertAlmostEqual(decode["ratio"].median, 1.25)
        self.assertAlmostEqual(decode["share"].median, 50.0)
        self.assertIn("| 1.25 (1.25 to 1.25) | 50 %", compare.row(decode, self.work, []))

    def test_measures_a_wide_spread_again_and_says_so(self):
        class Wandering:
            name = "tandem"
            rate = 10.0

            def measure(self, work):
                self.rate *= 1.3
                return compare.Rates(self.rate, self.rate)

        theirs = compare.LlamaBench(self.script("theirs", BENCH))
        result = compare.compare(Wandering(), theirs, self.work, 3, 0.05, "decode")
        self.assertEqual(result["attempts"], 3)

    def test_compares_with_the_fastest_flags_and_leaves_out_those_that_fail(self):
        program = os.path.join(self.folder.name, "bench")
        slow, fast = json.loads(json.dumps(RATES)), json.loads(json.dumps(RATES))
        fast[1]["avg_ts"] = 40.0
        with open(program, "w") as script:
            script.write("#!/bin/sh\ncase \"$*\" in\n"
                         f"*-bad*) exit 1;;\n*-fast*) cat <<'E'\n{json.dumps(fast, indent=1)}\nE\n;;\n"
                         f"*) cat <<'E'\n{json.dumps(slow, indent=1)}\nE\n;;\nesac\n")
        os.chmod(program, 0o700)
        chosen = compare.fastest(program, ["", "-bad 1", "-fast 1"], self.work, "decode")
        self.assertEqual(chosen.flags, ["-fast", "1"])

    def test_says_which_engine_failed_and_why(self):
        program = self.script("theirs", "", 3)
        with self.assertRaisesRegex(compare.EngineFailed, "theirs .*exit code 3"):
            compare.LlamaBench(program).measure(self.work)


if __name__ == "__main__":
    unittest.main()

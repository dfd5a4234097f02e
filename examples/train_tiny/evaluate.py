"""Measures an exported file: held-out loss, experts used, fifty answers. Everything runs on the file's dequantised weights.

    python evaluate.py ../models/tiny-verse.gguf --text ../../../shared/data/text/shakespeare.txt --report evaluation.json
"""

import argparse
import hashlib
import json
import time
from pathlib import Path

import torch

from chat import answer, prompt_ids
from data import find_text, split
from export import read
from measure import nats_per_character

LIMIT = 1.60  # nats per character
PROMPTS = Path(__file__).with_name("prompts.txt")


def is_verse_answer(vocabulary, ids):
    """Ends by itself, holds no other control token, and is one or more whole lines that start with a capital."""
    if ids[-1] != vocabulary.turn_end or any(i >= vocabulary.end_of_text for i in ids[:-1]):
        return False
    lines = vocabulary.decode(ids[:-1]).split("\n")
    return all(line[:1].isupper() and len(line) <= 80 for line in lines) and lines[-1][-1] in ".!?"


def answers(model, vocabulary, template, seeds, examples):
    torch.set_num_threads(1)  # one token at a time: too little work to share
    began = time.monotonic()
    prompts, good, lengths = PROMPTS.read_text(encoding="utf-8").splitlines(), 0, []
    for seed in range(seeds):
        for prompt in prompts:
            ids = answer(model, vocabulary, prompt_ids(vocabulary, template, [{"role": "user", "content": prompt}]), seed)
            ok = is_verse_answer(vocabulary, ids)
            good += ok
            lengths.append(len(ids))
            if not ok or len(lengths) <= examples:
                print(f"{'' if ok else 'NOT AS ASKED '}> {prompt}\n{vocabulary.decode(ids)}\n", flush=True)
    seconds = time.monotonic() - began
    print(f"{sum(lengths)} tokens in {seconds:.0f} s")
    return {"prompts": len(prompts), "seeds": seeds, "as_asked": good, "answers": len(lengths),
            "longest_tokens": max(lengths), "mean_tokens": round(sum(lengths) / len(lengths), 1)}


def losses(model, vocabulary, held_out):
    result = {"characters": len(held_out), "tokens": len(vocabulary.encode(held_out)), "nats_per_character": {}}
    for window, stride in ((512, 512), (1024, 1024), (2048, 2048), (1024, 512)):
        nats, used = nats_per_character(model, vocabulary, held_out, window, stride)
        result["nats_per_character"][f"window {window} stride {stride}"] = round(nats, 4)
        print(f"window {window} stride {stride}: {nats:.4f} nats per character", flush=True)
    share = used / used.sum(1, keepdim=True)
    result["expert_share_per_layer"] = [[round(x, 3) for x in row] for row in share.tolist()]
    result["experts_unused"] = int((used == 0).sum())
    return result


def failures(report):
    """What the report holds that is not as it should be, in sentences."""
    found = []
    if "nats_per_character" in report and (worst := max(report["nats_per_character"].values())) > LIMIT:
        found.append(f"{worst} nats per character, at most {LIMIT} asked")
    if report.get("experts_unused"):
        found.append(f"{report['experts_unused']} experts never used")
    if (said := report.get("answers")) and said["as_asked"] < said["answers"]:
        found.append(f"{said['answers'] - said['as_asked']} of {said['answers']} answers not as asked")
    return found


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path)
    p.add_argument("--text")
    p.add_argument("--report", type=Path)
    p.add_argument("--seeds", type=int, default=1, help="how often the fifty prompts are asked")
    p.add_argument("--examples", type=int, default=5)
    p.add_argument("--validate", action="store_true", help="measure on the end of the training part instead")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--parts", nargs="+", choices=("losses", "answers"), default=("losses", "answers"),
                   help="measure only these; --report keeps what it held of the other")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    model, vocabulary, reader = read(a.model)
    report = {"file": a.model.name, "sha256": hashlib.sha256(a.model.read_bytes()).hexdigest(),
              "file_bytes": a.model.stat().st_size, "parameters": sum(p.numel() for p in model.parameters())}
    if a.report and a.report.exists():
        known = json.loads(a.report.read_text())
        report = known | report if known["sha256"] == report["sha256"] else report
    if "losses" in a.parts:
        _, held_out = split(find_text(a.text).read_text(encoding="utf-8"), a.validate)
        report |= losses(model, vocabulary, held_out)
    if "answers" in a.parts:
        template = reader.fields["tokenizer.chat_template"].contents()
        report["answers"] = answers(model, vocabulary, template, a.seeds, a.examples)
    print(json.dumps(report, indent=1))
    if a.report:
        a.report.write_text(json.dumps(report, indent=1) + "\n")
    failed = failures(report)
    print("\n".join(failed) or "passed")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()

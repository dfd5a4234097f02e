"""Measures an exported file: held-out loss, experts used, fifty answers. Everything runs on the file's dequantised weights.

    python evaluate.py ../models/tiny-verse.gguf --text ../../../shared/data/text/shakespeare.txt --report evaluation.json
"""

import argparse
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
    prompts, good, lengths = PROMPTS.read_text(encoding="utf-8").splitlines(), 0, []
    for seed in range(seeds):
        for prompt in prompts:
            ids = answer(model, vocabulary, prompt_ids(vocabulary, template, [{"role": "user", "content": prompt}]), seed)
            ok = is_verse_answer(vocabulary, ids)
            good += ok
            lengths.append(len(ids))
            if not ok or len(lengths) <= examples:
                print(f"{'' if ok else 'NOT AS ASKED '}> {prompt}\n{vocabulary.decode(ids)}\n", flush=True)
    return {"prompts": len(prompts), "seeds": seeds, "as_asked": good, "answers": len(lengths),
            "longest_tokens": max(lengths), "mean_tokens": round(sum(lengths) / len(lengths), 1)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path)
    p.add_argument("--text")
    p.add_argument("--report", type=Path)
    p.add_argument("--seeds", type=int, default=1, help="how often the fifty prompts are asked")
    p.add_argument("--examples", type=int, default=5)
    p.add_argument("--validate", action="store_true", help="measure on the end of the training part instead")
    a = p.parse_args()
    torch.set_num_threads(2)
    model, vocabulary, reader = read(a.model)
    _, held_out = split(find_text(a.text).read_text(encoding="utf-8"), a.validate)

    report = {"file_bytes": a.model.stat().st_size, "parameters": sum(p.numel() for p in model.parameters()),
              "characters": len(held_out), "tokens": len(vocabulary.encode(held_out)), "nats_per_character": {}}
    for window, stride in ((512, 512), (1024, 1024), (2048, 2048), (1024, 512)):
        nats, used = nats_per_character(model, vocabulary, held_out, window, stride)
        report["nats_per_character"][f"window {window} stride {stride}"] = round(nats, 4)
        if (window, stride) == (1024, 1024):
            report["expert_share_per_layer"] = [[round(x, 3) for x in row] for row in (used / used.sum(1, keepdim=True)).tolist()]
            report["experts_unused"] = int((used == 0).sum())
    template = reader.fields["tokenizer.chat_template"].contents()
    began = time.monotonic()
    torch.set_num_threads(1)  # one token at a time: too little work to share
    report["answers"] = answers(model, vocabulary, template, a.seeds, a.examples)
    print(json.dumps(report, indent=1), f"\nanswers took {time.monotonic() - began:.0f} s")
    if a.report:
        a.report.write_text(json.dumps(report, indent=1) + "\n")
    worst = max(report["nats_per_character"].values())
    passed = worst <= LIMIT and report["experts_unused"] == 0 and report["answers"]["as_asked"] == report["answers"]["answers"]
    print("passed" if passed else "FAILED")
    raise SystemExit(not passed)


if __name__ == "__main__":
    main()

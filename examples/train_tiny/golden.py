"""Writes what a correct reader of the exported file computes, as a small JSON file for the project's tests. Example:

    python golden.py ../models/tiny-verse.gguf --output ../../tests/fixtures/golden/tiny-verse.json
"""

import argparse
import hashlib
import json
from pathlib import Path

import torch
import torch.nn.functional as F

from chat import prompt_ids
from export import read

# Written for this file, in the manner of the plays: forty tokens of it are the golden input.
TEXT = """Good morrow, gentle reader of these lines;
What brings thee hither in so cold an hour?
I come to see if numbers, rightly join'd,
May speak with such a voice as poets had.
"""


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path)
    p.add_argument("--output", type=Path, required=True)
    p.add_argument("--ids", type=int, default=40)
    a = p.parse_args()
    model, vocabulary, reader = read(a.model)
    all_ids = vocabulary.encode(TEXT)
    ids = all_ids[: a.ids]
    with torch.no_grad():
        logits = model(torch.tensor([all_ids]))[0][0]
    last = logits[a.ids - 1]
    top = last.topk(20)
    said = "What news from the field?"
    chat = prompt_ids(vocabulary, reader.fields["tokenizer.chat_template"].contents(), [{"role": "user", "content": said}])
    golden = {
        "model": a.model.name,
        "model_sha256": hashlib.sha256(a.model.read_bytes()).hexdigest(),
        "tolerance": "Weights dequantised, float32 activations: top-20 values within 1e-3 and the loss sum within 1e-4 of it,"
        " relative. With activations rounded to int8 blocks of 32 expect a relative L2 error of the logits near 1e-2: compare"
        " the best id and the loss sum within 1 %.",
        "text": TEXT,
        "text_ids": all_ids,
        "ids": ids,
        "ids_text": vocabulary.decode(ids),
        "last_position_top20": [[int(i), float(x)] for i, x in zip(top.indices, top.values)],
        "last_position_l2_norm": last.norm().item(),
        "text_loss_sum_nats": F.cross_entropy(logits[:-1].double(), torch.tensor(all_ids[1:]), reduction="sum").item(),
        "text_loss_tokens": len(all_ids) - 1,
        "chat_user_content": said,
        "chat_prompt_ids": chat,
    }
    a.output.parent.mkdir(parents=True, exist_ok=True)
    a.output.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
    print(f"{a.output}: {len(all_ids)} ids of text, best next id {golden['last_position_top20'][0]}")


if __name__ == "__main__":
    main()

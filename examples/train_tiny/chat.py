"""One answer from the model, with the sampling that `tandem` uses when a model names none.

    python chat.py ../models/tiny-verse.gguf "What light through yonder window breaks?"
"""

import argparse
from pathlib import Path

import jinja2
import torch

from export import read
from model import Past

TEMPERATURE, TOP_K, TOP_P, MIN_P = 0.7, 40, 0.95, 0.05


def sample(logits, generator):
    """logits [V] -> id. Top-k, top-p and min-p cut by the plain probabilities; the temperature shapes what is left."""
    value, ids = logits.topk(TOP_K)
    probability = value.softmax(0)
    keep = (probability.cumsum(0) - probability < TOP_P) & (probability >= MIN_P * probability[0])
    weight = (value[keep] / TEMPERATURE).softmax(0)
    return ids[keep][torch.multinomial(weight, 1, generator=generator)].item()


def prompt_ids(vocabulary, template, messages):
    """Ids of the rendered template. Control tokens come from the template's own text, never from a message."""
    ids = []
    mark = "\N{OBJECT REPLACEMENT CHARACTER}"
    marked = [{"role": m["role"], "content": f"{mark}{i}{mark}"} for i, m in enumerate(messages)]
    text = jinja2.Environment().from_string(template).render(messages=marked, add_generation_prompt=True)
    for i, m in enumerate(messages):
        head, text = text.split(f"{mark}{i}{mark}", 1)
        ids += control_split(vocabulary, head, m["content"])
    return ids + control_split(vocabulary, text, "")


def control_split(vocabulary, template_text, content):
    """Ids of a piece of the template followed by a message's content, which is plain text whatever it holds."""
    ids, start = [], 0
    controls = vocabulary.tokens[vocabulary.end_of_text :]
    while True:
        found = [(at, t) for t in controls if (at := template_text.find(t, start)) >= 0]
        if not found:
            return ids + vocabulary.encode(template_text[start:] + content)
        at, token = min(found)
        ids += vocabulary.encode(template_text[start:at]) + [vocabulary.id_of[token]]
        start = at + len(token)


@torch.no_grad()
def answer(model, vocabulary, ids, seed, most=200):
    """-> ids of the answer; ends with the end-of-turn token unless `most` tokens came first."""
    generator, past, out = torch.Generator().manual_seed(seed), Past(), []
    feed = torch.tensor([ids])
    while len(out) < most:
        logits = model(feed, past=past)[0][0, -1]
        out.append(sample(logits, generator))
        if out[-1] == vocabulary.turn_end:
            break
        feed = torch.tensor([[out[-1]]])
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path)
    p.add_argument("said")
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    model, vocabulary, reader = read(a.model)
    template = reader.fields["tokenizer.chat_template"].contents()
    ids = prompt_ids(vocabulary, template, [{"role": "user", "content": a.said}])
    print(vocabulary.decode(answer(model, vocabulary, ids, a.seed)))


if __name__ == "__main__":
    main()

"""Nats per character of a text: the figure that vocabularies of different sizes can be compared by."""

import torch
import torch.nn.functional as F


@torch.no_grad()
def nats_per_character(model, vocabulary, text, window, stride=None, compute=torch.float32, most=None):
    """Sum of the token losses of `text` over its number of characters; also the tokens per expert [L,X].

    The windows hold `window` inputs and advance by `stride` (default: the window, so they share nothing but the token
    that starts the next one). Every token is scored once, with at least window - stride tokens before it except at the
    text's start; the very first token has nothing before it and counts ln(vocabulary).
    """
    ids = vocabulary.encode(text)[:most]
    characters = len(text) if most is None else len(vocabulary.decode(ids))
    ids = torch.tensor(ids)
    stride = stride or window
    total, used = torch.log(torch.tensor(float(model.c.vocabulary))).item(), 0
    scored = 1
    for start in range(0, len(ids) - 1, stride):
        end = min(start + window, len(ids) - 1)
        if end < scored:
            break
        logits, _, loads = model(ids[None, start:end], compute=compute)
        fresh = slice(scored - 1 - start, None)
        total += F.cross_entropy(logits[0, fresh], ids[start + 1 : end + 1][fresh], reduction="sum").item()
        used, scored = used + loads, end + 1
        if end == len(ids) - 1:
            break
    return total / characters, used

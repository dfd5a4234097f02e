"""Trains tiny-verse. Example:

    python train.py --text ../../../shared/data/text/shakespeare.txt --run /tmp/tiny-verse

Choose settings with --validate, which measures on the end of the training part and trains without it. A run that was
stopped goes on from its last checkpoint; the result is the same as without the stop.
"""

import argparse
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from data import Batches, find_text, split
from measure import nats_per_character
from model import Config, Model
from optimizer import optimizers
from tokenizer import Vocabulary


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--text", help="the training text (default: found through TANDEM_TEST_DATA)")
    p.add_argument("--run", type=Path, required=True, help="folder for the vocabulary, checkpoints and the log")
    p.add_argument("--validate", action="store_true", help="measure on the last 5 %% of the training part instead")
    p.add_argument("--steps", type=int, default=2400)
    p.add_argument("--cooldown", type=float, default=0.5, help="share of the steps in which the rate falls to zero")
    p.add_argument("--rate", type=float, default=2e-3)
    p.add_argument("--weight-decay", type=float, default=0.3)
    p.add_argument("--dropout", type=float, default=0.15)
    p.add_argument("--segment-share", type=float, default=0.3, help="share of the words segmented at random")
    p.add_argument("--chat-share", type=float, default=0.35, help="share of the rows that are chats")
    p.add_argument("--answer-lines", type=int, default=5, help="most lines of a chat's answer; 5 are about 100 tokens")
    p.add_argument("--end-weight", type=float, default=3.0, help="loss weight of the token that ends an answer")
    p.add_argument("--stray-weight", type=float, default=10.0, help="weight of the loss on tokens that leave the answer")
    p.add_argument("--balance", type=float, default=0.01, help="weight of the load-balancing loss")
    p.add_argument("--vocabulary", type=int, default=1024)
    p.add_argument("--layers", type=int, default=6)
    p.add_argument("--expert-width", type=int, default=256)
    p.add_argument("--tokens", type=int, default=4096, help="tokens per step")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--every", type=int, default=200, help="steps between measurements and checkpoints")
    p.add_argument("--until", type=int, help="stop after this step, to go on later")
    return p.parse_args()


def rate_at(step, a):
    """Warm-up, constant, then a straight line to zero."""
    cooldown = a.steps * a.cooldown
    return a.rate * min(1, (step + 1) / 50, (a.steps - step) / cooldown)


def segment_share_at(step, a):
    """Random spellings end when the rate has fallen to a third: the model ends on the spelling it will be asked for."""
    falling = (a.steps - step) / (a.steps * a.cooldown)
    return a.segment_share * max(0.0, min(1.0, 1.5 * falling - 0.5))


def stray_loss(logits, inputs, weights, vocabulary):
    """-log(1 - p) of what an answer must not hold: an empty line (a new speech, as in running text) or a new turn.

    The plain loss pushes a rare wrong token down in proportion to its probability, which takes long: one in fifty is
    enough to spoil an answer in ten. Answers are the weighted positions of rows that hold turns.
    """
    stray = [i for i, token in enumerate(vocabulary.tokens) if "\u010a\u010a" in token]
    stray += [vocabulary.turn_start, vocabulary.end_of_text]
    chats = (inputs == vocabulary.turn_start).any(1, keepdim=True) & (weights > 0)
    p = logits[chats].softmax(-1)[:, stray].sum(-1)
    return -torch.log1p(-p.clamp(max=0.99)).mean() if len(p) else logits.new_zeros(())


def train_step(model, optimizers_, batches, step, a):
    torch.manual_seed(a.seed * 1_000_003 + step)  # dropout depends on the step alone, so a run can go on
    inputs, targets, weights = (torch.from_numpy(x) for x in batches.batch(step))
    logits, balance, loads = model(inputs, compute=torch.bfloat16, dropout=a.dropout)
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    loss = (losses * weights.flatten()).sum() / weights.sum()
    total = loss + a.balance * balance
    if a.stray_weight:
        total = total + a.stray_weight * stray_loss(logits, inputs, weights, batches.vocabulary)
    total.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers_:
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, a)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss.item(), loads


def main():
    a = arguments()
    torch.set_num_threads(a.threads)
    a.run.mkdir(parents=True, exist_ok=True)
    training, measured = split(find_text(a.text).read_text(encoding="utf-8"), a.validate)

    vocabulary_path, checkpoint = a.run / "vocabulary.json", a.run / "checkpoint.pt"
    if not vocabulary_path.exists():
        Vocabulary.train(training, a.vocabulary).save(vocabulary_path)
    vocabulary = Vocabulary.load(vocabulary_path)
    config = Config(vocabulary=len(vocabulary.tokens), layers=a.layers, expert_width=a.expert_width)
    torch.manual_seed(a.seed)
    model = Model(config)
    optimizers_ = optimizers(model, a.rate, a.weight_decay)
    first, seconds = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        for optimizer, stored in zip(optimizers_, state["optimizers"]):
            optimizer.load_state_dict(stored)
        first, seconds = state["step"], state["seconds"]
    share_at = lambda step: segment_share_at(step, a)
    batches = Batches(
        training, vocabulary, a.seed, share_at, a.tokens, a.chat_share, a.answer_lines, a.end_weight
    )
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(batches.running_text(first)):,} tokens,"
          f" {len(batches.chats.starts):,} answers, from step {first}", flush=True)

    log, began, shown = (a.run / "log.jsonl").open("a"), time.monotonic(), []
    last = min(a.until or a.steps, a.steps)
    for step in range(first, last):
        loss, _ = train_step(model, optimizers_, batches, step, a)
        shown.append(loss)
        if (step + 1) % 20 == 0:
            spent = seconds + time.monotonic() - began
            print(f"step {step + 1}  loss/token {sum(shown) / len(shown):.4f}  {spent:.0f} s", flush=True)
            shown = []
        if (step + 1) % a.every == 0 or step + 1 == last:
            most = None if step + 1 == a.steps else 20_000
            spent = seconds + time.monotonic() - began
            nats, used = nats_per_character(model, vocabulary, measured, 1024, compute=torch.bfloat16, most=most)
            share = used / used.sum(1, keepdim=True)
            line = {"step": step + 1, "seconds": round(spent), "nats_per_character": round(nats, 4),
                    "least_used_expert": round(share.min().item(), 4)}
            print(line, flush=True)
            log.write(json.dumps(line) + "\n")
            log.flush()
            state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers_],
                     "step": step + 1, "seconds": spent, "config": vars(config), "arguments": vars(a) | {"run": ""}}
            torch.save(state, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)


if __name__ == "__main__":
    main()

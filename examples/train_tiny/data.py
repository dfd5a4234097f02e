"""The text and what training makes of it: running text, and chats whose answers are verse.

A play's text is speeches separated by empty lines, each a line "NAME:" and then its lines. A chat is made from speeches
that follow one another: the first is what the user says, the verse that comes next is the answer.
"""

import os
from pathlib import Path

import numpy as np

HELD_OUT = 0.10  # the raw last tenth of the characters: never seen by the vocabulary or the model
SYSTEM = ["You answer in verse.", "You are a poet.", "Answer with a few lines of verse.", "You are a helpful assistant."]
# What people type that no play contains. The answer that follows is any verse: the model learns to stay in its part.
MODERN = """Hello|Hi there!|Who are you?|What can you do?|Tell me a joke.|write a poem about the sea|How are you today?|
What time is it?|2 + 2 = ?|Explain quantum physics.|I am hungry|thanks|ok|yes|no|help|Good morning|What is your name?|
I love you.|Where is my phone?|Write a haiku|the weather is nice|Can you code in Python?|I had a bad day at work.|
Why is the sky blue?|Sing for me!|My cat is asleep.|Tell me about the king.|test|?|Let us go home.|goodbye""".replace("\n", "").split("|")


def find_text(argument=None):
    """The text's path: the argument, else $TANDEM_TEST_DATA, else ../shared/data beside the checkout."""
    if argument:
        return Path(argument)
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    return Path(os.environ.get("TANDEM_TEST_DATA", beside)) / "text" / "shakespeare.txt"


def split(text, validate):
    """-> (training text, text to measure on). `validate` keeps the held-out tenth out of sight while choosing settings."""
    end = int(len(text) * (1 - HELD_OUT))
    if validate:
        inner = int(end * 0.95)
        return text[:inner], text[inner:end]
    return text[:end], text[end:]


def speeches(text):
    """[[line, ...], ...] in order, without the speakers' names. The first and last may be cut: they are left out."""
    parts = [part.split("\n") for part in text.split("\n\n")][1:-1]
    return [lines[1:] for lines in parts if len(lines) > 1 and lines[0].endswith(":")]


def is_verse(lines):
    """Verse starts every line with a capital; prose goes on in small letters."""
    return all(line[:1].isupper() and 10 <= len(line) <= 60 for line in lines)


def verse_from(lines, most):
    """The longest beginning of `lines` that has 2..most lines and ends with a sentence, or None."""
    for count in range(min(most, len(lines)), 1, -1):
        if lines[count - 1].endswith((".", "!", "?")) and is_verse(lines[:count]):
            return lines[:count]
    return None


class Chats:
    """Endless chats from the training text. Deterministic for a given random generator."""

    def __init__(self, text, vocabulary, most_lines, end_weight):
        self.vocabulary, self.speeches = vocabulary, speeches(text)
        self.most_lines, self.end_weight = most_lines, end_weight
        # Every place at which an answer may start: (speech, line). Line 0 answers the speech before, others go on.
        self.starts = [
            (s, i)
            for s, lines in enumerate(self.speeches)
            for i in range(len(lines) - 1)
            if (s, i) != (0, 0)
            and (i == 0 or lines[i - 1].endswith((".", "!", "?", ";", ":")))
            and verse_from(lines[i:], most_lines)
        ]

    def _said(self, rng, before):
        """What the user says, from the lines before the answer: a sentence, a line or a few, typed in many ways."""
        kind = rng.random()
        if kind < 0.08:
            return MODERN[rng.integers(len(MODERN))]
        if kind < 0.11:  # noise: the answer does not depend on it
            codes = rng.choice([*range(33, 127), 228, 233, 1078, 20013, 128512, 10], size=rng.integers(1, 24))
            return "".join(map(chr, codes))
        if kind < 0.20:  # any line of the text
            lines = self.speeches[rng.integers(len(self.speeches))]
            before = [lines[rng.integers(len(lines))]]
        lines = before[-int(rng.integers(1, 4)) :]
        said = ("\n" if rng.random() < 0.3 else " ").join(lines)
        if rng.random() < 0.2:
            said = said.lower()
        if rng.random() < 0.2:
            said = said.rstrip(".!?,;:")
        return said

    def chat(self, rng, share):
        """(ids, weights): a conversation of one to three turns; the loss counts what the assistant has to produce."""
        v, ids, weights = self.vocabulary, [], []
        if rng.random() < 0.12:
            system = SYSTEM[rng.integers(len(SYSTEM))]
            head = [v.turn_start] + v.encode("system\n" + system) + [v.turn_end] + v.encode("\n")
            ids, weights = head, [0.0] * len(head)
        for _ in range(1 + (rng.random() < 0.3) + (rng.random() < 0.15)):
            s, i = self.starts[rng.integers(len(self.starts))]
            said = self._said(rng, self.speeches[s][:i] if i else self.speeches[s - 1])
            after, most = self.speeches[s][i:], int(rng.integers(2, self.most_lines + 1))
            verse = "\n".join(verse_from(after, most) or verse_from(after, self.most_lines))
            head, content = v.turn("user", said, rng, share)
            prompt = head + content + [v.turn_end] + v.encode("\n") + [v.turn_start] + v.encode("assistant\n")
            answer = v.encode(verse, rng, share) + [v.turn_end]
            close = v.encode("\n")
            ids += prompt + answer + close
            weights += [0.0] * len(prompt) + [1.0] * (len(answer) - 1) + [self.end_weight] + [0.0] * len(close)
        return ids, weights


class Draws:
    """Random numbers one by one, drawn many at a time because that is much faster."""

    def __init__(self, rng, count=2_000_000):
        self._next = iter(rng.random(count)).__next__

    def random(self):
        return self._next()


class Batches:
    """Step number -> rows of token ids. Depends on (seed, step) only, so a run can stop and go on.

    `share_at(step)` is the share of words segmented at random.
    """

    def __init__(self, text, vocabulary, seed, share_at, tokens, chat_share, most_lines, end_weight, lengths=(512, 512, 512, 2048)):
        self.text, self.vocabulary, self.chats = text, vocabulary, Chats(text, vocabulary, most_lines, end_weight)
        self.seed, self.share_at, self.tokens, self.lengths, self.chat_share = seed, share_at, tokens, lengths, chat_share
        self._epoch, self._running = None, None

    def running_text(self, step, every=40):
        """Ids of the whole text; segmented anew every few steps."""
        if self._epoch != step // every:
            self._epoch, step = step // every, step - step % every
            rng = np.random.default_rng((self.seed, self._epoch, 1))
            ids = self.vocabulary.encode(self.text, Draws(rng), self.share_at(step))
            self._running = np.array(ids, dtype=np.int64)
        return self._running

    def batch(self, step):
        """(inputs [B,T], targets [B,T], weights [B,T])"""
        rng = np.random.default_rng((self.seed, step, 2))
        length = self.lengths[step % len(self.lengths)]
        running, rows, weights = self.running_text(step), [], []
        for row in range(self.tokens // length):
            if rng.random() < self.chat_share:
                ids, weight = [], []
                while len(ids) <= length:
                    more, w = self.chats.chat(rng, self.share_at(step))
                    ids, weight = ids + more, weight + w
            else:
                at = int(rng.integers(len(running) - length - 1))
                ids, weight = running[at : at + length + 1], np.ones(length + 1)
            rows.append(np.asarray(ids[: length + 1]))
            weights.append(np.asarray(weight[: length + 1]))
        rows, weights = np.stack(rows), np.stack(weights).astype(np.float32)
        return rows[:, :-1], rows[:, 1:], weights[:, 1:]

"""A small byte-level BPE vocabulary, and the chat format that is written with it.

Every byte has a token, so any UTF-8 text encodes. Text is first cut with the pattern that GGUF calls "qwen2", then
each cut is merged by rank, as every reader of `tokenizer.ggml.model = gpt2` does. The control tokens are never produced
from text: only the chat template places them.
"""

import json
import random

import regex
from tokenizers import Regex, Tokenizer
from tokenizers import models, pre_tokenizers, trainers

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CONTROL = [END_OF_TEXT, TURN_START, TURN_END]

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def byte_letters():
    """byte -> the printable letter that stands for it in token strings (the GPT-2 table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(others)}}


class Vocabulary:
    """Token strings, merge ranks and the text <-> ids conversion. Ids: bytes and merges first, control tokens last."""

    def __init__(self, tokens, merges):
        self.tokens, self.merges = tokens, merges
        self.id_of = {token: i for i, token in enumerate(tokens)}
        self.end_of_text, self.turn_start, self.turn_end = (self.id_of[t] for t in CONTROL)
        self._rank = {tuple(pair): i for i, pair in enumerate(merges)}
        self._letter = byte_letters()
        self._byte = {letter: b for b, letter in self._letter.items()}
        self._cut = regex.compile(PATTERN)
        self._plain, self._varied = {}, {}

    @classmethod
    def train(cls, text, size):
        """Learns `size` tokens, control tokens included, from `text`."""
        letters = byte_letters()
        trainer = trainers.BpeTrainer(
            vocab_size=size - len(CONTROL), initial_alphabet=list(letters.values()), show_progress=False
        )
        learner = Tokenizer(models.BPE())
        learner.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        learner.train_from_iterator([text], trainer)
        model = json.loads(learner.to_str())["model"]
        by_id = sorted(model["vocab"], key=model["vocab"].get)
        return cls(by_id + CONTROL, [list(pair) for pair in model["merges"]])

    def encode(self, text, rng=None, share=0.0):
        """Ids of `text`. With `rng`, a `share` of the cuts is segmented at random instead (BPE dropout).

        The random segmentation is for training only: a word is then seen in several spellings, which a model with few
        words to learn from overfits to less.
        """
        ids = []
        for cut in self._cut.findall(text):
            if rng is not None and rng.random() < share:
                variants = self._variants(cut)
                ids += variants[int(rng.random() * len(variants))]
            else:
                ids += self._merge(cut)
        return ids

    def decode(self, ids):
        letters = "".join(self.tokens[i] for i in ids if i < self.end_of_text)
        return bytes(self._byte[letter] for letter in letters).decode("utf-8", errors="replace")

    def _merge(self, cut):
        if cut not in self._plain:
            self._plain[cut] = self._merge_letters(cut, lambda rank: False)
        return self._plain[cut]

    def _variants(self, cut, count=8, drop=0.25):
        """`count` random segmentations of one cut, each merge skipped with probability `drop`; fixed per cut."""
        if cut not in self._varied:
            rng = random.Random(cut)
            self._varied[cut] = [self._merge_letters(cut, lambda rank: rng.random() < drop) for _ in range(count)]
        return self._varied[cut]

    def _merge_letters(self, cut, skip):
        parts = [self._letter[b] for b in cut.encode("utf-8")]
        while True:
            ranked = [
                (rank, at)
                for at in range(len(parts) - 1)
                if (rank := self._rank.get((parts[at], parts[at + 1]))) is not None and not skip(rank)
            ]
            if not ranked:
                return [self.id_of[part] for part in parts]
            _, at = min(ranked)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]

    def turn(self, role, content, rng=None, share=0.0):
        """One message as the chat template writes it: head ids and content ids, without the closing token."""
        return [self.turn_start] + self.encode(role + "\n"), self.encode(content, rng, share)

    def save(self, path):
        path.write_text(json.dumps({"tokens": self.tokens, "merges": self.merges}, ensure_ascii=False))

    @classmethod
    def load(cls, path):
        stored = json.loads(path.read_text())
        return cls(stored["tokens"], stored["merges"])

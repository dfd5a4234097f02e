"""The model: a decoder with mixture-of-experts layers, as GGUF's `qwen3moe` lays it out.

Shape letters: B rows, T tokens, D width, H query heads, G key-value heads, E head width, X experts, F expert width,
V vocabulary. Weights are float32; `compute` says in which type matrix products run (bfloat16 for training).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Config:
    vocabulary: int = 1024
    width: int = 256
    layers: int = 6
    heads: int = 8
    kv_heads: int = 4
    head_width: int = 32
    experts: int = 8
    experts_used: int = 2
    expert_width: int = 256
    rope_base: float = 10000.0
    epsilon: float = 1e-6
    context: int = 2048


def fast_dropout(x, p):
    """Dropout with p rounded to 1/256: eight decisions per random number, five times faster on a CPU than nn.Dropout."""
    threshold = round(p * 256)
    if threshold == 0:
        return x
    words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), 2**63 - 1)
    keep = (words.view(torch.uint8)[: x.numel()] >= threshold).view(x.shape)
    return x * keep.to(x.dtype).mul_(256 / (256 - threshold))


class Rotation:
    """NeoX rotation of positions start .. start + T: element i of a head's first half goes with i of the second.

    Works on rows [B,T,N*E] of whole heads: a product with a signed permutation swaps the halves, and the sines are laid
    out as long as a row. On a CPU that is several times faster than slicing heads of 32.
    """

    def __init__(self, c, start, length):
        E = c.head_width
        frequency = c.rope_base ** (-torch.arange(0, E, 2, dtype=torch.float64) / E)
        angle = torch.arange(start, start + length, dtype=torch.float64)[:, None] * frequency
        self._cosine = angle.cos().float().repeat(1, 2 * c.heads)
        self._sine = angle.sin().float().repeat(1, 2 * c.heads)
        half = torch.eye(E // 2)
        none = torch.zeros_like(half)
        swap = torch.cat([torch.cat([none, half], 1), torch.cat([-half, none], 1)])  # [first, second] -> [-second, first]
        self._swap = torch.block_diag(*[swap] * c.heads)

    def __call__(self, x):
        n = x.shape[-1]
        return x * self._cosine[:, :n] + (x @ self._swap[:n, :n]) * self._sine[:, :n]


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        q, kv = c.heads * c.head_width, c.kv_heads * c.head_width
        new = lambda *shape: nn.Parameter(torch.randn(*shape) * shape[-1] ** -0.5)
        self.attn_norm = nn.Parameter(torch.ones(c.width))
        self.attn_q, self.attn_k, self.attn_v = new(q, c.width), new(kv, c.width), new(kv, c.width)
        self.attn_q_norm = nn.Parameter(torch.ones(c.head_width))
        self.attn_k_norm = nn.Parameter(torch.ones(c.head_width))
        self.attn_output = nn.Parameter(torch.zeros(c.width, q))
        self.ffn_norm = nn.Parameter(torch.ones(c.width))
        self.ffn_gate_inp = nn.Parameter(torch.randn(c.experts, c.width) * 0.02)
        self.ffn_gate_exps = new(c.experts, c.expert_width, c.width)
        self.ffn_up_exps = new(c.experts, c.expert_width, c.width)
        self.ffn_down_exps = nn.Parameter(torch.zeros(c.experts, c.width, c.expert_width))

    def attention(self, x, rotation, past, compute):
        c, (B, T, _) = self.c, x.shape
        x = x.to(compute)
        q, k, v = (F.linear(x, w.to(compute)) for w in (self.attn_q, self.attn_k, self.attn_v))
        q, k = self.position(q, self.attn_q_norm, rotation), self.position(k, self.attn_k_norm, rotation)
        q, k, v = (y.view(B, T, -1, c.head_width).transpose(1, 2) for y in (q, k, v))
        if past is not None:
            k, v = past.extend(self, k, v)
        repeat = c.heads // c.kv_heads
        k, v = k.repeat_interleave(repeat, dim=1), v.repeat_interleave(repeat, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=T > 1)
        return F.linear(y.transpose(1, 2).reshape(B, T, -1), self.attn_output.to(compute))

    def position(self, x, weight, rotation):
        """Normalises each head of x [B,T,N*E] and rotates it."""
        E = self.c.head_width
        normed = F.rms_norm(x.float().unflatten(-1, (-1, E)), (E,), eps=self.c.epsilon).flatten(-2)
        return rotation(normed * weight.repeat(x.shape[-1] // E)).to(x.dtype)

    def route(self, x):
        """x: [N,D] float32 -> probabilities [N,X], chosen experts [N,K] and their weights [N,K], which sum to 1."""
        probability = torch.softmax(F.linear(x, self.ffn_gate_inp), dim=-1)
        weight, chosen = probability.topk(self.c.experts_used, dim=-1)
        return probability, chosen, weight / weight.sum(-1, keepdim=True)

    def experts(self, x, compute):
        """x: [N,D] float32 -> output [N,D], load-balancing loss, tokens per expert [X]."""
        c, N = self.c, x.shape[0]
        probability, chosen, weight = self.route(x)
        order = chosen.flatten().argsort(stable=True)  # assignments grouped by expert
        load = torch.bincount(chosen.flatten(), minlength=c.experts)
        grouped = x.to(compute).index_select(0, order // c.experts_used).split(load.tolist())
        gate, up, down = (w.to(compute) for w in (self.ffn_gate_exps, self.ffn_up_exps, self.ffn_down_exps))
        outputs = [
            F.linear(F.silu(F.linear(rows, gate[e])) * F.linear(rows, up[e]), down[e])
            for e, rows in enumerate(grouped)
            if len(rows)
        ]
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        y = torch.cat(outputs).index_select(0, place).view(N, c.experts_used, c.width)
        y = (y * weight.to(compute).unsqueeze(-1)).sum(1)
        balance = c.experts * (load / (N * c.experts_used) * probability.mean(0)).sum()
        return y, balance, load

    def forward(self, x, rotation, past, compute, dropout):
        c = self.c
        drop = (lambda y: fast_dropout(y, dropout)) if dropout else (lambda y: y)
        x = x + drop(self.attention(F.rms_norm(x, (c.width,), self.attn_norm, c.epsilon), rotation, past, compute))
        normed = F.rms_norm(x, (c.width,), self.ffn_norm, c.epsilon).flatten(0, 1)
        y, balance, load = self.experts(normed, compute)
        return x + drop(y.view_as(x)), balance, load


class Past:
    """Keys and values of the tokens so far, for sampling. One per conversation."""

    def __init__(self):
        self.length, self._of = 0, {}

    def extend(self, layer, k, v):
        if layer in self._of:
            k, v = (torch.cat(pair, dim=2) for pair in zip(self._of[layer], (k, v)))
        self._of[layer] = (k, v)
        return k, v


class Model(nn.Module):
    """ids [B,T] -> logits [B,T,V]. The output matrix is the embedding."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        self.token_embd = nn.Parameter(torch.randn(c.vocabulary, c.width) * 0.02)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.layers))
        self.output_norm = nn.Parameter(torch.ones(c.width))

    def forward(self, ids, past=None, compute=torch.float32, dropout=0.0):
        """Also returns the mean load-balancing loss and the tokens per expert, [L,X]."""
        x = fast_dropout(F.embedding(ids, self.token_embd), dropout)
        start = past.length if past else 0
        rotation = Rotation(self.c, start, ids.shape[1])
        balances, loads = [], []
        for layer in self.layers:
            x, balance, load = layer(x, rotation, past, compute, dropout)
            balances.append(balance)
            loads.append(load)
        if past:
            past.length += ids.shape[1]
        x = fast_dropout(F.rms_norm(x, (self.c.width,), self.output_norm, self.c.epsilon), dropout)
        logits = F.linear(x.to(compute), self.token_embd.to(compute)).float()
        return logits, torch.stack(balances).mean(), torch.stack(loads)

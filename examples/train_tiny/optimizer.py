"""AdamW for vectors and the embedding, Muon for matrices.

Muon takes the momentum of a matrix, makes it nearly orthogonal with a Newton-Schulz iteration and steps along that. The
step is scaled to the root mean square that AdamW's would have, so both share one learning rate and one weight decay.
"""

import torch


def orthogonal(g, steps=5):
    """g [..., M, N] -> nearly U V^T of its singular value decomposition. Runs in bfloat16."""
    a, b, c = 3.4445, -4.7750, 2.0315  # the usual quintic: steep at 0, stays within 0.7 .. 1.2
    x = g.bfloat16()
    if flipped := g.shape[-2] > g.shape[-1]:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.mT
        x = a * x + (b * s + c * (s @ s)) @ x
    return (x.mT if flipped else x).float()


class Muon(torch.optim.Optimizer):
    def __init__(self, parameters, lr, momentum=0.95, weight_decay=0.1):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                m.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonal(p.grad.lerp(m, group["momentum"]))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * 0.2 * max(p.shape[-2:]) ** 0.5)


def optimizers(model, lr, weight_decay):
    matrices, others = [], []
    for name, p in model.named_parameters():
        is_matrix = p.ndim >= 2 and "token_embd" not in name and "ffn_gate_inp" not in name
        (matrices if is_matrix else others).append(p)
    return [
        Muon(matrices, lr, weight_decay=weight_decay),
        torch.optim.AdamW(others, lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]

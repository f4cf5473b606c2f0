"""Muon for matrices and convolution kernels, Adam for the rest, as one optimizer: it needs far fewer steps than AdamW here.

Momentum, then the nearest orthogonal matrix by five Newton-Schulz iterations (Jordan et al. 2024, "Muon"), scaled to the root mean
square of Adam's updates (Liu et al. 2025, arXiv:2502.16982), so that one learning rate serves both kinds. Matrices of one shape go
through the iteration together.
"""
import torch

import data


def orthogonal(x):
    """Nearest semi-orthogonal matrices to x [n, a, b] with a <= b, roughly: singular values end between about 0.7 and 1.2."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = x.bfloat16() if data.SHORT else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        s = x @ x.mT
        x = a * x + (b * s + c * s @ s) @ x
    return x.float()


def pieces(p):
    """The matrices that make up a fused weight of the transformer: q, k, v (and the MLP's part) are separate maps."""
    out, d, every = p.shape[0], min(p.shape), slice(None)
    if p.shape == (3 * d, d):
        return [(slice(i * d, (i + 1) * d), every) for i in range(3)]
    if p.shape == (7 * d, d):
        return [(slice(i * d, (i + 1) * d), every) for i in range(3)] + [(slice(3 * d, None), every)]
    if p.shape == (d, 5 * d):
        return [(every, slice(0, d)), (every, slice(d, None))]
    return [(slice(0, out), every)]


class Muon:
    """`matrices` (2-D, or convolution kernels) take orthogonal updates, `others` Adam's. `step(lr)` after `backward()`."""

    def __init__(self, matrices, others, weight_decay=.01, momentum=.95, betas=(.9, .98)):
        self.matrices, self.others, self.weight_decay, self.momentum = list(matrices), list(others), weight_decay, momentum
        self.buffers = [torch.zeros_like(p) for p in self.matrices]
        self.groups = {}
        for i, p in enumerate(self.matrices):
            for part in pieces(p.flatten(1)):
                shape = p.flatten(1)[part].shape
                self.groups.setdefault((min(shape), max(shape)), []).append((i, part))
        self.adam = torch.optim.AdamW(self.others, 1e-3, betas=betas, weight_decay=0., foreach=True)

    def zero_grad(self):
        for p in self.matrices + self.others:
            p.grad = None

    @torch.no_grad()
    def step(self, lr):
        for group in self.adam.param_groups:
            group['lr'] = lr
        self.adam.step()
        grads = [p.grad for p in self.matrices]
        torch._foreach_lerp_(self.buffers, grads, 1 - self.momentum)
        updates = [u.flatten(1) for u in torch._foreach_lerp(grads, self.buffers, self.momentum)]
        torch._foreach_mul_(self.matrices, 1 - lr * self.weight_decay)
        for (_, wide), items in self.groups.items():
            parts = [updates[i][part] for i, part in items]
            for u, part, (i, at) in zip(orthogonal(torch.stack([p if p.shape[0] <= p.shape[1] else p.T for p in parts])), parts, items):
                u = u if u.shape == part.shape else u.T
                whole = torch.zeros_like(updates[i])
                whole[at] = u
                self.matrices[i].add_(whole.view_as(self.matrices[i]), alpha=-lr * .2 * wide ** .5)

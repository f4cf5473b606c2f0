"""Trains transformer and text encoders on the autoencoder's latents: `python transformer.py MINUTES [--compile]`.

Rectified-flow matching: the loss is the squared error of the velocity from picture to noise (Esser et al. 2024, arXiv:2403.03206), with
logit-normal times under the resolution-dependent shift. Resumes from dit.pt. Each step takes a fixed number of edits and of
text-to-image draws (their sequences differ in length), more of the kinds that are behind. `--compile` (needs a C++ compiler, and
minutes to compile) makes a step about a third faster.
"""
import random
import sys
import time
from pathlib import Path

import torch

import data
import scenes
from evaluate import Judge
from muon import Muon

CHECKPOINT = Path('dit.pt')
EDITS, GENERATIONS = 52, 12
PEAK, DECAY, WARM = 2e-3, .6, 50  # learning rate, share of the run over which it falls to 0, steps
EMPTY = .05  # share of empty prompts, for guidance without a classifier
EVERY = 12 * 60  # seconds between checkpoints


class Draws:
    def __init__(self, latents, prompts):
        self.latents, self.prompts, self.random = latents, prompts, random.Random()
        self.share = {k: v for k, v in scenes.SHARE.items() if k != 'generate'}

    def batch(self, kinds):
        """Prompt indices, target latents, context latents (None for text-to-image)."""
        r = self.random
        cases = [scenes.sample_edit(r, k) for k in kinds]
        at = [self.prompts.index['' if r.random() < EMPTY else c[1]] for c in cases]
        z = self.latents.packed[[data.INDEX[scenes.key(c[2])] for c in cases]]
        return at, z, None if cases[0][0] is None else self.context([data.INDEX[scenes.key(c[0])] for c in cases])

    def context(self, at):
        """A third of the contexts have been through the autoencoder twice, and some are noisy: later turns of a session are like that."""
        r = self.random
        worn = torch.tensor([r.random() < .35 for _ in at])
        sigma = torch.tensor([r.random() ** 2 * .2 if r.random() < .4 else 0. for _ in at])
        z = torch.where(worn[:, None, None], self.latents.worn[at], self.latents.packed[at])
        return z + sigma[:, None, None] * torch.randn_like(z)

    def step(self):
        kinds = self.random.choices(list(self.share), list(self.share.values()), k=EDITS)
        return kinds + ['generate'] * GENERATIONS, [self.batch(kinds), self.batch(['generate'] * GENERATIONS)]

    def balance(self, losses):
        raw = {k: scenes.SHARE[k] ** .5 * losses[k] for k in self.share}
        self.share = {k: max(.05, v / sum(raw.values())) for k, v in raw.items()}


def losses_of(net, prompts, parts):
    at = sum((p[0] for p in parts), [])
    out = []
    with data.products():
        text, pooled = net.text(prompts.t5[at], prompts.clip[at])
        for of, z, context in parts:
            here, text, pooled_here, pooled = text[:len(of)], text[len(of):], pooled[:len(of)], pooled[len(of):]
            noise, t = torch.randn_like(z), data.shifted(torch.sigmoid(torch.randn(len(of))))
            v = net(torch.lerp(z, noise, t[:, None, None]), t, context, here, pooled_here)
            out.append((v.float() - (noise - z)).pow(2).mean((1, 2)))
    return torch.cat(out)


def main(minutes, compiled):
    images = data.render_all()
    prompts, latents = data.Prompts(), data.Latents('vae.pt', images, worn=True)
    net, average = (data.Editor(len(prompts.t5_rows), len(prompts.clip_rows)) for _ in range(2))
    average.load_state_dict(net.state_dict())
    seen = 0  # steps before this run, by which the average is known to have settled
    if CHECKPOINT.exists():
        saved = torch.load(CHECKPOINT)
        seen = saved['steps']
        net.load_state_dict(saved['net'])
        average.load_state_dict(saved['average'])
    named = list(net.named_parameters())
    blocks = {k for k, p in named if p.dim() == 2 and '_blocks' in k and '.lin.' not in k}  # modulations are Adam's
    opt = Muon([p for k, p in named if k in blocks], [p for k, p in named if k not in blocks])
    if compiled:
        net.flux.forward = torch.compile(net.flux.forward, dynamic=False)
    draws, parameters, averages = Draws(latents, prompts), [p for _, p in named], list(average.parameters())
    by_kind = dict.fromkeys(data.KINDS, 1.)
    step, start, saved_at = 0, None, time.time()

    def save():
        torch.save(dict(net=net.state_dict(), average=average.state_dict(), steps=seen + step), CHECKPOINT)

    while start is None or (f := (time.time() - start) / 60 / minutes) < 1:
        kinds, parts = draws.step()
        losses = losses_of(net, prompts, parts)
        opt.zero_grad()
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.)
        if start is None:  # the first step may have compiled for minutes
            start, f = time.time(), 0
        opt.step(PEAK * min(1, (step + 1) / WARM, (1 - f) / DECAY))
        with torch.no_grad():
            torch._foreach_lerp_(averages, parameters, 1 - min(.998, (seen + step + 1) / (seen + step + 10)))
        for kind, loss in zip(kinds, losses.detach().tolist()):
            by_kind[kind] += .01 * (loss - by_kind[kind])
        step += 1
        if step % 100 == 0:
            draws.balance(by_kind)
            print(step, '%.1f min ' % (f * minutes), '  '.join(f'{k} {v:.3f}' for k, v in by_kind.items()), flush=True)
        if time.time() - saved_at > EVERY:
            saved_at = time.time()
            save()
            judge = Judge(average, latents, prompts, images)
            print({k: tuple(round(x, 3) for x in judge.kind(k, 40)) for k in data.KINDS}, flush=True)
    save()


if __name__ == '__main__':
    main(float(sys.argv[1]), '--compile' in sys.argv)

"""Trains the demo adapter, a LoRA that makes every answer black and white: `python adapter.py prompts | check | train STEPS`.

The model stays as it is shipped; what is learned is ΔW = B·A of rank 4 at the linear layers of the picture's stream (Hu et al. 2021,
arXiv:2106.09685). Prompts and pictures are those the model was trained with, the true answers are the same scenes in greyscale: the
model alone can take the colours out of a picture that is there, but neither draw nor change one without colours.

Needs torch, numpy, pillow and safetensors. Prompts are encoded by the SDK, between `prompts` and `train`:
`npx tsx ../recipe/texts.ts prompts.json texts.safetensors`. `train` goes on from noir.pt where there is one.
"""
import json
import random
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import data
import model
import restore
import scenes

RANK, EDITS, GENERATIONS = 4, 12, 4
PEAK, WARM = 3e-3, 20  # learning rate, steps
SEEN = .2  # share of the contexts that are black and white themselves, as in the second turn of a session
KINDS = {k: v for k, v in scenes.SHARE.items() if k not in ('generate', 'negative')}  # there is no picture of a negative in greyscale
# The linear layers of the picture's stream. Those of the text's are left alone: no prompt means anything else than before.
TARGETS = ('img_attn', 'img_mlp', 'img_mod', 'single_blocks', 'img_in', 'final_layer')
OUT, CHECKPOINT, LATENTS = data.HERE.parent / 'adapters/noir.safetensors', Path('noir.pt'), Path('latents.pt')


def all_prompts():
    r = random.Random(0)
    return sorted({scenes.sample_edit(r)[1] for _ in range(100_000)})


class LowRank(nn.Module):
    """A linear layer that stays, with B·A beside it."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.out_features = layer, layer.out_features
        self.a = nn.Parameter(torch.randn(RANK, layer.in_features) / layer.in_features ** .5)
        self.b = nn.Parameter(torch.zeros(layer.out_features, RANK))

    def forward(self, x):
        return self.layer(x) + x @ self.a.T @ self.b.T


def with_adapter(flux):
    """Puts a LowRank around each target. Returns them by module name."""
    for p in flux.parameters():
        p.requires_grad_(False)
    added = {}
    for name, layer in list(flux.named_modules()):
        if isinstance(layer, nn.Linear) and any(t in name for t in TARGETS):
            parent, _, leaf = name.rpartition('.')
            added[name] = LowRank(layer)
            setattr(flux.get_submodule(parent), leaf, added[name])
    return added


class Editor(nn.Module):
    """As data.Editor, for encoded prompts."""

    def __init__(self):
        super().__init__()
        self.flux = model.Flux()
        self.flux.load_state_dict(restore.flux(data.TOKENIZERS))
        self.target, self.context = data.position_ids(0), data.position_ids(1)

    forward = data.Editor.forward


def open_latents():
    torch.save(restore.autoencoder(data.TOKENIZERS), 'vae.pt')
    return data.Latents('vae.pt', data.render_all())


def check(folder):
    """The restored model against the values that the SDK's tests hold."""
    values, net, latents = load_file(folder / 'values.safetensors'), Editor().eval(), open_latents()
    start = data.INDEX[scenes.key(scenes.scene('red', 'apple', 'center', scenes.BIG))]
    for name, context in (('edit', latents.packed[start][None]), ('generate', None)):
        z = data.sample(net, values[f'{name}.text'], values[f'{name}.pooled'], context, values[f'{name}.noise'])
        print(name, 'latents differ by at most', (z - values[f'{name}.latents']).abs().max().item(),
              'pictures by', (latents.decode(z) - values[f'{name}.image']).abs().max().item())


class Draws:
    def __init__(self, seed):
        if not LATENTS.exists():
            torch.save(open_latents().packed, LATENTS)
        self.latents, self.random = torch.load(LATENTS), random.Random(seed)
        self.prompts = {p: i for i, p in enumerate(json.loads(Path('prompts.json').read_text()))}
        encoded = load_file('texts.safetensors')
        self.text, self.pooled = encoded['text'], encoded['pooled']

    def grey(self, s):
        return self.latents[data.INDEX[scenes.key({**s, 'effect': 'grayscale'})]]

    def batch(self, kinds):
        """Encoded prompts, latents of the answers in greyscale, contexts."""
        r = self.random
        cases = [scenes.sample_edit(r, k) for k in kinds]
        at = [self.prompts[c[1]] for c in cases]
        context = None
        if cases[0][0]:
            context = torch.stack([self.grey(c[0]) if r.random() < SEEN else self.latents[data.INDEX[scenes.key(c[0])]] for c in cases])
        return self.text[at], self.pooled[at], torch.stack([self.grey(c[2]) for c in cases]), context

    def step(self):
        return self.batch(self.random.choices(list(KINDS), list(KINDS.values()), k=EDITS)), self.batch(['generate'] * GENERATIONS)


def losses_of(net, text, pooled, z, context):
    noise, t = torch.randn_like(z), data.shifted(torch.sigmoid(torch.randn(len(z))))
    v = net(torch.lerp(z, noise, t[:, None, None]), t, context, text, pooled)
    return (v - (noise - z)).pow(2).mean((1, 2))


def save(added):
    tensors = {f'diffusion_model.{name}.lora_{k}.weight': v.detach().half() for name, m in added.items() for k, v in (('A', m.a), ('B', m.b))}
    OUT.parent.mkdir(exist_ok=True)
    save_file(tensors, OUT, {'format': 'pt'})


def train(steps):
    net = Editor()
    added = with_adapter(net.flux)
    layers = nn.ModuleDict({k.replace('.', '/'): m for k, m in added.items()})
    parameters = [p for p in layers.parameters() if p.requires_grad]
    opt, seen = torch.optim.Adam(parameters, PEAK, betas=(.9, .98)), 0
    if CHECKPOINT.exists():
        saved = torch.load(CHECKPOINT)
        seen = saved['steps']
        layers.load_state_dict(saved['layers'])
        opt.load_state_dict(saved['opt'])
    torch.manual_seed(seen)
    draws, mean, start = Draws(seen), 0., time.time()
    for step in range(seen, steps):
        losses = torch.cat([losses_of(net, *part) for part in draws.step()])
        opt.zero_grad()
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.)
        for group in opt.param_groups:
            group['lr'] = PEAK * min(1, (step + 1) / WARM, 1.5 * (1 - step / steps))
        opt.step()
        mean += (losses.mean().item() - mean) * max(.04, 1 / (step + 1 - seen))
        if (step + 1) % 10 == 0:
            print(f'{step + 1} {time.time() - start:.0f} s  loss {mean:.4f}', flush=True)
        if (step + 1) % 10 == 0 or step + 1 == steps:
            torch.save(dict(layers=layers.state_dict(), opt=opt.state_dict(), steps=step + 1), CHECKPOINT)
            save(added)


if __name__ == '__main__':
    if sys.argv[1] == 'prompts':
        Path('prompts.json').write_text(json.dumps(all_prompts()))
    elif sys.argv[1] == 'check':
        check(data.HERE.parent.parent.parent / 'test/fixtures/demo-model')
    else:
        train(int(sys.argv[2]))

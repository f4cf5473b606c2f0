"""Figures of a transformer checkpoint: `python evaluate.py [COUNT] [STEPS]`: right answers and PSNR by kind of edit, and sessions.

An answer is right when the scene nearest to it, of all 2,619, is the true one. Draws come from a seed that training does not use.
A session feeds each answer back as bytes, as a program would, and asks whether the scene after five turns is the true one.
"""
import random
import sys

import torch

import data
import scenes


class Judge:
    def __init__(self, net, latents, prompts, images, steps=12, seed=123):
        self.net, self.latents, self.prompts, self.images, self.steps = net, latents, prompts, images, steps
        self.flat = data.pixels(images).flatten(1)
        self.squares = self.flat.pow(2).sum(1)
        self.random, self.noise = random.Random(seed), torch.Generator().manual_seed(seed)

    def answer(self, texts, context):
        at = [self.prompts.index[t] for t in texts]
        text, pooled = self.net.text(self.prompts.t5[at], self.prompts.clip[at])
        noise = torch.randn(len(texts), 16, 64, generator=self.noise)
        return self.latents.decode(data.sample(self.net, text, pooled, context, noise, self.steps))

    def nearest(self, y):
        return (self.squares - 2 * y.flatten(1) @ self.flat.T).argmin(1)

    @torch.no_grad()
    def kind(self, kind, count):
        """(share right, mean PSNR to the true answer)."""
        cases = [scenes.sample_edit(self.random, kind) for _ in range(count)]
        right, psnr = [], []
        for i in range(0, count, 50):
            part = cases[i:i + 50]
            context = None if kind == 'generate' else self.latents.packed[[data.INDEX[scenes.key(c[0])] for c in part]]
            want = torch.tensor([data.INDEX[scenes.key(c[2])] for c in part])
            y = self.answer([c[1] for c in part], context)
            right.append((self.nearest(y) == want).float())
            psnr.append(data.psnr(y, data.pixels(self.images[want])))
        return torch.cat(right).mean().item(), torch.cat(psnr).mean().item()

    @torch.no_grad()
    def sessions(self, count, turns=5):
        """Share right and mean PSNR after each turn. The last turn may also remove, or change the colours, after which no edit follows."""
        r = self.random
        now = [{**scenes.random_scene(r, True), 'place': 'center'} for _ in range(count)]
        z = self.latents.packed[[data.INDEX[scenes.key(s)] for s in now]]
        out = []
        for turn in range(turns):
            texts = []
            for i, s in enumerate(now):
                kinds = ['background', 'replace'] + ['move'] * (s['size'] == scenes.SMALL) + ['resize'] * (s['place'] == 'center')
                if turn == turns - 1:
                    kinds += ['remove', 'grayscale', 'negative']
                _, text, now[i], _ = scenes.edit_of(r, r.choice(kinds), s)
                texts.append(text)
            y = self.answer(texts, z)
            want = torch.tensor([data.INDEX[scenes.key(s)] for s in now])
            out.append(((self.nearest(y) == want).float().mean().item(), data.psnr(y, data.pixels(self.images[want])).mean().item()))
            seen = (data.to_bytes(y) / 127.5 - 1).contiguous(memory_format=torch.channels_last)
            z = self.latents.normalise(self.latents.mean(seen))
        return out


def main(count, steps):
    images = data.render_all()
    prompts, latents = data.Prompts(), data.Latents('vae.pt', images)
    judge = Judge(data.load_editor('dit.pt', prompts), latents, prompts, images, steps)
    for kind in data.KINDS:
        print('%-10s right %.3f  %.1f dB' % (kind, *judge.kind(kind, count)), flush=True)
    for turn, figures in enumerate(judge.sessions(count), 1):
        print('turn %d     right %.3f  %.1f dB' % (turn, *figures), flush=True)


if __name__ == '__main__':
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200, int(sys.argv[2]) if len(sys.argv) > 2 else 12)

"""Trains the autoencoder: `python autoencoder.py whole MINUTES` (or `decoder`, which leaves the encoder, and so the latents, as they are).

Resumes from vae.pt. The loss is the mean logarithm of each picture's squared error, which is the mean PSNR itself, with a little L1 and KL.
"""
import sys
import time
from pathlib import Path

import torch

import data
import model
from muon import Muon

CHECKPOINT = Path('vae.pt')
AIM = 36  # dB


def loss_of(y, x):
    return ((y - x).pow(2).mean((1, 2, 3)) + 1e-5).log().mean()


def train(minutes, decoder_only, batch=16, peak=1e-3):
    net = model.AutoEncoder().to(memory_format=torch.channels_last)
    if CHECKPOINT.exists():
        net.load_state_dict({k: v.float() for k, v in torch.load(CHECKPOINT).items()})
    images = data.render_all()
    latents = data.Latents(CHECKPOINT, images).raw if decoder_only else None
    part = net.decoder if decoder_only else net
    peak = peak / 2 if decoder_only else peak
    kernels = {k for k, p in part.named_parameters() if p.dim() == 4 and 'conv_in' not in k and 'conv_out' not in k}
    opt = Muon([p for k, p in part.named_parameters() if k in kernels], [p for k, p in part.named_parameters() if k not in kernels])
    # Empty scenes are few, and a black that is not quite black is another scene.
    share = torch.tensor([10. if s['thing'] is None else 1. for s in data.SCENES])
    start, step, mean, known = time.time(), 0, None, torch.full((len(images),), 20.)
    while (f := (time.time() - start) / 60 / minutes) < 1:
        # Pictures that are behind come more often: the aim is a floor for every scene, not a mean.
        i = torch.multinomial(share * (AIM - known).clamp_min(1), batch)
        x = data.pixels(images[i])
        with data.products():
            if decoder_only:  # half of the draws nearly clean, the others disturbed as the transformer's answers are
                z, kl = latents[i], 0
                z = z + torch.rand(batch, 1, 1, 1).pow(2) * .15 * latents.std() * torch.randn_like(z)
            else:
                mean_, logvar = net.encoder(x).float().chunk(2, 1)
                logvar = logvar.clamp(-20, 10)
                kl = .5 * (mean_.pow(2) + logvar.exp() - 1 - logvar).mean()
                z = mean_ + torch.exp(.5 * logvar) * torch.randn_like(mean_)
            y = net.decoder(z.contiguous(memory_format=torch.channels_last)).float()
        loss = .05 * loss_of(y, x) + .3 * (y - x).abs().mean() * (not decoder_only) + 1e-4 * kl
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(part.parameters(), 1.)
        opt.step(peak * min(1, (step + 1) / 50, 1.25 * (1 - f)))
        known[i] = data.psnr(y.detach(), x)
        p = known[i].mean().item()
        mean = p if mean is None else .98 * mean + .02 * p
        if step % 100 == 0:
            print(f'{step} {f * minutes:.1f} min  psnr {mean:.2f} dB', flush=True)
            torch.save(net.state_dict(), CHECKPOINT)
        step += 1
    torch.save(net.state_dict(), CHECKPOINT)


def report():
    """PSNR of every scene through encoder and decoder, with the weights rounded as they are shipped."""
    images = data.render_all()
    latents = data.Latents(CHECKPOINT, images)
    p = torch.cat([data.psnr(latents.decode(latents.packed[i]), data.pixels(images[i])) for i in data.batches(len(images))])
    print(f'{len(p)} scenes: mean {p.mean().item():.2f} dB, worst {p.min().item():.2f} dB, share under 26 dB {(p < 26).float().mean().item():.3f}')


if __name__ == '__main__':
    if sys.argv[1] != 'report':
        train(float(sys.argv[2]), sys.argv[1] == 'decoder')
    report()

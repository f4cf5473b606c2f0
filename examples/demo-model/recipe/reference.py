"""Writes reference values of the shipped model for the SDK's tests: `python reference.py OUT` (OUT: ../../../test/fixtures/demo-model).

Three runs of 12 steps in float32 on the CPU with the weights rounded to float16, as they are shipped: an edit, text to image, an edit of
the first edit's bytes. Noise as the pipeline draws it: torch.Generator('cpu').manual_seed(seed), [1, 16, 8, 8], then packed.
"""
import json
import sys
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

import data
import scenes

RUNS = (('edit', 'make the background blue', 7), ('generate', 'a small panda on the right on a yellow background', 8), ('second-edit', 'replace the apple with a rocket', 9))
STEPS = 12


@torch.no_grad()
def main(out):
    out.mkdir(parents=True, exist_ok=True)
    images = data.render_all()
    prompts, latents = data.Prompts(), data.Latents('vae.pt', images)
    net = data.load_editor('dit.pt', prompts)
    start = scenes.scene('red', 'apple', 'center', scenes.BIG)
    Image.fromarray(scenes.render(start)).save(out / 'input.png')
    previous, runs, tensors = None, [], {}
    for name, prompt, seed in RUNS:
        source = {'edit': images[data.INDEX[scenes.key(start)]][None].float(), 'generate': None, 'second-edit': previous}[name]
        context = None if source is None else latents.normalise(latents.mean((source / 127.5 - 1).contiguous(memory_format=torch.channels_last)))
        at = [prompts.index[prompt]]
        text, pooled = net.text(prompts.t5[at], prompts.clip[at])
        noise = data.pack(torch.randn(1, 16, 8, 8, generator=torch.Generator('cpu').manual_seed(seed)))
        z = data.sample(net, text, pooled, context, noise, STEPS)
        y = latents.decode(z)
        rgb = data.to_bytes(y)
        Image.fromarray(rgb[0].byte().permute(1, 2, 0).numpy()).save(out / f'{name}.png')
        previous = rgb if name == 'edit' else previous
        runs.append({'name': name, 'prompt': prompt, 'seed': seed, 'steps': STEPS, 'input': {'edit': 'input.png', 'generate': None, 'second-edit': 'edit.png'}[name],
                     'output': f'{name}.png', 't5': prompts.t5_ids(prompt), 'clip': prompts.clip_ids(prompt)})
        values = {'text': text, 'pooled': pooled, 'noise': noise, 'latents': z, 'image': y}
        tensors |= {f'{name}.{k}': v.float().contiguous().clone() for k, v in values.items()}
        if context is not None:
            tensors[f'{name}.context'] = context.contiguous()
    save_file(tensors, out / 'values.safetensors')
    (out / 'values.safetensors').chmod(0o644)
    (out / 'meta.json').write_text(json.dumps({
        'torch': torch.__version__, 'runs': runs,
        'tensors': 'text [1,16,64] and pooled [1,64] of the encoders; context, noise, latents packed [1,16,64], normalised; image [1,3,64,64] in [-1,1], clamped'}, indent=2) + '\n')


if __name__ == '__main__':
    main(Path(sys.argv[1]))

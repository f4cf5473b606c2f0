"""Turns the exported model folder back into vae.pt and dit.pt, to go on training from what is shipped: `python restore.py [FOLDER] [STEPS]`.

FOLDER: ../model. STEPS: how many steps its weights have had (the weight average treats them as settled from some hundreds on).
"""
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

import data
import export
import model


def undo(rename, example, stored):
    """The tensors that `rename` made `stored` of. It only renames, cuts, joins and reshapes: numbering every element shows where each went."""
    sizes = [t.numel() for t in example.values()]
    numbers = torch.arange(sum(sizes)).split(sizes)
    flat = torch.full((sum(sizes),), float('nan'))
    for name, at in rename({k: n.view_as(t) for (k, t), n in zip(example.items(), numbers)}).items():
        flat[at.flatten()] = stored[name].float().flatten()
    assert not flat.isnan().any(), 'the folder lacks tensors of this model'
    return {k: part.view_as(t) for (k, t), part in zip(example.items(), flat.split(sizes))}


def autoencoder(folder):
    return undo(export.vae, model.AutoEncoder().state_dict(), load_file(folder / 'vae/diffusion_pytorch_model.safetensors'))


def flux(folder):
    return undo(export.transformer, model.Flux().state_dict(), load_file(folder / 'transformer/diffusion_pytorch_model.safetensors'))


def main(folder, steps):
    torch.save(autoencoder(folder), 'vae.pt')
    prompts = data.Prompts()
    editor = data.Editor(len(prompts.t5_rows), len(prompts.clip_rows))
    editor.flux.load_state_dict(flux(folder))
    t5 = load_file(folder / 'text_encoder_2/model.safetensors')
    t5['shared.weight'] = t5['shared.weight'][prompts.t5_rows]
    t5['encoder.embed_tokens.weight'] = t5['shared.weight']
    editor.t5.load_state_dict({k: t5[k].float() for k in editor.t5.state_dict()})
    clip = load_file(folder / 'text_encoder/model.safetensors')
    clip[export.CLIP_EMBEDDING] = clip[export.CLIP_EMBEDDING][prompts.clip_rows]
    own = editor.clip.state_dict()
    editor.clip.load_state_dict({k: own[k] if 'position_ids' in k else clip[export.clip_name(k)].float() for k in own})
    state = editor.state_dict()
    torch.save(dict(net=state, average=state, steps=steps), 'dit.pt')


if __name__ == '__main__':
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else data.TOKENIZERS, int(sys.argv[2]) if len(sys.argv) > 2 else 1600)

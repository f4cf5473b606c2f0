"""Writes vae.pt and dit.pt as a diffusers-layout model folder in float16: `python export.py [OUT]` (OUT: ../model).

The embedding tables get their real sizes back; rows of tokens that no prompt of the grammar has are zero, as untrained rows would only
add noise, and compress to nothing.
"""
import json
import re
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

import data
import model

T5_VOCABULARY, CLIP_VOCABULARY = 32128, 49408
CLIP_EMBEDDING = 'text_model.embeddings.token_embedding.weight'
STEPS = 12


def transformer(bfl):
    out = {}

    def split(name, into, sizes=None):
        for suffix in ('weight', 'bias'):
            t = bfl[f'{name}.{suffix}']
            for part, dest in zip(t.split(sizes or len(t) // len(into)), into):
                out[f'{dest}.{suffix}'] = part

    plain = {'img_in': 'x_embedder', 'txt_in': 'context_embedder', 'final_layer.linear': 'proj_out'}
    for a, b in {'time_in': 'timestep_embedder', 'vector_in': 'text_embedder'}.items():
        plain |= {f'{a}.in_layer': f'time_text_embed.{b}.linear_1', f'{a}.out_layer': f'time_text_embed.{b}.linear_2'}
    for i in range(1 + max(int(k.split('.')[1]) for k in bfl if k.startswith('double_blocks'))):
        a, b = f'double_blocks.{i}', f'transformer_blocks.{i}'
        for s, norm, qkv, added, proj, ff in (('img', 'norm1', 'to_{}', '', 'to_out.0', 'ff'), ('txt', 'norm1_context', 'add_{}_proj', 'added_', 'to_add_out', 'ff_context')):
            plain |= {f'{a}.{s}_mod.lin': f'{b}.{norm}.linear', f'{a}.{s}_attn.proj': f'{b}.attn.{proj}',
                      f'{a}.{s}_mlp.0': f'{b}.{ff}.net.0.proj', f'{a}.{s}_mlp.2': f'{b}.{ff}.net.2'}
            split(f'{a}.{s}_attn.qkv', [f'{b}.attn.{qkv.format(x)}' for x in 'qkv'])
            for x, n in (('q', 'query'), ('k', 'key')):
                out[f'{b}.attn.norm_{added}{x}.weight'] = bfl[f'{a}.{s}_attn.norm.{n}_norm.scale']
    for i in range(1 + max(int(k.split('.')[1]) for k in bfl if k.startswith('single_blocks'))):
        a, b = f'single_blocks.{i}', f'single_transformer_blocks.{i}'
        plain |= {f'{a}.modulation.lin': f'{b}.norm.linear', f'{a}.linear2': f'{b}.proj_out'}
        d = bfl[f'{a}.linear2.weight'].shape[0]
        split(f'{a}.linear1', [f'{b}.attn.to_{x}' for x in 'qkv'] + [f'{b}.proj_mlp'], [d, d, d, len(bfl[f'{a}.linear1.bias']) - 3 * d])
        for x, n in (('q', 'query'), ('k', 'key')):
            out[f'{b}.attn.norm_{x}.weight'] = bfl[f'{a}.norm.{n}_norm.scale']
    for a, b in plain.items():
        for suffix in ('weight', 'bias'):
            out[f'{b}.{suffix}'] = bfl[f'{a}.{suffix}']
    for suffix in ('weight', 'bias'):  # diffusers keeps scale before shift here
        shift, scale = bfl[f'final_layer.adaLN_modulation.1.{suffix}'].chunk(2)
        out[f'norm_out.linear.{suffix}'] = torch.cat((scale, shift))
    return out


def vae(bfl):
    levels = 1 + max(int(k.split('.')[2]) for k in bfl if k.startswith('decoder.up.'))
    out = {}
    for name, t in bfl.items():
        n = re.sub(r'encoder\.down\.(\d+)\.block\.', r'encoder.down_blocks.\1.resnets.', name)
        n = re.sub(r'encoder\.down\.(\d+)\.downsample\.', r'encoder.down_blocks.\1.downsamplers.0.', n)
        n = re.sub(r'decoder\.up\.(\d+)\.block\.', lambda m: f'decoder.up_blocks.{levels - 1 - int(m[1])}.resnets.', n)
        n = re.sub(r'decoder\.up\.(\d+)\.upsample\.', lambda m: f'decoder.up_blocks.{levels - 1 - int(m[1])}.upsamplers.0.', n)
        n = n.replace('mid.block_1', 'mid_block.resnets.0').replace('mid.block_2', 'mid_block.resnets.1').replace('mid.attn_1', 'mid_block.attentions.0')
        n = n.replace('nin_shortcut', 'conv_shortcut').replace('norm_out', 'conv_norm_out')
        if 'attentions' in n:
            n = n.replace('.norm.', '.group_norm.').replace('.proj_out.', '.to_out.0.')
            n = re.sub(r'\.([qkv])\.', r'.to_\1.', n)
            t = t.flatten(1) if t.dim() == 4 else t
        out[n] = t
    return out


def table(rows, weight, size):
    out = torch.zeros(size, weight.shape[1])
    out[rows] = weight
    return out


def write(folder, tensors, config, name='diffusion_pytorch_model.safetensors'):
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().half().contiguous() for k, v in tensors.items()}, folder / name, {'format': 'pt'})
    (folder / name).chmod(0o644)
    (folder / 'config.json').write_text(json.dumps(config, indent=2) + '\n')


def clip_name(key):
    return key if key.startswith('text_model.') else f'text_model.{key}'  # newer releases of transformers leave the prefix out


def text_encoders(out, net, prompts):
    t5 = {k: v for k, v in net.t5.state_dict().items() if k != 'encoder.embed_tokens.weight'}
    t5['shared.weight'] = table(prompts.t5_rows, t5['shared.weight'], T5_VOCABULARY)
    clip = {clip_name(k): v for k, v in net.clip.state_dict().items() if 'position_ids' not in k}
    clip[CLIP_EMBEDDING] = table(prompts.clip_rows, clip[CLIP_EMBEDDING], CLIP_VOCABULARY)
    for folder, tensors, part, size, kind in (('text_encoder', clip, net.clip, CLIP_VOCABULARY, 'CLIPTextModel'), ('text_encoder_2', t5, net.t5, T5_VOCABULARY, 'T5EncoderModel')):
        config = json.loads(part.config.to_json_string()) | {'architectures': [kind], 'vocab_size': size}
        write(out / folder, tensors, config, 'model.safetensors')


def main(out):
    prompts, latents = data.Prompts(), data.Latents('vae.pt', data.render_all())
    net = data.load_editor('dit.pt', prompts)
    f = net.flux
    write(out / 'transformer', transformer(f.state_dict()), {
        '_class_name': 'FluxTransformer2DModel', 'attention_head_dim': 64, 'axes_dims_rope': list(f.axes), 'guidance_embeds': False, 'in_channels': 64,
        'joint_attention_dim': 64, 'num_attention_heads': 3, 'num_layers': len(f.double_blocks), 'num_single_layers': len(f.single_blocks), 'patch_size': 1,
        'pooled_projection_dim': 64})
    write(out / 'vae', vae(latents.net.state_dict()), {
        '_class_name': 'AutoencoderKL', 'act_fn': 'silu', 'block_out_channels': [32, 32, 64, 128], 'down_block_types': ['DownEncoderBlock2D'] * 4, 'in_channels': 3,
        'latent_channels': 16, 'layers_per_block': 1, 'mid_block_add_attention': True, 'norm_num_groups': model.GROUPS, 'out_channels': 3, 'sample_size': 64,
        'scaling_factor': latents.scale, 'shift_factor': latents.shift, 'up_block_types': ['UpDecoderBlock2D'] * 4, 'use_post_quant_conv': False, 'use_quant_conv': False})
    text_encoders(out, net, prompts)
    (out / 'scheduler').mkdir(exist_ok=True)
    (out / 'scheduler/scheduler_config.json').write_text(json.dumps({
        '_class_name': 'FlowMatchEulerDiscreteScheduler', 'base_image_seq_len': 256, 'base_shift': 0.5, 'max_image_seq_len': 4096, 'max_shift': 1.15,
        'num_train_timesteps': 1000, 'shift': 3.0, 'use_dynamic_shifting': True}, indent=2) + '\n')
    for name in ('tokenizer', 'tokenizer_2'):
        if not (out / name).exists():
            shutil.copytree(data.TOKENIZERS / name, out / name)
    (out / 'kontext.json').write_text(json.dumps({  # this model's own defaults, where FLUX.1 Kontext's would not suit it
        'preferredSizes': [[64, 64]], 'maxSequenceLength': data.TEXT_LENGTH, 'steps': STEPS}, indent=2) + '\n')
    (out / 'model_index.json').write_text(json.dumps({
        '_class_name': 'FluxKontextPipeline', 'scheduler': ['diffusers', 'FlowMatchEulerDiscreteScheduler'], 'text_encoder': ['transformers', 'CLIPTextModel'],
        'text_encoder_2': ['transformers', 'T5EncoderModel'], 'tokenizer': ['transformers', 'CLIPTokenizer'], 'tokenizer_2': ['transformers', 'T5TokenizerFast'],
        'transformer': ['diffusers', 'FluxTransformer2DModel'], 'vae': ['diffusers', 'AutoencoderKL']}, indent=2) + '\n')


if __name__ == '__main__':
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else data.TOKENIZERS)

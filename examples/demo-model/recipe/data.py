"""What training, evaluation and export share: the pictures of all scenes, latents, prompts as token ids, the editor's modules.

Prompts come from a small grammar and use about 75 rows of each vocabulary, so training keeps only those rows of the embedding tables
(`Prompts.rows`); export puts them back into tables of the real size.
"""
import json
import math
import random
from pathlib import Path

import numpy as np
import torch

import model
import scenes

HERE = Path(__file__).parent
TOKENIZERS = HERE.parent / 'model'  # tokenizer/ and tokenizer_2/ of the exported folder
TEXT_LENGTH = 16  # T5 tokens, padded without a mask; the longest prompt of the grammar has 15
CLIP_LENGTH = 12  # enough to hold every prompt's end: what follows it cannot be seen by causal attention
CLIP_END = 49407
MU = .5 + (16 - 256) * (1.15 - .5) / (4096 - 256)  # FLUX's resolution-dependent shift for 16 image tokens
KINDS = list(scenes.SHARE)

torch.set_flush_denormal(True)
torch.set_num_threads(1)
# bfloat16 products are quicker only where the processor has instructions for them; elsewhere they are many times slower.
SHORT = torch.cpu._is_avx512_bf16_supported()


def products():
    """The number format of training's products, for `with`."""
    return torch.autocast('cpu', torch.bfloat16, enabled=SHORT)

SCENES = list(scenes.all_scenes())
INDEX = {scenes.key(s): i for i, s in enumerate(SCENES)}


def render_all():
    """uint8 [n, 3, 64, 64] of every scene."""
    return torch.from_numpy(np.stack([scenes.render(s) for s in SCENES])).permute(0, 3, 1, 2).contiguous()


def pixels(images):
    """uint8 -> [-1, 1], in the memory format that convolutions are fastest in."""
    return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def to_bytes(y):
    return ((y.clamp(-1, 1) + 1) * 127.5).round()


def psnr(a, b):
    """dB per image of tensors in [-1, 1]."""
    return -10 * torch.log10(((a.clamp(-1, 1) - b) / 2).pow(2).mean((1, 2, 3)) + 1e-10)


def pack(z):
    return z.reshape(-1, 16, 4, 2, 4, 2).permute(0, 2, 4, 1, 3, 5).reshape(-1, 16, 64)


def unpack(x):
    return x.view(-1, 4, 4, 16, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(-1, 16, 8, 8)


def batches(n, size=27):
    return (slice(i, i + size) for i in range(0, n, size))


class Latents:
    """The autoencoder with 16-bit weights (as it is shipped) and what it makes of every scene.

    `packed` are normalised latents [n, 16, 64]; `worn` are those of pictures that went through decoder, bytes and encoder once more,
    which is what the second turn of a session starts from.
    """

    def __init__(self, path, images, worn=False):
        self.net = model.AutoEncoder().eval().to(memory_format=torch.channels_last)
        self.net.load_state_dict({k: v.half().float() for k, v in torch.load(path).items()})
        with torch.no_grad():
            self.raw = torch.cat([self.mean(pixels(images[i])) for i in batches(len(images))])
            self.shift, self.scale = self.raw.mean().item(), 1 / self.raw.std().item()
            self.packed = self.normalise(self.raw)
            if worn:
                again = [self.mean(pixels(to_bytes(self.net.decoder(self.raw[i])))) for i in batches(len(images))]
                self.worn = self.normalise(torch.cat(again))

    def mean(self, x):
        return self.net.encoder(x)[:, :16].contiguous()

    def normalise(self, z):
        return pack((z - self.shift) * self.scale)

    @torch.no_grad()
    def decode(self, packed):
        z = (unpack(packed) / self.scale + self.shift).contiguous(memory_format=torch.channels_last)
        return self.net.decoder(z).clamp(-1, 1).contiguous()


class Prompts:
    """Every prompt of the grammar, and the empty one, as rows of the compact vocabularies. `prompts[text]` is its index into `t5`, `clip`."""

    def __init__(self):
        from transformers import PreTrainedTokenizerFast  # not needed by those who read encoded prompts from a file
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZERS / 'tokenizer_2/tokenizer.json'), pad_token='<pad>', eos_token='</s>', unk_token='<unk>')
        self.vocab = json.loads((TOKENIZERS / 'tokenizer/vocab.json').read_text())
        merges = (TOKENIZERS / 'tokenizer/merges.txt').read_text(encoding='utf8').split('\n')[1:]
        self.rank = {tuple(x.split()): i for i, x in enumerate(merges) if x}
        r = random.Random(0)
        texts = sorted({scenes.sample_edit(r)[1] for _ in range(250_000)} | {''})
        self.index = {p: i for i, p in enumerate(texts)}
        clip = torch.tensor([self.clip_ids(p)[:CLIP_LENGTH] for p in texts])
        assert (clip[:, -1] == CLIP_END).all()
        # torch.unique sorts, so the end keeps the largest id, by which the pooled position is found
        self.t5_rows, self.t5 = torch.unique(torch.tensor([self.t5_ids(p) for p in texts]), return_inverse=True)
        self.clip_rows, self.clip = torch.unique(clip, return_inverse=True)

    def t5_ids(self, prompt):
        ids = self.tokenizer(prompt, padding='max_length', max_length=TEXT_LENGTH)['input_ids']
        assert len(ids) == TEXT_LENGTH
        return ids

    def clip_ids(self, prompt):
        """CLIP's byte-pair encoding of plain lower-case words, padded to 77 with the end."""
        out = [49406]
        for word in prompt.split():
            parts = list(word[:-1]) + [word[-1] + '</w>']
            while len(parts) > 1:
                at = min(range(len(parts) - 1), key=lambda i: self.rank.get((parts[i], parts[i + 1]), 1e9))
                if (parts[at], parts[at + 1]) not in self.rank:
                    break
                parts[at:at + 2] = [parts[at] + parts[at + 1]]
            out += [self.vocab[p] for p in parts]
        return (out + [CLIP_END] * 77)[:77]


def position_ids(t):
    at = torch.zeros(4, 4, 3)
    at[..., 0], at[..., 1], at[..., 2] = t, torch.arange(4)[:, None], torch.arange(4)
    return at.view(16, 3)


class Editor(torch.nn.Module):
    """The transformer and both text encoders, these over vocabularies of the given sizes."""

    def __init__(self, t5_vocabulary, clip_vocabulary):
        from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel
        super().__init__()
        self.flux = model.Flux()
        self.t5 = T5EncoderModel(T5Config(vocab_size=t5_vocabulary, d_model=64, d_kv=16, num_heads=4, d_ff=192, num_layers=2,
                                          feed_forward_proj='gated-gelu', dropout_rate=0., tie_word_embeddings=False))
        # eos_token_id 2 as in FLUX's own configuration: it selects the rule "position of the largest id", the first end token
        self.clip = CLIPTextModel(CLIPTextConfig(vocab_size=clip_vocabulary, hidden_size=64, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
                                                 max_position_embeddings=77, hidden_act='quick_gelu', bos_token_id=0, eos_token_id=2, pad_token_id=1, projection_dim=64))
        self.target, self.context = position_ids(0), position_ids(1)

    def text(self, t5, clip):
        return self.t5(input_ids=t5).last_hidden_state, self.clip(input_ids=clip).pooler_output

    def forward(self, z, t, context, text, pooled):
        at = self.target
        if context is not None:
            z, at = torch.cat((z, context), 1), torch.cat((at, self.context))
        return self.flux(z, at, text, t, pooled)[:, :16]


def shifted(t):
    return math.exp(MU) / (math.exp(MU) + 1 / t - 1)


@torch.no_grad()
def sample(net, text, pooled, context, noise, steps=12):
    """Euler steps from packed noise [b, 16, 64] to packed latents."""
    ts = torch.cat((shifted(torch.linspace(1, 1 / steps, steps)), torch.zeros(1)))
    z = noise
    for a, b in zip(ts[:-1], ts[1:]):
        z = z + (b - a) * net(z, a.expand(len(z)), context, text, pooled).float()
    return z


def load_editor(path, prompts):
    """The averaged weights of a training run, rounded to 16 bits as they are shipped."""
    saved = torch.load(path)
    net = Editor(len(prompts.t5_rows), len(prompts.clip_rows)).eval()
    net.load_state_dict({k: v.half().float() for k, v in saved['average'].items()})
    return net

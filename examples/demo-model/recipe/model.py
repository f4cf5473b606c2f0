"""FLUX's transformer and autoencoder in plain PyTorch, with the checkpoint's parameter names. Small and readable: for training the demo model only."""
import math

import torch
import torch.nn.functional as F
from torch import nn


def rope_table(ids, axes, theta=10000.0):
    """ids [n, 3] -> cos, sin [n, sum(axes) / 2]."""
    angle = torch.cat([ids[:, i:i + 1].double() * theta ** -(torch.arange(0, d, 2, device=ids.device).double() / d) for i, d in enumerate(axes)], 1)
    return angle.cos().float(), angle.sin().float()


def rotate(x, rope):
    """Rotates neighbouring pairs of the last axis. x [b, h, n, d]."""
    if torch.compiler.is_compiling():
        cos, sin = rope
        a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)
    return torch.view_as_real(torch.view_as_complex(x.float().unflatten(-1, (-1, 2))) * torch.complex(*rope)).flatten(-2)


def sinusoid(t, dim=256):
    f = torch.exp(-math.log(10000) * torch.arange(dim // 2, device=t.device) / (dim // 2))
    a = 1000 * t[:, None] * f
    return torch.cat((a.cos(), a.sin()), 1)


class MLPEmbedder(nn.Module):
    def __init__(self, i, d):
        super().__init__()
        self.in_layer, self.out_layer = nn.Linear(i, d), nn.Linear(d, d)

    def forward(self, x):
        return self.out_layer(F.silu(self.in_layer(x)))


class RMSNorm(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(d))

    def forward(self, x):
        x = x.float()
        return F.rms_norm(x, x.shape[-1:], self.scale, 1e-6)


class QKNorm(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.query_norm, self.key_norm = RMSNorm(d), RMSNorm(d)


class Modulation(nn.Module):
    def __init__(self, d, n):
        super().__init__()
        self.n, self.lin = n, nn.Linear(d, n * d)

    def forward(self, vec):
        return self.lin(F.silu(vec))[:, None].chunk(self.n, -1)


class SelfAttention(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.heads, self.qkv, self.norm, self.proj = heads, nn.Linear(d, 3 * d), QKNorm(d // heads), nn.Linear(d, d)

    def heads_of(self, x):
        return qkv_heads(self.qkv(x), self.heads, self.norm)


def qkv_heads(qkv, heads, norm):
    b, n, _ = qkv.shape
    q, k, v = qkv.view(b, n, 3, heads, -1).permute(2, 0, 3, 1, 4)
    return norm.query_norm(q), norm.key_norm(k), v


def attend(q, k, v, rope):
    with torch.autocast('cpu', enabled=False):  # float32: the 16-bit kernel is many times slower on a CPU without AMX
        x = F.scaled_dot_product_attention(rotate(q, rope), rotate(k, rope), v.float())
    return x.transpose(1, 2).flatten(2).to(v.dtype)


def norm(x, shift, scale):
    return (1 + scale) * F.layer_norm(x, x.shape[-1:], eps=1e-6) + shift


class DoubleBlock(nn.Module):
    def __init__(self, d, heads, ratio):
        super().__init__()
        for s in ('img', 'txt'):
            setattr(self, f'{s}_mod', Modulation(d, 6))
            setattr(self, f'{s}_attn', SelfAttention(d, heads))
            setattr(self, f'{s}_mlp', nn.Sequential(nn.Linear(d, ratio * d), nn.GELU('tanh'), nn.Linear(ratio * d, d)))

    def forward(self, img, txt, vec, rope):
        im, tm = self.img_mod(vec), self.txt_mod(vec)
        iq, ik, iv = self.img_attn.heads_of(norm(img, im[0], im[1]))
        tq, tk, tv = self.txt_attn.heads_of(norm(txt, tm[0], tm[1]))
        x = attend(torch.cat((tq, iq), 2), torch.cat((tk, ik), 2), torch.cat((tv, iv), 2), rope)
        n = txt.shape[1]
        img = img + im[2] * self.img_attn.proj(x[:, n:])
        img = img + im[5] * self.img_mlp(norm(img, im[3], im[4]))
        txt = txt + tm[2] * self.txt_attn.proj(x[:, :n])
        return img, txt + tm[5] * self.txt_mlp(norm(txt, tm[3], tm[4]))


class SingleBlock(nn.Module):
    def __init__(self, d, heads, ratio):
        super().__init__()
        self.d, self.heads = d, heads
        self.linear1, self.linear2 = nn.Linear(d, (3 + ratio) * d), nn.Linear((1 + ratio) * d, d)
        self.norm, self.modulation = QKNorm(d // heads), Modulation(d, 3)

    def forward(self, x, vec, rope):
        shift, scale, gate = self.modulation(vec)
        qkv, mlp = self.linear1(norm(x, shift, scale)).split([3 * self.d, self.linear1.out_features - 3 * self.d], -1)
        return x + gate * self.linear2(torch.cat((attend(*qkv_heads(qkv, self.heads, self.norm), rope), F.gelu(mlp, approximate='tanh')), -1))


class LastLayer(nn.Module):
    def __init__(self, d, out):
        super().__init__()
        self.linear, self.adaLN_modulation = nn.Linear(d, out), nn.Sequential(nn.SiLU(), nn.Linear(d, 2 * d))

    def forward(self, x, vec):
        shift, scale = self.adaLN_modulation(vec)[:, None].chunk(2, -1)
        return self.linear(norm(x, shift, scale))


class Flux(nn.Module):
    """Velocity [b, n, c] from latents img [b, n, c] with ids [n, 3], text [b, m, e], pooled text y [b, p], time t [b]."""

    def __init__(self, channels=64, text=64, pooled=64, d=192, heads=3, axes=(8, 28, 28), depth=2, depth_single=4, ratio=4):
        super().__init__()
        self.axes = axes
        self.img_in, self.txt_in = nn.Linear(channels, d), nn.Linear(text, d)
        self.time_in, self.vector_in = MLPEmbedder(256, d), MLPEmbedder(pooled, d)
        self.double_blocks = nn.ModuleList(DoubleBlock(d, heads, ratio) for _ in range(depth))
        self.single_blocks = nn.ModuleList(SingleBlock(d, heads, ratio) for _ in range(depth_single))
        self.final_layer = LastLayer(d, channels)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.xavier_uniform_(p)
            elif name.endswith('bias'):
                nn.init.zeros_(p)
            if 'mod.lin' in name or 'modulation.lin' in name or name.startswith('final_layer'):
                nn.init.zeros_(p)
        for block in [b for x in self.double_blocks for b in (x.img_mod, x.txt_mod)] + [x.modulation for x in self.single_blocks]:
            for i in range(2, block.n, 3):
                nn.init.constant_(block.lin.bias[i * d:(i + 1) * d].data, 0.5)  # gates start half open

    def forward(self, img, img_ids, txt, t, y):
        vec = self.time_in(sinusoid(t)) + self.vector_in(y)
        rope = rope_table(torch.cat((img_ids.new_zeros(txt.shape[1], 3), img_ids)), self.axes)
        img, txt = self.img_in(img), self.txt_in(txt)
        for block in self.double_blocks:
            img, txt = block(img, txt, vec, rope)
        x = torch.cat((txt, img), 1)
        for block in self.single_blocks:
            x = block(x, vec, rope)
        return self.final_layer(x[:, txt.shape[1]:], vec)


GROUPS = 8  # FLUX has 32 groups of 128 channels and more; 32 channels need 4 to a group as well, or flat colours are normalised away


def gn(c):
    return nn.GroupNorm(GROUPS, c, eps=1e-6)


class Resnet(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.norm1, self.conv1, self.norm2, self.conv2 = gn(i), nn.Conv2d(i, o, 3, padding=1), gn(o), nn.Conv2d(o, o, 3, padding=1)
        if i != o:
            self.nin_shortcut = nn.Conv2d(i, o, 1)

    def forward(self, x):
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return h + (self.nin_shortcut(x) if hasattr(self, 'nin_shortcut') else x)


class Attn(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm = gn(c)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(c, c, 1) for _ in range(4))

    def forward(self, x):
        h = self.norm(x)
        q, k, v = (f(h).flatten(2).transpose(1, 2)[:, None] for f in (self.q, self.k, self.v))
        return x + self.proj_out(F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape(x.shape))


class Sampler(nn.Module):
    def __init__(self, c, down):
        super().__init__()
        self.down, self.conv = down, nn.Conv2d(c, c, 3, stride=2 if down else 1, padding=0 if down else 1)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.down else F.interpolate(x, scale_factor=2, mode='nearest'))


class Stage(nn.Module):
    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def middle(c):
    return Stage(block_1=Resnet(c, c), attn_1=Attn(c), block_2=Resnet(c, c))


class Encoder(nn.Module):
    def __init__(self, ch, mult, blocks, z):
        super().__init__()
        self.conv_in, c, self.down = nn.Conv2d(3, ch, 3, padding=1), ch, nn.ModuleList()
        for level, m in enumerate(mult):
            stage = Stage(block=nn.ModuleList(Resnet(c if i == 0 else ch * m, ch * m) for i in range(blocks)), attn=nn.ModuleList())
            c = ch * m
            if level < len(mult) - 1:
                stage.downsample = Sampler(c, True)
            self.down.append(stage)
        self.mid, self.norm_out, self.conv_out = middle(c), gn(c), nn.Conv2d(c, 2 * z, 3, padding=1)

    def forward(self, x):
        h = self.conv_in(x)
        for stage in self.down:
            for block in stage.block:
                h = block(h)
            if hasattr(stage, 'downsample'):
                h = stage.downsample(h)
        h = self.mid.block_2(self.mid.attn_1(self.mid.block_1(h)))
        return self.conv_out(F.silu(self.norm_out(h)))


class Decoder(nn.Module):
    def __init__(self, ch, mult, blocks, z):
        super().__init__()
        c = ch * mult[-1]
        self.conv_in, self.mid, ups = nn.Conv2d(z, c, 3, padding=1), middle(c), []
        for level in reversed(range(len(mult))):
            o = ch * mult[level]
            stage = Stage(block=nn.ModuleList(Resnet(c if i == 0 else o, o) for i in range(blocks + 1)), attn=nn.ModuleList())
            c = o
            if level:
                stage.upsample = Sampler(c, False)
            ups.insert(0, stage)
        self.up, self.norm_out, self.conv_out = nn.ModuleList(ups), gn(c), nn.Conv2d(c, 3, 3, padding=1)

    def forward(self, z):
        h = self.mid.block_2(self.mid.attn_1(self.mid.block_1(self.conv_in(z))))
        for stage in reversed(self.up):
            for block in stage.block:
                h = block(h)
            if hasattr(stage, 'upsample'):
                h = stage.upsample(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class AutoEncoder(nn.Module):
    def __init__(self, ch=32, mult=(1, 1, 2, 4), blocks=1, z=16):
        super().__init__()
        self.encoder, self.decoder = Encoder(ch, mult, blocks, z), Decoder(ch, mult, blocks, z)

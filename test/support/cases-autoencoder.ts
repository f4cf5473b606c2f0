// Reference cases of the autoencoder, in both checkpoints' naming.

import { readFileSync } from 'node:fs';
import type { VaeSpec } from '../../kernels-codegen/src/models/autoencoder.ts';
import { columns, type Expectation, fixtureMeta, fixturePath, type ReferenceCase } from './cases.ts';
import { floatTensor, readSafetensors } from './safetensors.ts';

export function vaeSpec(): VaeSpec {
  const c = fixtureMeta('vae-bfl').config;
  return {
    channels: c.ch_mult.map((m: number) => m * c.ch),
    blocks: c.num_res_blocks,
    latentChannels: c.z_channels,
    groups: 32,
    scale: c.scale_factor,
    shift: c.shift_factor,
  };
}

/** The weights file of `vae-diffusers`: a header of its own before the bytes of `vae-bfl`. */
export function diffusersVaeFile(): Uint8Array<ArrayBuffer> {
  const bfl = readFileSync(fixturePath('vae-bfl/weights.safetensors'));
  const header = readFileSync(fixturePath('vae-diffusers/header.json'));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return Uint8Array.from(Buffer.concat([length, header, bfl.subarray(8 + Number(bfl.readBigUInt64LE(0)))]));
}

export function vaeCases(fixture: 'vae-bfl' | 'vae-diffusers'): ReferenceCase[] {
  const spec = vaeSpec();
  const io = readSafetensors(fixturePath(`${fixture}/io.safetensors`));
  const sizes = [...new Set([...io.keys()].map((k) => k.split('.')[0]!).filter((k) => /^\d+x\d+$/.test(k)))];
  return sizes.flatMap((size): ReferenceCase[] => {
    const [height, width] = size.split('x').map(Number) as [number, number];
    /** NCHW to [pixels, channels], optionally padded with zero channels. */
    const pixels = (name: string, padTo = 0): Float32Array => {
      const [, channels, h, w] = io.get(`${size}.${name}`)!.shape as [number, number, number, number];
      const data = floatTensor(io, `${size}.${name}`);
      const cols = Math.max(channels, padTo);
      const out = new Float32Array(h * w * cols);
      for (let c = 0; c < channels; c++) for (let p = 0; p < h * w; p++) out[p * cols + c] = data[c * h * w + p]!;
      return out;
    };
    /** A stored value, if this fixture has it. */
    const value = (name: string, label: string, pick?: Expectation['pick']): Expectation[] => {
      const reference = `${size}.${name}`;
      return io.has(reference) ? [{ reference, label, values: pixels(name), ...(pick ? { pick } : {}) }] : [];
    };
    const levels = (side: 'encoder' | 'decoder'): Expectation[] =>
      [...io.keys()]
        .filter((k) => k.startsWith(`${size}.mid.${side}.`))
        .flatMap((k) => value(k.slice(size.length + 1), vaeLabel(k.slice(size.length + 5), spec)));
    const latent = spec.latentChannels;
    const common = { spec, height, width, packed: false } as const;
    const encode = (
      name: string,
      o: { sample?: true },
      noise: Record<string, Float32Array>,
      expected: Expectation[],
    ) => ({
      name: `${fixture} ${size} ${name}`,
      fixture,
      request: { component: 'vae-encode' as const, ...common, input: 'tensor' as const, ...o },
      inputs: { tensor: pixels('in.image', 4), ...noise },
      expected,
    });
    const decode = (name: string, from: string, expected: Expectation[]): ReferenceCase => ({
      name: `${fixture} ${size} ${name}`,
      fixture,
      request: { component: 'vae-decode', ...common, output: 'tensor' },
      inputs: { latents: pixels(from) },
      expected,
    });
    const cases: ReferenceCase[] = [
      encode('encode', {}, {}, [
        ...levels('encoder'),
        ...value('out.moments', 'encoder.conv_out'),
        ...value('out.mean', 'encoder.conv_out', columns(2 * latent, 0, latent)),
        ...value('out.logvar_clamped', 'encoder.conv_out', (ours) =>
          columns(2 * latent, latent, latent)(ours).map((v) => Math.min(20, Math.max(-30, v))),
        ),
        ...value('out.latent', 'latents'),
      ]),
      decode('decode', 'in.z', [...levels('decoder'), ...value('out.decoded', 'tensor')]),
    ];
    if (io.has(`${size}.in.sample_noise`)) {
      const noise = { noise: pixels('in.sample_noise') };
      cases.push(encode('encode sampled', { sample: true }, noise, value('out.latent_sampled', 'latents')));
    }
    if (io.has(`${size}.out.roundtrip`)) {
      cases.push(decode('decode what was encoded', 'out.latent', value('out.roundtrip', 'tensor')));
    }
    return cases;
  });
}

/** The reference's hook names to our labels. */
function vaeLabel(name: string, spec: VaeSpec): string {
  return name
    .replace('decoder.input', 'z')
    .replace(/(encoder\.down\.\d+)\.last_block/, `$1.block.${spec.blocks - 1}`)
    .replace(/(decoder\.up\.\d+)\.last_block/, `$1.block.${spec.blocks}`)
    .replace(/\.(downsample|upsample)$/, '.$1.conv');
}

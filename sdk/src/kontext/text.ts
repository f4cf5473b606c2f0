// Prompt to what the transformer reads: T5 states for attention, the pooled CLIP vector for modulation.
// Results are cached by text, because a session repeats prompts and the encoders are the slowest part to load.

import type { Host } from '../host/module.ts';
import type { Model } from '../model/open.ts';
import { CLIP_TOKENS, cutPrompt } from './cut-prompt.ts';
import type { Parts, Work } from './parts.ts';
import { PromptTokens } from './prompt-tokens.ts';
import { checkFinite } from './stages/finite.ts';

export interface EncodedPrompt {
  /** T5 states `[maxSequenceLength, textWidth]`. */
  text: Float32Array<ArrayBuffer>;
  /** CLIP's state at the end-of-text token `[pooledWidth]`. */
  pooled: Float32Array<ArrayBuffer>;
  /** The prompt had more T5 tokens than `maxSequenceLength`; its end was not read. */
  truncated: boolean;
}

/** What each encoder reads; CLIP by itself the same as T5. */
export interface Prompt {
  t5: string;
  clip?: string | undefined;
}

/** FLUX's T5 states are 8 MiB a prompt. */
const CACHED_BYTES = 64 * 2 ** 20;

export class TextEncoders {
  readonly #tokens: PromptTokens;
  readonly #clipConfig: Record<string, unknown> | undefined;
  /** What the encoders run with beside their weights: prompts are remembered for each. */
  variant = '';
  /** In order of last use. */
  readonly #cache = new Map<string, EncodedPrompt>();

  private constructor(tokens: PromptTokens, model: Model) {
    this.#tokens = tokens;
    this.#clipConfig = model.parts.clip.config;
  }

  /** With the model's own tokenizers, or the built-in ones. @throws KontextError `tokenizer-invalid` */
  static async create(host: Host, model: Model): Promise<TextEncoders> {
    return new TextEncoders(await PromptTokens.create(host, model), model);
  }

  has(prompt: Prompt, maxSequenceLength: number): boolean {
    return this.#cache.has(this.#key(prompt, maxSequenceLength));
  }

  /** FLUX passes no attention mask: padding is read like any other token. */
  async encode(parts: Parts, prompt: Prompt, maxSequenceLength: number, work: Work): Promise<EncodedPrompt> {
    const key = this.#key(prompt, maxSequenceLength);
    const cached = this.#cache.get(key);
    if (cached) {
      this.#remember(key, cached);
      return cached;
    }
    const { ids: clipIds } = await this.#tokens.encode('clip', prompt.clip ?? prompt.t5, CLIP_TOKENS);
    const clipStates = await encode(parts, 'clip', clipIds, work);
    const width = parts.specs.clip.width;
    const end = poolingRow(clipIds, this.#clipConfig);
    const t5 = await this.#tokens.encode('t5', prompt.t5, maxSequenceLength);
    const t5States = await encode(parts, 't5', t5.ids, work);
    const encoded: EncodedPrompt = {
      text: t5States.slice(0, maxSequenceLength * parts.specs.t5.width),
      pooled: clipStates.slice(end * width, (end + 1) * width),
      truncated: t5.truncated,
    };
    this.#remember(key, encoded);
    return encoded;
  }

  /** Of what is read: the end of a very long prompt is neither compared nor kept. */
  #key({ t5, clip = t5 }: Prompt, maxSequenceLength: number): string {
    const read = [cutPrompt(t5, maxSequenceLength), cutPrompt(clip, CLIP_TOKENS)];
    return JSON.stringify([this.variant, maxSequenceLength, ...read]);
  }

  #remember(key: string, encoded: EncodedPrompt): void {
    this.#cache.delete(key);
    this.#cache.set(key, encoded);
    let bytes = 0;
    for (const { text } of this.#cache.values()) bytes += text.byteLength;
    for (const [oldest, { text }] of this.#cache) {
      if (bytes <= CACHED_BYTES || oldest === key) break;
      this.#cache.delete(oldest);
      bytes -= text.byteLength;
    }
  }

  dispose(): void {
    this.#tokens.dispose();
  }
}

async function encode(
  parts: Parts,
  component: 'clip' | 't5',
  ids: Int32Array,
  work: Work,
): Promise<Float32Array<ArrayBuffer>> {
  const executable = await parts.bind({ component, tokens: ids.length }, work);
  const embeddings = await parts.embeddings(component, ids, work.signal);
  executable.write('embeddings', embeddings);
  await parts.run(executable, work);
  const states = await executable.read('hidden');
  await checkFinite(states, `the text encoder ${component === 't5' ? 'T5' : 'CLIP'}`, () => {
    executable.write('embeddings', embeddings);
    return executable.firstUnsound({ signal: work.signal });
  });
  return states;
}

/** Configs with the end id 2, which is wrong but published, mean the position of the largest id; else the first end token. */
export function poolingRow(ids: Int32Array, config: Record<string, unknown> | undefined): number {
  const end = config?.eos_token_id ?? 2;
  return ids.indexOf(typeof end === 'number' && end !== 2 ? end : ids.reduce((a, b) => Math.max(a, b)));
}

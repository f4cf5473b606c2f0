// The two tokenizers of FLUX as typed objects over the WASM module.
// Thin on purpose: everything that decides an id is in sdk/assembly, so that other hosts get the same ids.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { ErrorTable, Host } from './module.ts';

/** Ids of a text, and whether it was longer than they are. */
export interface Encoding {
  /** `length` ids: the text's, then padding. */
  ids: Int32Array<ArrayBuffer>;
  /** Ids of the whole text before cutting and padding, begin and end tokens included. */
  count: number;
  /** Whether `count` is above `length`: the end of the text has no influence on the picture. */
  truncated: boolean;
}

const errors: ErrorTable = {
  [-2]: (at) => ['invalid-request', `The text is not valid UTF-8 at byte ${at}.`],
  [-3]: (at) => [
    'tokenizer-invalid',
    `The vocabulary table is damaged, cut off or of another kind (byte ${at}). Build it again with buildClipTable or buildT5Table.`,
  ],
  [-4]: (length) => ['invalid-request', `A length of ${length} tokens is too short.`],
};

const textEncoder = new TextEncoder();
const loneSurrogate = /\p{Surrogate}/u;

type EncodeExport = 'clipEncode' | 't5Encode';
type CreateExport = 'clipCreate' | 't5Create';

abstract class Tokenizer {
  #handle: number;

  protected constructor(
    private readonly host: Host,
    create: CreateExport,
    private readonly encodeExport: EncodeExport,
    private readonly minimum: number,
    table: Uint8Array,
  ) {
    const address = host.keep(table);
    try {
      this.#handle = host.check(host.exports[create](address, table.byteLength), errors);
    } finally {
      host.release(address);
    }
  }

  /** Frees the expanded table. Any later call throws `closed`. */
  dispose(): void {
    if (this.#handle !== 0) this.host.release(this.#handle);
    this.#handle = 0;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /**
   * Number of ids of the whole text, begin and end tokens included.
   *
   * @throws KontextError as {@link encodeWithCount}
   */
  count(text: string): number {
    return this.#run(text, 0).count;
  }

  /**
   * All ids of the text, begin and end tokens included, neither cut nor padded.
   *
   * @throws KontextError as {@link encodeWithCount}
   */
  encodeAll(text: string): Int32Array<ArrayBuffer> {
    return this.#run(text, this.count(text)).ids;
  }

  /** {@link encode} with what a caller needs to warn about a text that is too long. */
  protected encodeTo(text: string, length: number): Encoding {
    if (!Number.isInteger(length) || length < this.minimum || length > 1 << 24) {
      throw new KontextError(
        'invalid-request',
        `The length must be a whole number of tokens from ${this.minimum} to 2^24, not ${length}.`,
        {
          length,
        },
      );
    }
    return this.#run(text, length);
  }

  #run(text: string, length: number): Encoding {
    const { host } = this;
    if (this.#handle === 0) throw new KontextError('closed', 'This tokenizer was disposed. Create another one.');
    const lone = text.search(loneSurrogate);
    if (lone >= 0) {
      throw new KontextError(
        'invalid-request',
        `The text has half of a surrogate pair at index ${lone}. Remove it, or use text.toWellFormed().`,
        { index: lone },
      );
    }
    host.reset();
    const capacity = text.length * 3;
    const out = host.scratch(4 * length);
    const address = host.scratch(capacity);
    const { written } = textEncoder.encodeInto(text, host.bytes.subarray(address, address + capacity));
    const count = host.check(host.exports[this.encodeExport](this.#handle, address, written, out, length), errors);
    const ids = new Int32Array(host.exports.memory.buffer, out, length).slice();
    return { ids, count, truncated: count > length };
  }
}

/**
 * CLIP ViT-L/14's tokenizer, which makes FLUX's pooled text vector: lower-cased byte-level BPE.
 * Ids equal those of transformers' `CLIPTokenizer`.
 *
 * @see https://arxiv.org/abs/2103.00020 section 2.4
 */
export class ClipTokenizer extends Tokenizer {
  /**
   * @param table of {@link buildClipTable}
   * @throws KontextError `tokenizer-invalid` when the table is damaged
   */
  static create(host: Host, table: Uint8Array): ClipTokenizer {
    return new ClipTokenizer(host, 'clipCreate', 'clipEncode', 2, table);
  }

  /**
   * Begin token, text, end token, then end tokens as padding; a longer text is cut before its end token.
   *
   * @param options.length number of ids, 2 or more; 77 is what the text encoder was trained with
   * @throws KontextError as {@link encodeWithCount}
   */
  encode(text: string, options: { length?: number } = {}): Int32Array<ArrayBuffer> {
    return this.encodeTo(text, options.length ?? 77).ids;
  }

  /**
   * As {@link encode}, and how long the text is.
   *
   * @throws KontextError `invalid-request` for a lone surrogate or a bad length, `out-of-memory` when WASM cannot grow, `closed` after {@link dispose}
   */
  encodeWithCount(text: string, options: { length?: number } = {}): Encoding {
    return this.encodeTo(text, options.length ?? 77);
  }
}

/**
 * T5 v1.1's tokenizer, which feeds FLUX's main text encoder: SentencePiece Unigram.
 * Ids equal those of the `tokenizers` library on the checkpoint's `tokenizer.json`.
 *
 * @see https://arxiv.org/abs/1804.10959
 */
export class T5Tokenizer extends Tokenizer {
  /**
   * @param table of {@link buildT5Table}
   * @throws KontextError `tokenizer-invalid` when the table is damaged
   */
  static create(host: Host, table: Uint8Array): T5Tokenizer {
    return new T5Tokenizer(host, 't5Create', 't5Encode', 1, table);
  }

  /**
   * Text, `</s>`, then `<pad>`; a longer text is cut before its `</s>`.
   *
   * @param options.length number of ids, 1 or more; FLUX.1 Kontext uses 512
   * @throws KontextError as {@link encodeWithCount}
   */
  encode(text: string, options: { length?: number } = {}): Int32Array<ArrayBuffer> {
    return this.encodeTo(text, options.length ?? 512).ids;
  }

  /**
   * As {@link encode}, and how long the text is.
   *
   * @throws KontextError `invalid-request` for a lone surrogate or a bad length, `out-of-memory` when WASM cannot grow, `closed` after {@link dispose}
   */
  encodeWithCount(text: string, options: { length?: number } = {}): Encoding {
    return this.encodeTo(text, options.length ?? 512);
  }
}

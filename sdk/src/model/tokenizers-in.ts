// The tokenizer files that a model brings; without any the built-in vocabularies of FLUX.1 serve.
import { KontextError } from '../../../runtime/src/errors.ts';
import { type FileInput, type ModelFiles, openFile, readText } from './files.ts';

/** A vocabulary as the host module reads it, made ahead of time. */
export interface TokenizerTable {
  table: Uint8Array<ArrayBuffer>;
}

/** A model's tokenizers, as texts of files or as tables; a missing one means the built-in vocabulary. */
export interface TokenizerTexts {
  clipTokenizer?: { vocab: string; merges: string } | { tokenizerJson: string } | TokenizerTable;
  t5Tokenizer?: { tokenizerJson: string } | TokenizerTable;
}

/** Tokenizer files given one by one. */
export interface TokenizerInputs {
  /** Either of the forms in which repositories carry it; without it the built-in vocabulary of CLIP ViT-L/14 is taken. */
  clipTokenizer?:
    | {
        /** `vocab.json` */
        vocab: FileInput;
        /** `merges.txt` */
        merges: FileInput;
      }
    | {
        /** `tokenizer.json` */
        tokenizerJson: FileInput;
      };
  /** SentencePiece's vocabulary in the form of the `tokenizers` library; without it the built-in one of T5 v1.1 is taken. */
  t5Tokenizer?: {
    /** `tokenizer.json` */
    tokenizerJson: FileInput;
  };
}

/** From the folders `tokenizer` and `tokenizer_2`. @throws KontextError `tokenizer-invalid` when one file of two is missing */
export async function tokenizersIn(files: ModelFiles, signal?: AbortSignal): Promise<TokenizerTexts> {
  const text = async (name: string) => {
    const bytes = await files.open(name, signal, 'follow');
    return bytes && readText(bytes, signal);
  };
  const t5 = await text('tokenizer_2/tokenizer.json');
  const found: TokenizerTexts = t5 === undefined ? {} : { t5Tokenizer: { tokenizerJson: t5 } };
  const json = await text('tokenizer/tokenizer.json');
  if (json !== undefined) return { ...found, clipTokenizer: { tokenizerJson: json } };
  const [vocab, merges] = [await text('tokenizer/vocab.json'), await text('tokenizer/merges.txt')];
  if (vocab !== undefined && merges !== undefined) return { ...found, clipTokenizer: { vocab, merges } };
  if (vocab === undefined && merges === undefined) return found;
  const missing = vocab === undefined ? 'tokenizer/vocab.json' : 'tokenizer/merges.txt';
  throw new KontextError(
    'tokenizer-invalid',
    `The model at ${files.label} has one of CLIP’s two tokenizer files, but no ${missing}. Was it downloaded completely?`,
    { file: missing, folder: files.label },
  );
}

/** From files given one by one. */
export async function tokenizersOf(
  { clipTokenizer: clip, t5Tokenizer: t5 }: TokenizerInputs,
  signal?: AbortSignal,
): Promise<TokenizerTexts> {
  const text = async (input: FileInput) => readText(await openFile(input, signal), signal);
  return {
    ...(clip && {
      clipTokenizer:
        'vocab' in clip
          ? { vocab: await text(clip.vocab), merges: await text(clip.merges) }
          : { tokenizerJson: await text(clip.tokenizerJson) },
    }),
    ...(t5 && { t5Tokenizer: { tokenizerJson: await text(t5.tokenizerJson) } }),
  };
}

// FLUX.1's two vocabularies as they come with the package, for models that bring no tokenizer files.
// A chunk of its own (0.9 MB): nothing of it is loaded when the model has its tokenizers.

/** The table of CLIP ViT-L/14 or of T5 v1.1, as `buildClipTable` and `buildT5Table` make it. */
export async function builtInTable(name: 'clip' | 't5'): Promise<Uint8Array<ArrayBuffer>> {
  const tables = await import('./tables.generated.ts');
  const deflated = Uint8Array.from(atob(tables[name]), (char) => char.charCodeAt(0));
  const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream('deflate-raw'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

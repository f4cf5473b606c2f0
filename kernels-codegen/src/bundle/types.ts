// What a bundle of ahead-of-time programs is on disk: types only, shared by the writer and by readers without the compiler.
// Every file is JSON as `JSON.stringify` writes it, so a hash of the text can be checked on the parsed value too.

import type { BindingAccess, Program, Requirements, WeightFormat } from '../../../runtime/src/program/types.ts';
import type { Component } from '../compile.ts';
import type { Quantization } from '../plan/weight-request.ts';
import type { TargetProfile } from '../targets/types.ts';

/** Of the network specs a bundle was compiled for; a checkpoint of other sizes is refused. */
export interface BundleSpecs {
  clip: Extract<Component, { component: 'clip' }>['spec'];
  t5: Extract<Component, { component: 't5' }>['spec'];
  transformer: Extract<Component, { component: 'denoise' }>['spec'];
  vae: Extract<Component, { component: 'vae-decode' }>['spec'];
}

/** The formats that a packed or quantised model holds its matrices in, by part and tensor; absent parts hold plain floats. */
export type BundleStored = Partial<Record<keyof BundleSpecs, Readonly<Record<string, WeightFormat>>>>;

/** A component without the model's own numbers: what a program is looked up by. Small decoders for previews are not of the model. */
export type BundleShape =
  Exclude<Component, { component: 'preview-decode' }> extends infer C
    ? C extends Component
      ? Omit<C, 'spec'>
      : never
    : never;

/** One program of the bundle, with all that is needed to choose or refuse it before its file is read. */
export interface BundleEntry {
  shape: BundleShape;
  /** Name of one of the manifest's targets. */
  target: string;
  quantization: Quantization;
  label: string;
  facts: Record<string, unknown>;
  requires: Requirements;
  /** SHA-256 of the file under `programs/`; programs that differ only in label and facts share one. */
  body: string;
  /** Of that file. */
  bytes: number;
  kernels: number;
  dispatches: number;
  flops: number;
  /** Bytes; `slabs` are shared with other programs, `ports` and `weights` are its own. */
  memory: { slabs: number[]; ports: number; weights: number };
}

/** Who made a bundle; see `sdk/src/programs/signature.ts`. */
export interface BundleSignature {
  /** The only algorithm there is. */
  algorithm: 'Ed25519';
  /** Of the key pair it was signed with: 32 bytes, base64. Says which key to ask for, and proves nothing. */
  publicKey: string;
  /** 64 bytes, base64. */
  signature: string;
}

/** `manifest.json`. */
export interface BundleManifest {
  schema: number;
  /** SHA-256 of this manifest with an empty digest and without signature. */
  digest: string;
  /** Of the digest. In the manifest, because one file is replaced at one moment. */
  signature?: BundleSignature;
  model: string;
  specs: BundleSpecs;
  /** Absent when no part holds any. */
  stored?: BundleStored;
  targets: TargetProfile[];
  programs: BundleEntry[];
  modules: ModulePack[];
}

/**
 * A file of WGSL modules that the same targets use. A device loads only the packs of its target,
 * and texts that resemble each other lie side by side, which halves them when compressed.
 */
export interface ModulePack {
  /** SHA-256 of the file under `modules/`. */
  file: string;
  /** Of that file. */
  bytes: number;
  /** SHA-256 of each module in it. */
  holds: string[];
}

/** `programs/HASH.json`: a program whose kernels name their WGSL module by hash. */
export type BundleBody = Omit<Program, 'kernels' | 'label' | 'facts' | 'requires'> & {
  kernels: { label: string; module: string; bindings: BindingAccess[] }[];
};

/** `modules/HASH.json`: WGSL texts by their SHA-256. */
export type BundleModules = Record<string, string>;

/** Reads a bundle's files by their path in it. */
export interface BundleSource {
  /** For messages: where it is. */
  label: string;
  /** The parsed JSON of a file. @throws when it is not there or not JSON */
  read(path: string): Promise<unknown>;
}

// Where programs come from: compiled in the process by default, or out of a bundle made ahead of time.
// The compiler is imported only when first needed, so an app that ships bundles never loads it.
import type { CompileRequest } from '../../../kernels-codegen/src/compile.ts';
import type { VaeSpec } from '../../../kernels-codegen/src/models/autoencoder.ts';
import type { ClipSpec } from '../../../kernels-codegen/src/models/clip.ts';
import type { FluxSpec } from '../../../kernels-codegen/src/models/flux.ts';
import type { T5Spec } from '../../../kernels-codegen/src/models/t5.ts';
import type { TinyDecoderSpec } from '../../../kernels-codegen/src/models/tiny-decoder.ts';
import type { TargetProfile } from '../../../kernels-codegen/src/targets/types.ts';
import type { AdapterReport } from '../../../runtime/src/gpu/report.ts';
import type { Program } from '../../../runtime/src/program/types.ts';
import type { Model, ModelPart } from '../model/open.ts';
import type { Precision } from './options.ts';

/** What a model's networks are. */
export interface ModelSpecs {
  clip: ClipSpec;
  t5: T5Spec;
  transformer: FluxSpec;
  vae: VaeSpec;
  /** Of the small decoder for previews, when there is one and its program can be had. */
  preview?: TinyDecoderSpec;
}

/** A component at one shape for one target. */
export type ProgramRequest = CompileRequest;

/** Gives the engine its programs. */
export interface ProgramProvider {
  /** @throws KontextError `weights-invalid` when the model is not of FLUX's kind */
  specs(model: Model): Promise<ModelSpecs>;
  /** @throws KontextError `feature-missing` when the device lacks what `precision` needs */
  target(device: AdapterReport, precision: Precision): Promise<TargetProfile>;
  /** @throws KontextError `program-mismatch` when there is none for this request */
  program(request: ProgramRequest): Promise<Program>;
}

/** Compiles in this process when asked: a few milliseconds a program for small models, a tenth of a second for FLUX. */
export function justInTime(): ProgramProvider {
  return {
    async specs(model) {
      const read = await import('../../../kernels-codegen/src/models/specs.ts');
      const { checkSpecs } = await import('./spec-check.ts');
      const shapeOf = (part: ModelPart) => (name: string) => part.weights.tensors.get(name)?.shape;
      const { clip, t5, transformer, vae } = model.parts;
      const { previewDecoder } = model;
      const specs = checkSpecs(model, {
        ...(previewDecoder && {
          preview: read.tinyDecoderSpecFromShapes((name) => previewDecoder.tensors.get(name)?.shape),
        }),
        clip: clip.config ? read.clipSpecFromConfig(clip.config) : read.clipSpecFromShapes(shapeOf(clip)),
        t5: t5.config ? read.t5SpecFromConfig(t5.config) : read.t5SpecFromShapes(shapeOf(t5)),
        transformer: transformer.config
          ? read.fluxSpecFromConfig(transformer.config)
          : read.fluxSpecFromShapes(shapeOf(transformer)),
        vae: vae.config ? read.vaeSpecFromConfig(vae.config) : read.vaeSpecFromShapes(shapeOf(vae)),
      });
      const { checkParts } = await import('../model/check-parts.ts');
      checkParts(model, specs);
      return specs;
    },
    async target(device, precision) {
      const { targetFor } = await import('../../../kernels-codegen/src/targets/profiles.ts');
      return targetFor(device, precision);
    },
    async program(request) {
      const { compile } = await import('../../../kernels-codegen/src/compile.ts');
      return compile(request);
    },
  };
}

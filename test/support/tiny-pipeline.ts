// The pipeline on the tiny reference model, for a test file.
import { afterAll, expect } from 'vitest';
import type { KontextDevice } from '../../runtime/src/gpu/device.ts';
import { openDevice } from '../../runtime/src/index.ts';
import type { PipelineContext } from '../../sdk/src/kontext/pipeline.ts';
import { openModel } from '../../sdk/src/model/open.ts';
import { pipelineContext } from './pipeline-context.ts';
import { pipelineModel } from './pipeline-model.ts';

/** Opens it, and closes it after the file's last test; a WebGPU error that nobody expected fails the file. */
export async function tinyPipeline(): Promise<{ gpu: KontextDevice; context: PipelineContext }> {
  // A busy machine compiles kernels for minutes.
  const gpu = await openDevice({ hangMs: 1_500_000 });
  const model = await openModel(pipelineModel());
  afterAll(async () => {
    expect(gpu.uncapturedErrors).toEqual([]);
    gpu.destroy();
    await model.close();
  });
  return { gpu, context: await pipelineContext(gpu, model) };
}

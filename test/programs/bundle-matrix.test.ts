// Bundles for every target there is, shown to the null backend: the demo model for all of them, the real model for four.
// All sizes and quantisations of the real model take minutes: `npm run check:bundles`.

import { expect, it } from 'vitest';
import { writeBundle } from '../../kernels-codegen/src/bundle/write.ts';
import { TARGETS } from '../../kernels-codegen/src/targets/profiles.ts';
import { justInTime } from '../../sdk/src/kontext/programs.ts';
import { demoModel } from '../../sdk/src/model/demo.ts';
import { openModel } from '../../sdk/src/model/open.ts';
import { shapesFor } from '../../sdk/src/programs/shapes.ts';
import { checkMatrix, validate } from './bundle-matrix.ts';

it('the real model at one size', { timeout: 600_000 }, async () => {
  const targets = ['nvidia-matrix', 'apple-m-matrix', 'intel-xe', 'nvidia-f32'];
  const report = await checkMatrix({ sizes: [[1024, 1024]], targets, quantizations: ['q4'] });
  expect(report.validated.programs).toBeGreaterThanOrEqual(64);
  expect(report.validated.dispatches).toBeGreaterThan(5000);
  // A ninth of the token counts and a third of the quantisations: far more than this could not stay under 10 MB.
  expect(report.gzipped).toBeLessThan(0.8e6);
});

it('the demo model for every target', { timeout: 600_000 }, async () => {
  const model = await openModel(demoModel());
  const specs = await justInTime().specs(model);
  await model.close();
  const shapes = shapesFor({ sizes: [{ width: 64, height: 64 }], references: undefined, steps: [2], textTokens: 32 });
  const files = await writeBundle({ model: 'demo', specs, shapes, targets: TARGETS, quantizations: ['none', 'q4'] });
  const counts = await validate(files);
  expect(counts.programs).toBeGreaterThanOrEqual(TARGETS.length * shapes.length);
  expect(counts.structural).toBe(0);
});

// Guidance by the negative prompt inside attention (NAG): a program of its own for the steps with much noise, the plain one below.
// Chen et al. 2025, https://arxiv.org/abs/2505.21179; what each block computes stands in `kernels-codegen/src/models/flux-nag.ts`.
import type { Executable } from '../../../../runtime/src/execute/executable.ts';
import type { AttentionGuidance } from '../check-guidance.ts';
import type { Parts, ShapeRequest, Work } from '../parts.ts';
import {
  type Branch,
  branchCopies,
  denoiseShape,
  portsOf,
  type Velocity,
  type VelocityJob,
  writeScene,
} from '../velocity.ts';
import { sharedPorts } from './shared-ports.ts';

/**
 * Guided while σ is at least `sigmaEnd`. With true classifier-free guidance as well, the prompt is guided and the negative one plain.
 *
 * @param context packed latents of what the transformer sees beside the target
 * @param branches the prompt and the negative one
 */
export async function nagVelocity(
  nag: AttentionGuidance,
  parts: Parts,
  job: VelocityJob & { sigmas: Float32Array },
  context: readonly Float32Array[],
  branches: readonly Branch[],
  work: Work,
): Promise<Velocity> {
  const guided = await parts.bind(denoiseShape('denoise-nag', job) as ShapeRequest, work);
  writeScene(parts, guided, job, context);
  guided.write('nag', Float32Array.of(nag.scale, nag.tau, nag.alpha, 0));
  // Bound when first needed, on the same inputs and output.
  let plain: Executable | undefined;
  const bindPlain = async () => {
    const shape = denoiseShape('denoise', job) as ShapeRequest;
    return parts.bind(shape, work, sharedPorts(guided, (await parts.program(shape)).program));
  };
  const evaluation = async (branch: 0 | 1, at: number) => {
    const copies = branchCopies(branches[branch]!, at);
    if (branch === 0 && job.sigmas[at]! >= nag.sigmaEnd) {
      const negative = branchCopies(branches[1]!, at).map((copy) => ({ ...copy, to: `${copy.to}Negative` }));
      return { program: guided, copies: [...copies, ...negative] };
    }
    plain ??= await bindPlain();
    return { program: plain, copies };
  };
  return {
    ...portsOf(guided),
    async run(branch, at, after) {
      const { program, copies } = await evaluation(branch, at);
      return parts.run(program, work, { copies, ...(after && { after }) });
    },
    async locate(branch, at) {
      const { program, copies } = await evaluation(branch, at);
      return program.firstUnsound({ copies, signal: work.signal });
    },
    reset: () => {},
    skipped: 0,
    async dispose() {
      for (const component of ['denoise', 'denoise-nag'] as const) await parts.unbind(component);
    },
  };
}

// `npm run check:bundles`: bundles of the real model for all preferred sizes, four targets and three quantisations.
// Fails above five minutes of building, above 10 MB gzipped, or when Dawn refuses a program. `-- N` takes the first N sizes.

import { PREFERRED_KONTEXT_SIZES } from '../../sdk/src/host/sizes.ts';
import { checkMatrix } from './bundle-matrix.ts';

/** One vendor each, and three of the four tiers; the f16 tier without subgroups is only found in phones, too small for this. */
const TARGETS = ['nvidia-matrix', 'apple-m-matrix', 'intel-xe', 'nvidia-f32'];
const QUANTIZATIONS = ['f16', 'q8', 'q4'] as const;
const LIMITS = { seconds: 300, bytes: 10e6 };

const sizes = PREFERRED_KONTEXT_SIZES.slice(0, Number(process.argv[2] ?? PREFERRED_KONTEXT_SIZES.length));
console.log(
  `${sizes.length} sizes × ${TARGETS.join(', ')} × ${QUANTIZATIONS.join(', ')}, with and without a reference`,
);
const report = await checkMatrix({ sizes, targets: TARGETS, quantizations: QUANTIZATIONS }, console.log);
const { seconds, validated, programs } = report;
const share = (100 * validated.structural) / validated.dispatches;
console.log(`
build          ${seconds.wall.toFixed(1)} s, of which ${seconds.cpu.toFixed(1)} s on the CPU; at most ${LIMITS.seconds}
size           ${(report.gzipped / 1e6).toFixed(2)} MB gzipped (${(report.bytes / 1e6).toFixed(1)} MB), ${report.files} files; at most ${LIMITS.bytes / 1e6}
programs       ${programs.listed} listed, ${programs.distinct} distinct, ${report.modules} WGSL modules
null backend   ${validated.programs} programs, ${validated.dispatches} dispatches without an error
               ${validated.structural} dispatches (${share.toFixed(1)} %) and ${validated.largeKernels} kernels are above the null backend's own limits;
               their ranges and workgroups were compared with the target's limits instead`);
// One thread builds: on idle cores its CPU time is the wall time, and on busy ones the wall time says nothing.
if (seconds.cpu > LIMITS.seconds || report.gzipped > LIMITS.bytes) {
  console.error('A limit is passed.');
  process.exitCode = 1;
}

// `kontext doctor`: what the machine offers, what will run on it and why, and what to install when nothing can.
// The first thing to ask for in a bug report.
import { KontextError } from '../../../../runtime/src/errors.ts';
import { describeAdapter, openDevice } from '../../../../runtime/src/gpu/open.ts';
import type { AdapterReport } from '../../../../runtime/src/gpu/report.ts';
import { LOAD_OPTIONS, type Precision } from '../../kontext/options.ts';
import { justInTime } from '../../kontext/programs.ts';
import { defineCommand, usage } from '../grammar.ts';

export const doctor = defineCommand({
  summary: 'Say what this machine’s GPU offers, what will run on it and why, or what to install.',
  usage: [''],
  examples: ['kontext doctor'],
  flags: {
    adapter: { value: 'NAME', help: 'part of the GPU’s name' },
    precision: { value: LOAD_OPTIONS.precision.choices.join('|'), help: LOAD_OPTIONS.precision.help },
    json: { help: 'the same as JSON' },
  },
  /** @throws KontextError `webgpu-unavailable` after printing what to do; `feature-missing` */
  async run({ values, words }) {
    if (words.length > 0) throw usage(`kontext doctor takes no words, but got "${words[0]}".`);
    const adapter = values.adapter === undefined ? {} : { adapter: values.adapter };
    const system = await versions();
    let report: AdapterReport;
    try {
      report = await describeAdapter(adapter);
      // A driver may list an adapter and then fail to give a device.
      const gpu = await openDevice(adapter);
      report = gpu.report;
      gpu.destroy();
    } catch (error) {
      if (values.json) console.log(JSON.stringify({ ...system, adapter: null, problem: (error as Error).message }));
      else console.log(`${systemLines(system)}\n\nNo usable GPU.\n${installAdvice(process.platform)}\n`);
      throw error;
    }
    const target = await justInTime().target(report, (values.precision ?? 'auto') as Precision);
    const why = tierReason(report, target.tier, values.precision === 'f32');
    if (values.json) {
      console.log(JSON.stringify({ ...system, adapter: report, tier: target.tier, why }));
      return;
    }
    const limits = SHOWN_LIMITS.map((name) => `  ${name.padEnd(36)} ${amount(name, report.limits[name])}`);
    console.log(`${systemLines(system)}

Adapter   ${report.description || report.device || report.vendor}${report.isFallbackAdapter ? ' (a CPU, slow)' : ''}
          vendor ${report.vendor || 'unknown'}, architecture ${report.architecture || 'unknown'}
Features  ${report.features.join(', ')}
Subgroups ${report.subgroupSize ? `${report.subgroupSize.min} to ${report.subgroupSize.max}` : 'none'}
Limits
${limits.join('\n')}

Will run  ${target.tier}: ${why}`);
  },
});

/** What to install for a first adapter. */
export function installAdvice(platform: NodeJS.Platform): string {
  if (platform === 'linux') {
    return `Install a Vulkan driver: for AMD and Intel, and for none at all (runs on the CPU, slow)
  apt-get install mesa-vulkan-drivers        (Mesa 24 or newer; Debian 12: from bookworm-backports)
for NVIDIA the proprietary driver and libvulkan1. From a clone of the project: npm run setup.`;
  }
  if (platform === 'win32') return 'Update the graphics driver: Dawn uses Direct3D 12.';
  return 'macOS has Metal built in; virtual machines often hide it.';
}

const SHOWN_LIMITS = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
] as const;

function tierReason(report: AdapterReport, tier: string, wantsF32: boolean): string {
  const has = (feature: string) => report.features.includes(feature);
  switch (tier) {
    case 'f32':
      return wantsF32 ? 'asked for with --precision f32' : 'the adapter has no shader-f16';
    case 'f16':
      return 'f16 operands; the adapter has no subgroups';
    case 'subgroups':
      return has('chromium-experimental-subgroup-matrix')
        ? 'f16 operands and subgroup operations; no matrix shape of the adapter fits'
        : 'f16 operands and subgroup operations; the adapter has no subgroup matrices';
    default:
      return 'f16 operands and the matrix units of the GPU';
  }
}

interface System {
  node: string;
  platform: string;
  webgpu: string;
  vulkanDriver: string | undefined;
}

async function versions(): Promise<System> {
  return {
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
    webgpu: await import('webgpu').then(
      () => 'installed',
      (cause: unknown) => {
        throw new KontextError('webgpu-unavailable', 'Run: npm install webgpu', {}, { cause });
      },
    ),
    vulkanDriver: process.env.VK_DRIVER_FILES ?? process.env.VK_ICD_FILENAMES,
  };
}

function systemLines({ node, platform, webgpu, vulkanDriver }: System): string {
  return `Node      ${node} on ${platform}; package webgpu (Dawn) ${webgpu}${vulkanDriver ? `\nVulkan    driver chosen by VK_DRIVER_FILES: ${vulkanDriver}` : ''}`;
}

function amount(name: string, value: number | undefined): string {
  if (value === undefined) return 'unknown';
  return /Size$/.test(name) && value >= 2 ** 20 ? `${Math.floor(value / 2 ** 20)} MiB` : String(value);
}

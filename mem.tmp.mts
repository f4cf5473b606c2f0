import { readFileSync } from 'node:fs';
import { Kontext } from '/work/wt-trust/sdk/src/node.ts';
import { openDevice } from '/work/wt-trust/runtime/src/index.ts';
import { caughtGpu } from '/work/wt-trust/test/support/caught-gpu.ts';
import { pipelineModel } from '/work/wt-trust/test/support/pipeline-model.ts';
import { processUse } from '/work/wt-trust/test/support/process-use.ts';
const [mode, n] = [process.argv[2]!, Number(process.argv[3])];
const { gpu } = caughtGpu();
const image = { width: 64, height: 64, data: new Uint8ClampedArray(64 * 64 * 4).fill(200) };
const request = { image, prompt: 'grey', steps: 1, seed: 1, maxSequenceLength: 24, autoResize: false, size: 'input', output: 'latents' } as const;
const code = (i: number) => `@group(0) @binding(0) var<storage, read_write> b: array<f32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) { var s = 0.0; for (var i = 0u; i < 16u; i++) { s += b[id.x + i] * ${i}.0; } b[id.x] = s; }`;
async function cycle(k: number) {
  if (mode === 'device') { const d = await openDevice({ gpu }); d.destroy(); return; }
  if (mode === 'bare') { const a = (await gpu.requestAdapter())!; const d = await a.requestDevice(); d.destroy(); return; }
  if (mode.startsWith('pipe')) {
    const a = (await gpu.requestAdapter())!; const d = await a.requestDevice();
    for (let i = 0; i < 10; i++) {
      const p = await d.createComputePipelineAsync({ layout: 'auto', compute: { module: d.createShaderModule({ code: code(mode === 'pipenew' ? k * 10 + i : i) }) , entryPoint: 'main' } });
      const b = d.createBuffer({ size: 4096, usage: 0x80 });
      const g = d.createBindGroup({ layout: p.getBindGroupLayout(0), entries: [{ binding: 0, resource: { buffer: b } }] });
      const e = d.createCommandEncoder(); const s = e.beginComputePass(); s.setPipeline(p); s.setBindGroup(0, g); s.dispatchWorkgroups(1); s.end(); d.queue.submit([e.finish()]);
    }
    await d.queue.onSubmittedWorkDone();
    d.destroy(); return;
  }
  const kontext = await Kontext.load(pipelineModel(), { precision: 'f32', device: { gpu } });
  if (mode === 'edit') await kontext.edit(request);
  await kontext.close();
}
const kinds = () => {
  const sums = new Map<string, number>();
  let name = '';
  for (const line of readFileSync('/proc/self/smaps', 'utf8').split('\n')) {
    const head = /^[0-9a-f]+-[0-9a-f]+ (\S+) \S+ \S+ \S+\s*(.*)$/.exec(line);
    if (head) { const [, perm, path] = head; name = path === '[heap]' ? 'heap' : path!.startsWith('/') ? 'file' : path || (perm!.includes('x') ? 'anon-x' : 'anon'); if (name.startsWith('/memfd')) name = 'memfd'; continue; }
    const rss = /^Rss:\s+(\d+) kB/.exec(line);
    if (rss) sums.set(name, (sums.get(name) ?? 0) + Number(rss[1]) / 1000);
  }
  return [...sums].filter(([, v]) => v > 3).map(([k, v]) => `${k} ${v.toFixed(0)}`).join(' ');
};
const t0 = Date.now();
for (let k = 0; k < n; k++) {
  await cycle(k);
  if (k % Number(process.argv[4] ?? 5) === 0) {
    const use = await processUse();
    const m = process.memoryUsage();
    const mb = (x: number) => (x / 1e6).toFixed(1);
    console.log(`${mode} ${k} t${((Date.now() - t0) / 1000).toFixed(0)} threads ${use.threads} rss ${mb(use.bytes)} heap ${mb(m.heapUsed)}/${mb(m.heapTotal)} ext ${mb(m.external)} ab ${mb(m.arrayBuffers)} | ${kinds()}`);
  }
}
process.exit(0);

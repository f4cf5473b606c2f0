// Tells whether WebGPU works here: exit code 0 and the adapter's name when a small computation gives the right numbers.
// Plain JavaScript and a process of its own, because a broken driver may crash instead of reporting an error.
import { create } from 'webgpu';

// Kept in a global: Dawn crashes when this object is collected while a device lives.
globalThis.dawn = create([]);
const adapter = await globalThis.dawn.requestAdapter();
if (!adapter) {
  console.error('no adapter');
  process.exit(1);
}
const device = await adapter.requestDevice();
const module = device.createShaderModule({
  code: `@group(0) @binding(0) var<storage, read_write> x: array<u32, 64>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) { x[id.x] = id.x * id.x; }`,
});
const pipeline = await device.createComputePipelineAsync({ layout: 'auto', compute: { module } });
// Usages: STORAGE | COPY_SRC, then MAP_READ | COPY_DST.
const buffer = device.createBuffer({ size: 256, usage: 0x84 });
const result = device.createBuffer({ size: 256, usage: 0x9 });
const encoder = device.createCommandEncoder();
const pass = encoder.beginComputePass();
pass.setPipeline(pipeline);
const entries = [{ binding: 0, resource: { buffer } }];
pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
pass.dispatchWorkgroups(1);
pass.end();
encoder.copyBufferToBuffer(buffer, 0, result, 0, 256);
device.queue.submit([encoder.finish()]);
await result.mapAsync(1);
const right = new Uint32Array(result.getMappedRange()).every((value, i) => value === i * i);
console.log(right ? adapter.info.description || adapter.info.device : 'wrong numbers');
process.exit(right ? 0 : 1);

// The rival in the attention bench: three passes with the score matrix in memory, as one writes it without fusion.
// Written to be fair: 16×16 tiles in workgroup memory for both products, one row of softmax a workgroup.

/** One pass: its text, the buffers it binds (q, k, v, scores, out by number) and its grid. */
export interface PlainPass {
  wgsl: string;
  buffers: number[];
  workgroups: [number, number, number];
}

/** Scores, softmax, weighted sum for f32 `[tokens, heads·size]` matrices; `tokens` and `size` must be multiples of 16. */
export function plainAttention(tokens: number, heads: number, size: number): PlainPass[] {
  const cols = heads * size;
  const elements = tokens * cols;
  const scores = heads * tokens * tokens;
  const tiles = 'var<workgroup> tileA: array<f32, 256>;\nvar<workgroup> tileB: array<f32, 256>;';
  const open = `@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) thread: vec3<u32>) {
  let row = group.y * 16u + thread.y;
  let col = group.x * 16u + thread.x;
  let head = group.z;
  var sum = 0.0;`;
  const product = `workgroupBarrier();
    for (var i = 0u; i < 16u; i++) { sum += tileA[thread.y * 16u + i] * tileB[i * 16u + thread.x]; }
    workgroupBarrier();`;
  const bind = (i: number, access: string, name: string, length: number): string =>
    `@group(0) @binding(${i}) var<storage, ${access}> ${name}: array<f32, ${length}>;`;
  return [
    {
      wgsl: `${bind(0, 'read', 'q', elements)}
${bind(1, 'read', 'k', elements)}
${bind(2, 'read_write', 's', scores)}
${tiles}
${open}
  for (var t = 0u; t < ${size}u; t += 16u) {
    tileA[thread.y * 16u + thread.x] = q[row * ${cols}u + head * ${size}u + t + thread.x];
    tileB[thread.x * 16u + thread.y] = k[(group.x * 16u + thread.y) * ${cols}u + head * ${size}u + t + thread.x];
    ${product}
  }
  s[(head * ${tokens}u + row) * ${tokens}u + col] = sum * ${1 / Math.sqrt(size)};
}`,
      buffers: [0, 1, 3],
      workgroups: [tokens / 16, tokens / 16, heads],
    },
    {
      wgsl: `${bind(0, 'read_write', 's', scores)}
var<workgroup> part: array<f32, 64>;
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let base = (group.y * ${tokens}u + group.x) * ${tokens}u;
  var top = -3.0e38;
  for (var i = thread; i < ${tokens}u; i += 64u) { top = max(top, s[base + i]); }
  part[thread] = top;
  workgroupBarrier();
  for (var i = 0u; i < 64u; i++) { top = max(top, part[i]); }
  workgroupBarrier();
  var sum = 0.0;
  for (var i = thread; i < ${tokens}u; i += 64u) { let p = exp(s[base + i] - top); s[base + i] = p; sum += p; }
  part[thread] = sum;
  workgroupBarrier();
  sum = 0.0;
  for (var i = 0u; i < 64u; i++) { sum += part[i]; }
  for (var i = thread; i < ${tokens}u; i += 64u) { s[base + i] /= sum; }
}`,
      buffers: [3],
      workgroups: [tokens, heads, 1],
    },
    {
      wgsl: `${bind(0, 'read', 's', scores)}
${bind(1, 'read', 'v', elements)}
${bind(2, 'read_write', 'y', elements)}
${tiles}
${open}
  for (var t = 0u; t < ${tokens}u; t += 16u) {
    tileA[thread.y * 16u + thread.x] = s[(head * ${tokens}u + row) * ${tokens}u + t + thread.x];
    tileB[thread.y * 16u + thread.x] = v[(t + thread.y) * ${cols}u + head * ${size}u + col];
    ${product}
  }
  y[row * ${cols}u + head * ${size}u + col] = sum;
}`,
      buffers: [3, 2, 4],
      workgroups: [size / 16, tokens / 16, heads],
    },
  ];
}

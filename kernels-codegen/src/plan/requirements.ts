// What a device must offer for a program.
import type { BufferRange, Port, Requirements, WeightRequest } from '../../../runtime/src/program/types.ts';
import type { KernelSource } from '../kernels/kernel.ts';

/** Collects what all kernels and buffers of a program need together. */
export class RequirementSum {
  private readonly features = new Set<string>();
  private readonly limits = new Map<string, number>();
  private subgroupSize: Requirements['subgroupSize'];
  private subgroupMatrix: Requirements['subgroupMatrix'];

  add(kernel: KernelSource, bindings: BufferRange[]): void {
    const { needs, workgroups } = kernel;
    for (const feature of needs.features ?? []) this.features.add(feature);
    this.atLeast('maxComputeInvocationsPerWorkgroup', needs.invocations);
    this.atLeast('maxComputeWorkgroupSizeX', needs.invocations);
    this.atLeast('maxComputeWorkgroupStorageSize', needs.workgroupBytes);
    this.atLeast('maxStorageBuffersPerShaderStage', bindings.length);
    this.atLeast('maxComputeWorkgroupsPerDimension', Math.max(...workgroups));
    this.atLeast('maxStorageBufferBindingSize', Math.max(...bindings.map(([, , , size]) => size)));
    if (needs.subgroupSize) {
      const { min, max } = this.subgroupSize ?? { min: 1, max: 128 };
      this.subgroupSize = { min: Math.max(min, needs.subgroupSize.min), max: Math.min(max, needs.subgroupSize.max) };
    }
    this.subgroupMatrix ??= needs.subgroupMatrix;
  }

  finish(ports: Port[], slabs: number[], weights: WeightRequest[]): Requirements {
    this.atLeast('maxBufferSize', Math.max(0, ...slabs, ...[...ports, ...weights].map((b) => b.bytes)));
    return {
      features: [...this.features].sort(),
      limits: Object.fromEntries([...this.limits].sort(([a], [b]) => (a < b ? -1 : 1))),
      ...(this.subgroupSize ? { subgroupSize: this.subgroupSize } : {}),
      ...(this.subgroupMatrix ? { subgroupMatrix: this.subgroupMatrix } : {}),
    };
  }

  private atLeast(limit: string, value: number): void {
    this.limits.set(limit, Math.max(value, this.limits.get(limit) ?? 0));
  }
}

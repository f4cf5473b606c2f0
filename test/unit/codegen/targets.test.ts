// Which profile a device gets: tiers by features, and matrices where a range of subgroup sizes holds the right one.
import { expect, it } from 'vitest';
import { type DeviceFacts, targetFor } from '../../../kernels-codegen/src/targets/profiles.ts';

const amd: DeviceFacts = {
  vendor: 'amd',
  architecture: 'rdna-3',
  isFallbackAdapter: false,
  features: ['shader-f16', 'subgroups', 'subgroup-size-control', 'chromium-experimental-subgroup-matrix'],
  limits: {},
  subgroupSize: { min: 32, max: 64 },
  subgroupMatrixConfigs: [{ m: 16, n: 16, k: 16, componentType: 'f16', resultType: 'f32' }],
};
const intel: DeviceFacts = { ...amd, vendor: 'intel', subgroupSize: { min: 8, max: 32 } };

it('asks AMD for 32 lanes and Intel for 16', () => {
  const fixed = (size: number) => ({
    tier: 'subgroup-matrix',
    subgroupSize: { min: size, max: size },
    fixedSubgroupSize: true,
  });
  expect(targetFor(amd)).toMatchObject(fixed(32));
  expect(targetFor(intel)).toMatchObject(fixed(16));
  expect(targetFor({ ...intel, subgroupSize: { min: 8, max: 8 } })).toMatchObject({ tier: 'subgroup-matrix' });
  expect(targetFor({ ...intel, subgroupSize: { min: 8, max: 8 } }).fixedSubgroupSize).toBeUndefined();
});

it('falls back where sizes cannot be asked for, as in pages', () => {
  const without = (feature: string) => ({ ...amd, features: amd.features.filter((f) => f !== feature) });
  for (const feature of ['subgroup-size-control', 'chromium-experimental-subgroup-matrix']) {
    const target = targetFor(without(feature));
    expect(target).toMatchObject({ tier: 'subgroups', subgroupSize: { min: 32, max: 64 } });
    expect(target.fixedSubgroupSize).toBeUndefined();
  }
  expect(targetFor({ ...amd, subgroupSize: { min: 64, max: 64 } }).fixedSubgroupSize).toBeUndefined();
  expect(targetFor({ ...amd, subgroupSize: { min: 64, max: 128 } }).tier).toBe('subgroups');
});

it('sums in f16 on families that do two such products for one in f32', () => {
  const sums = (vendor: string, architecture = '') => targetFor({ ...amd, vendor, architecture }).packedSums;
  for (const [vendor, architecture] of [
    ['amd', 'rdna-2'],
    ['amd', 'gcn-5'],
    ['amd', ''],
    ['intel', 'gen-12lp'],
    ['qualcomm', 'adreno-7xx'],
  ] as const) {
    expect(sums(vendor, architecture), `${vendor} ${architecture}`).toBe(true);
  }
  for (const [vendor, architecture] of [
    ['amd', 'gcn-4'],
    ['nvidia', 'lovelace'],
    ['apple', 'metal-3'],
    ['arm', 'valhall'],
  ] as const) {
    expect(sums(vendor, architecture), `${vendor} ${architecture}`).toBeUndefined();
  }
});

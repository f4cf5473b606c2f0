// BullMQ queues by model and shape: a worker that has the programs of a shape looks into that shape's lane first.
// Few lanes, because each costs every worker a connection; shapes that share one only lose the preference.
import { createHash } from 'node:crypto';
import { PREFIX } from './scripts.ts';

/** Lanes a model. */
export const LANES = 4;

/** Which lane jobs of a shape wait in, 0 to {@link LANES} − 1. */
export function laneOf(shape: string): number {
  return createHash('sha256').update(shape).digest()[0]! % LANES;
}

/** Name of a lane's queue. BullMQ allows no colons, and models' names are anybody's. */
export function laneName(model: string, lane: number): string {
  return `${Buffer.from(model).toString('base64url')}-${lane}`;
}

/** Options that both sides of a lane must agree on. */
export const LANE_OPTIONS = { prefix: PREFIX } as const;

/** Width of a priority level in BullMQ's numbers, which end at 2²¹. */
const LEVEL = 200_000;

/**
 * BullMQ serves the smallest number first. Within a level a client's n-th open job goes to place n, so that who has a
 * hundred waiting does not hold up who has one.
 */
export function bullPriority(priority: number, openOfClient: number): number {
  return priority * LEVEL + Math.min(LEVEL - 1, openOfClient) + 1;
}

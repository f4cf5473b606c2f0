// From an amount of memory to a mode and a quantisation, before anything is loaded.
import { heldFormats } from '../model/formats.ts';
import type { Model } from '../model/open.ts';
import { budgetBytes, fitting, type Setting } from './budget.ts';
import type { MemoryBudget, MemoryMode, Quantization } from './options.ts';
import type { PlanContext, PlannedRequest } from './plan.ts';
import { checkRequest } from './request.ts';
import { chooseSizes } from './sizes.ts';
import type { ImageSize } from './types.ts';

/** What `Kontext.load` was given. */
export interface WantedSetting {
  memory: MemoryMode | MemoryBudget;
  quantization: Quantization;
}

/** @throws KontextError `out-of-memory` naming the amount that would do */
export async function chooseSetting(context: PlanContext, wanted: WantedSetting): Promise<Setting> {
  const { memory, quantization } = wanted;
  const budget = budgetBytes(memory);
  if (budget === undefined) return { memory: memory as MemoryMode, quantization };
  const { planModel } = await import('./plan.ts');
  const request = plannedRequest(context.model, {});
  const { choices } = await planModel(context, request, quantization, leavesChoice(context.model, quantization));
  return fitting(choices, budget, describe(context.model, request));
}

/** Whether storage may be chosen: a packed model has its own, and what an app asks for it gets. */
export function leavesChoice(model: Model, quantization: Quantization): boolean {
  const { stored, weights } = model.parts.transformer;
  return quantization === 'auto' && stored === undefined && heldFormats(weights) === undefined;
}

/** The defaults of a model: its squarest preferred size, edited from one reference of the same size. */
export function plannedRequest(
  model: Model,
  wanted: { size?: ImageSize; references?: readonly ImageSize[]; steps?: number; maxSequenceLength?: number },
): PlannedRequest {
  const { size = 'auto' as const, references, steps, maxSequenceLength } = wanted;
  const numbers = {
    ...(steps !== undefined && { steps }),
    ...(maxSequenceLength !== undefined && { maxSequenceLength }),
  };
  const checked = checkRequest({ prompt: 'plan', size, ...numbers }, model.defaults);
  const { target } = chooseSizes({ size, maxArea: undefined, autoResize: true }, [], model.defaults);
  return {
    size: target,
    references: references ?? [target],
    steps: checked.steps,
    maxSequenceLength: checked.maxSequenceLength,
  };
}

export function describe(model: Model, { size, references }: PlannedRequest): string {
  const from = references.length === 0 ? '' : ` from ${references.length} reference${references.length > 1 ? 's' : ''}`;
  return `${model.label} at ${size.width}×${size.height}${from}`;
}

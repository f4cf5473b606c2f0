// `Kontext.plan`: what a model will need, from its headers and an adapter that is only asked what it is.
import { findAdapter } from '../../../runtime/src/gpu/open.ts';
import { type ModelSource, openModel } from '../model/open.ts';
import { resolveSource } from '../model/resolve.ts';
import { openPrograms } from '../programs/sources.ts';
import { openShelf, refuseMergeOfNothing } from './adapters/open-shelf.ts';
import type { AdapterShelf } from './adapters/shelf.ts';
import { budgetBytes, fitting } from './budget.ts';
import { describe, leavesChoice, plannedRequest } from './choose-setting.ts';
import { deviceOptions } from './device-options.ts';
import { refuseUnknown } from './known-options.ts';
import { checkChoices, checkPacked, type KontextPlan, PLAN_KEYS, type PlanOptions } from './load-options.ts';

/** @throws KontextError as `Kontext.load`; `out-of-memory` when nothing fits an amount of `memory` */
export async function planFor(source: ModelSource, options: PlanOptions = {}): Promise<KontextPlan> {
  refuseUnknown(options, PLAN_KEYS, 'Kontext.plan');
  refuseMergeOfNothing(options);
  const { precision, quantization } = checkChoices(options);
  const { hub, access, onDownload, signal } = options;
  const { provider, trusted } = openPrograms(options.programs);
  const adapter = await findAdapter(deviceOptions(options.device, trusted));
  const model = await openModel(
    await resolveSource(source, { ...hub, signal, access, onProgress: onDownload, headersOnly: true }),
    signal,
  );
  let shelf: AdapterShelf | undefined;
  try {
    checkPacked(model, options);
    const plain = plannedRequest(model, options);
    const { nagScale, nagSigmaEnd, cache, maskShare } = options;
    const edited = [nagScale, nagSigmaEnd, cache, maskShare].some((value) => value !== undefined);
    const request = edited ? await (await import('./plan-editing.ts')).withEditing(model, plain, options) : plain;
    const { planModel } = await import('./plan.ts');
    if (options.adapters?.length) shelf = await openShelf(model, options);
    const adapters = await shelf?.planned(signal);
    const context = { model, provider, device: adapter.report, precision, adapters };
    const plan = await planModel(context, request, quantization, leavesChoice(model, quantization));
    const budget = budgetBytes(options.memory);
    return budget === undefined ? plan : { ...plan, chosen: fitting(plan.choices, budget, describe(model, request)) };
  } finally {
    await shelf?.close();
    await model.close();
  }
}

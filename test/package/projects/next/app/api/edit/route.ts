// The Node entry in a route: the engine on Dawn.
import { demoModel, Kontext, KontextError } from 'kontext-webgpu';

export const dynamic = 'force-dynamic';

export async function GET() {
  try {
    const kontext = await Kontext.load(demoModel());
    const { vendor, architecture } = kontext.adapter!;
    await kontext.close();
    return Response.json({ vendor, architecture });
  } catch (error) {
    return Response.json({ code: error instanceof KontextError ? error.code : String(error) });
  }
}

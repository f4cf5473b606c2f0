// The strokes of a mask, kept as what was drawn and not as pixels: they can be taken back, and drawn at any size.
import type { PixelImage } from '../image/pixels.ts';

/** What draws a stroke. */
export type MaskTool = 'brush' | 'eraser' | 'rectangle';

/** One stroke, in pixels of the picture. A rectangle has two points, opposite corners. */
export interface Stroke {
  tool: MaskTool;
  /** Width of the line. */
  size: number;
  points: { x: number; y: number }[];
}

type Context = CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D;

/** Draws strokes as coverage: opaque where the mask is, transparent elsewhere. */
export function drawStrokes(context: Context, strokes: readonly Stroke[], scaleX: number, scaleY: number): void {
  context.save();
  context.scale(scaleX, scaleY);
  context.lineCap = context.lineJoin = 'round';
  for (const { tool, size, points } of strokes) {
    context.globalCompositeOperation = tool === 'eraser' ? 'destination-out' : 'source-over';
    const [first, ...rest] = points;
    const last = points.at(-1);
    if (!first || !last) continue;
    if (tool === 'rectangle') {
      const [left, top] = [Math.min(first.x, last.x), Math.min(first.y, last.y)];
      context.fillRect(left, top, Math.abs(last.x - first.x), Math.abs(last.y - first.y));
      continue;
    }
    // A line of no length is not drawn, so each begins with a dot.
    context.beginPath();
    context.arc(first.x, first.y, size / 2, 0, 2 * Math.PI);
    context.fill();
    context.beginPath();
    context.lineWidth = size;
    context.moveTo(first.x, first.y);
    for (const { x, y } of rest) context.lineTo(x, y);
    context.stroke();
  }
  context.restore();
}

/** The mask as a request takes it: white where drawn, of the picture's size; undefined where nothing is left of the strokes. */
export function maskOf(strokes: readonly Stroke[], width: number, height: number): PixelImage | undefined {
  const context = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true })!;
  context.fillStyle = context.strokeStyle = '#ffffff';
  drawStrokes(context, strokes, 1, 1);
  context.globalCompositeOperation = 'destination-over';
  context.fillStyle = '#000000';
  context.fillRect(0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  for (let i = 0; i < data.length; i += 4) {
    if (data[i]! > 0) return { width, height, data: data as PixelImage['data'] };
  }
  return undefined;
}

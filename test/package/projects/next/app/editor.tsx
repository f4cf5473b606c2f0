'use client';
// The element in TSX, with its types; the worker's client by its name. Both are imported on the server, too.
import 'kontext-webgpu/react';
import { Kontext } from 'kontext-webgpu/worker';
import { useEffect, useRef } from 'react';
import type { KontextEditor } from 'kontext-webgpu/element';

export function Editor() {
  const editor = useRef<KontextEditor>(null);
  useEffect(() => {
    Object.assign(globalThis, { app: { Kontext } });
  }, []);
  return (
    <kontext-editor
      ref={editor}
      model="/model/"
      steps={4}
      strings={{ edit: 'Go' }}
      onkontext-open={({ detail }) => Object.assign(globalThis, { opened: detail.image.width })}
    />
  );
}

// An app as Vite and webpack build it: the worker client and the element by their names, nothing configured.
import 'kontext-webgpu/element';
import { Kontext, toBlob } from 'kontext-webgpu/worker';

globalThis.app = { Kontext, toBlob };

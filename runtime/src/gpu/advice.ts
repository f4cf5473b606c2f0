// What a visitor of a page can do where there is no WebGPU or no adapter, by what the browser says of itself.
// Loaded only when it is needed. Who has WebGPU since when: https://github.com/gpuweb/gpuweb/wiki/Implementation-Status

/** What of a page decides the advice. */
export interface PageFacts {
  /** As `navigator.userAgent`. */
  userAgent: string;
  /** As `isSecureContext`: https, or localhost. */
  secure: boolean;
  /** As `navigator.maxTouchPoints`: an iPad calls itself a Mac. */
  touchPoints: number;
}

/** What is missing: the whole interface, or a graphics adapter behind it. */
export type Lack = 'webgpu' | 'adapter';

/** Two sentences: what is missing, and what this visitor can do. */
export function visitorAdvice(lack: Lack, facts: PageFacts): string {
  if (lack === 'webgpu' && !facts.secure) {
    return 'Browsers offer WebGPU on secure pages only. Open this page over https (or from localhost).';
  }
  const platform = platformOf(facts);
  const start =
    lack === 'webgpu'
      ? 'This browser has no WebGPU, which this page computes with.'
      : 'This browser has WebGPU, but found no graphics adapter for it.';
  if (isEmbedded(facts.userAgent)) {
    return `${start} The page is shown inside another app: open it in ${platform === 'ios' ? 'Safari' : 'Chrome'} instead.`;
  }
  return `${start} ${ADVICE[lack][platform](/Firefox\//.test(facts.userAgent))}`;
}

/** The facts of the page or worker that this runs in. */
export function pageFacts(): PageFacts {
  const { userAgent = '', maxTouchPoints = 0 } = (globalThis.navigator ?? {}) as Partial<Navigator>;
  return { userAgent, secure: globalThis.isSecureContext !== false, touchPoints: maxTouchPoints };
}

type Platform = 'windows' | 'mac' | 'linux' | 'chromeos' | 'android' | 'ios' | 'other';

function platformOf({ userAgent, touchPoints }: PageFacts): Platform {
  if (/iPhone|iPad|iPod/.test(userAgent)) return 'ios';
  if (/Android/.test(userAgent)) return 'android';
  if (/CrOS/.test(userAgent)) return 'chromeos';
  if (/Windows/.test(userAgent)) return 'windows';
  if (/Macintosh/.test(userAgent)) return touchPoints > 1 ? 'ios' : 'mac';
  return /Linux|X11/.test(userAgent) ? 'linux' : 'other';
}

/** Views of pages inside other apps lag behind the browser, or switch WebGPU off. */
const isEmbedded = (userAgent: string): boolean => /; wv\)|FBAN|FBAV|Instagram|\bLine\/|MicroMessenger/.test(userAgent);

const ACCELERATION =
  'In its settings, under System, switch on graphics acceleration, restart it, and update the graphics driver.';

const ADVICE: Record<Lack, Record<Platform, (firefox: boolean) => string>> = {
  webgpu: {
    windows: () => 'Update it, or use a current Chrome, Edge or Firefox.',
    mac: () =>
      'Use a current Chrome or Edge; Safari has it from macOS 26 on, Firefox on Macs with Apple silicon, each in its current version.',
    linux: (firefox) =>
      firefox
        ? 'Firefox for Linux may not have it yet: use a current Chrome, or Firefox Nightly.'
        : 'Use a current Chrome: it has WebGPU on newer Intel and NVIDIA graphics, on others after switching on chrome://flags/#enable-unsafe-webgpu.',
    chromeos: () => 'Update the system: Chrome has had WebGPU since version 113.',
    android: (firefox) =>
      firefox
        ? 'Firefox for Android may not have it yet: use a current Chrome on Android 12 or newer.'
        : 'Use a current Chrome on Android 12 or newer.',
    ios: () => 'Update the device to iOS or iPadOS 26 or newer: all browsers there get WebGPU from the system.',
    other: () => 'Use a current Chrome, Edge, Firefox or Safari.',
  },
  adapter: {
    windows: () => ACCELERATION,
    mac: () =>
      'Switch on graphics acceleration in the browser’s settings and restart it; update macOS, which brings the graphics driver.',
    linux: (firefox) =>
      firefox
        ? 'Install a Vulkan driver for your graphics card and switch on hardware acceleration in the settings under Performance.'
        : 'Install a Vulkan driver for your graphics card, then switch on chrome://flags/#enable-unsafe-webgpu and chrome://flags/#enable-vulkan and restart the browser.',
    chromeos: () => ACCELERATION,
    android: () => 'It takes Android 12 or newer and a graphics chip that Chrome supports. Update Android and Chrome.',
    ios: () => 'Update the device, and switch off Lockdown Mode for this page, which turns WebGPU off.',
    other: () => ACCELERATION,
  },
};

// What visitors without WebGPU read: by platform, and never a command for an administrator.
import { describe, expect, it } from 'vitest';
import { type Lack, type PageFacts, visitorAdvice } from '../../../runtime/src/gpu/advice.ts';

const AGENTS = {
  'Chrome on Windows':
    'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/112.0.0.0 Safari/537.36',
  'Safari on a Mac':
    'Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15',
  'Chrome on Linux':
    'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36',
  'Firefox on Linux': 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0',
  'Chrome on Android':
    'Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/119.0.0.0 Mobile Safari/537.36',
  'Firefox on Android': 'Mozilla/5.0 (Android 14; Mobile; rv:140.0) Gecko/140.0 Firefox/140.0',
  'an app on Android':
    'Mozilla/5.0 (Linux; Android 14; Pixel 8 Build/A; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/126.0 Mobile Safari/537.36',
  'Safari on an iPhone':
    'Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1',
  'a Chromebook':
    'Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/112.0.0.0 Safari/537.36',
  'nothing known': '',
};

const advice = (lack: Lack, agent: keyof typeof AGENTS, facts: Partial<PageFacts> = {}) =>
  visitorAdvice(lack, { userAgent: AGENTS[agent], secure: true, touchPoints: 0, ...facts });

describe('visitorAdvice', () => {
  it.each([
    ['Chrome on Windows', /current Chrome, Edge or Firefox/, /System.*graphics acceleration/],
    ['Safari on a Mac', /macOS 26/, /graphics acceleration.*macOS/],
    ['Chrome on Linux', /enable-unsafe-webgpu/, /Vulkan driver.*enable-vulkan/],
    ['Firefox on Linux', /Nightly/, /Vulkan driver.*Performance/],
    ['Chrome on Android', /Android 12/, /Android 12/],
    ['Firefox on Android', /Firefox for Android.*Chrome/, /Android 12/],
    ['an app on Android', /inside another app.*Chrome/, /inside another app.*Chrome/],
    ['Safari on an iPhone', /iPadOS 26/, /Lockdown Mode/],
    ['a Chromebook', /113/, /graphics acceleration/],
    ['nothing known', /Chrome, Edge, Firefox or Safari/, /graphics acceleration/],
  ] as const)('says in %s what its visitor can do', (agent, webgpu, adapter) => {
    expect(advice('webgpu', agent)).toMatch(webgpu);
    expect(advice('adapter', agent)).toMatch(adapter);
    for (const lack of ['webgpu', 'adapter'] as const) expect(advice(lack, agent)).not.toMatch(/\b(apt|npm|sudo)\b/);
  });

  it('takes a Mac with a touch screen for the iPad it is', () => {
    expect(advice('webgpu', 'Safari on a Mac', { touchPoints: 5 })).toMatch(/iPadOS 26/);
  });

  it('blames the address of an insecure page', () => {
    expect(advice('webgpu', 'Chrome on Windows', { secure: false })).toMatch(/https/);
    expect(advice('adapter', 'Chrome on Windows', { secure: false })).not.toMatch(/https/);
  });
});

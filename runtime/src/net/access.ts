// Which hosts may be asked: a list of names, and no address inside the operator's own network.
// A server that fetches what its users name would otherwise fetch its cloud's metadata for them.
import { KontextError } from '../errors.ts';
import { shownUrl } from './retry.ts';

/** Bounds on the addresses that are fetched; redirects are held to them too. */
export interface AccessPolicy {
  /** Hosts that may be asked: `example.com`, `*.example.com` for what lies below it, `example.com:8080` for one port. Default all. */
  allowHosts?: readonly string[];
  /** `refuse` for addresses that came with a request: loopback, private, link-local and reserved ones are then not asked. Default `allow`. */
  privateAddresses?: 'allow' | 'refuse';
}

/** @throws KontextError `download-failed` for a scheme other than http(s), a host that is not listed, or a private address */
export function checkAccess(url: URL, policy: AccessPolicy = {}): void {
  if (url.protocol !== 'https:' && url.protocol !== 'http:') {
    throw refused(url, `only http and https are fetched, not ${url.protocol}`);
  }
  const { allowHosts } = policy;
  if (allowHosts && !allowHosts.some((pattern) => matchesHost(url, pattern.toLowerCase()))) {
    throw refused(url, 'its host is not in allowHosts');
  }
  if (policy.privateAddresses === 'refuse' && isPrivateHost(url.hostname)) throw refused(url, PRIVATE);
}

/** @throws KontextError `download-failed` when a resolved address is private */
export function checkAddress(url: URL, address: string): void {
  if (isPrivateAddress(address)) throw refused(url, PRIVATE);
}

const PRIVATE = 'it is an address of a private network';

function refused(url: URL, why: string): KontextError {
  const shown = shownUrl(url.href);
  return new KontextError('download-failed', `${shown} is not fetched: ${why}.`, { url: shown, refused: true });
}

function matchesHost(url: URL, pattern: string): boolean {
  const withPort = /:\d+$/.test(pattern) && !pattern.endsWith(']');
  const host = withPort ? `${url.hostname}:${url.port || (url.protocol === 'https:' ? 443 : 80)}` : url.hostname;
  return pattern.startsWith('*.') ? host.endsWith(pattern.slice(1)) : host === pattern;
}

/** By name or literal address; what a name resolves to is for whoever connects to check. */
function isPrivateHost(hostname: string): boolean {
  const name = hostname.toLowerCase().replace(/\.$/, '');
  if (name.startsWith('[')) return isPrivateAddress(name.slice(1, -1));
  if (/^[\d.]+$/.test(name)) return isPrivateAddress(name);
  return !name.includes('.') || /\.(localhost|local|internal|lan|home|corp|intranet|home\.arpa)$/.test(name);
}

/** Whether an IPv4 or IPv6 address is not one of the public internet (IANA's special-purpose registries). */
export function isPrivateAddress(address: string): boolean {
  const v4 = ipv4(address);
  if (v4 !== undefined) return PRIVATE_V4.some(([base, bits]) => v4 >>> (32 - bits) === ipv4(base)! >>> (32 - bits));
  const groups = ipv6(address);
  // What cannot be read is not trusted.
  if (!groups) return true;
  const [a, b] = groups as [number, number];
  const last = ((groups[6]! << 16) | groups[7]!) >>> 0;
  const dotted = [last >>> 24, (last >>> 16) & 255, (last >>> 8) & 255, last & 255].join('.');
  // IPv4 inside IPv6: mapped, compatible, translated (64:ff9b::/96).
  if (groups.slice(0, 5).every((g) => g === 0)) return groups[5] === 0xffff ? isPrivateAddress(dotted) : true;
  if (a === 0x64 && b === 0xff9b) return groups.slice(2, 6).some((g) => g !== 0) || isPrivateAddress(dotted);
  // 6to4 carries an IPv4 address in its second and third group.
  if (a === 0x2002) return isPrivateAddress([b >>> 8, b & 255, groups[2]! >>> 8, groups[2]! & 255].join('.'));
  // Everything public lies in 2000::/3; Teredo, documentation and benchmarking are exceptions inside it.
  return a >>> 13 !== 1 || (a === 0x2001 && (b < 0x200 || b === 0xdb8)) || a === 0x3fff;
}

const PRIVATE_V4: readonly [string, number][] = [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 3],
];

function ipv4(text: string): number | undefined {
  const parts = text.split('.');
  if (parts.length !== 4 || !parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) < 256)) return undefined;
  return parts.reduce((sum, part) => sum * 256 + Number(part), 0);
}

/** Eight groups; undefined when it is no IPv6 address. */
function ipv6(text: string): number[] | undefined {
  let rest = text.replace(/%.*$/, '');
  const tail = /:(\d+\.\d+\.\d+\.\d+)$/.exec(rest)?.[1];
  if (tail) {
    const value = ipv4(tail);
    if (value === undefined) return undefined;
    rest = `${rest.slice(0, -tail.length)}${(value >>> 16).toString(16)}:${(value & 0xffff).toString(16)}`;
  }
  const halves = rest.split('::');
  if (halves.length > 2) return undefined;
  const groups = halves.map((half) => (half === '' ? [] : half.split(':')));
  if (!groups.flat().every((group) => /^[\da-f]{1,4}$/i.test(group))) return undefined;
  const [before, after = []] = groups as [string[], string[]?];
  const missing = 8 - before.length - after.length;
  if (halves.length === 1 ? missing !== 0 : missing < 1) return undefined;
  return [...before, ...Array<string>(missing).fill('0'), ...after].map((group) => Number.parseInt(group, 16));
}

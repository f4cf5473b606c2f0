// Who made a bundle: an Ed25519 signature of the manifest's digest, which covers every program and kernel by their hashes.
// Loaded only by those who sign or name a key. RFC 8032; by WebCrypto, which Node, Deno and current browsers have.
import type { BundleSignature } from '../../../kernels-codegen/src/bundle/types.ts';
import { KontextError } from '../../../runtime/src/errors.ts';

/** An Ed25519 public key: PEM, base64 of its 32 bytes or of its SPKI form, either as bytes, or a `CryptoKey`. */
export type PublicKey = string | Uint8Array | CryptoKey;

/** @returns base64 of the 32 bytes. @throws KontextError `invalid-request` when it is no Ed25519 public key */
export async function publicKeyText(key: PublicKey): Promise<string> {
  return base64(new Uint8Array(await crypto.subtle.exportKey('raw', await publicKey(key))));
}

/**
 * @param privateKey PKCS#8 in PEM, as `openssl genpkey -algorithm ed25519` writes it
 * @param digest of the manifest
 * @throws KontextError `invalid-request` when the key is none; never quotes it
 */
export async function signBundle(privateKey: string, digest: string): Promise<BundleSignature> {
  try {
    // Extractable, because the public half is read off its JWK form.
    const key = await crypto.subtle.importKey('pkcs8', fromPem(privateKey, 'PRIVATE KEY'), 'Ed25519', true, ['sign']);
    const { x } = await crypto.subtle.exportKey('jwk', key);
    const signature = new Uint8Array(await crypto.subtle.sign('Ed25519', key, message(digest)));
    return {
      algorithm: 'Ed25519',
      publicKey: base64(fromBase64(x!.replaceAll('-', '+').replaceAll('_', '/'))),
      signature: base64(signature),
    };
  } catch {
    throw new KontextError(
      'invalid-request',
      'The signing key is no Ed25519 private key in PEM. Make one with: openssl genpkey -algorithm ed25519 -out key.pem',
    );
  }
}

/**
 * @param signature what the manifest holds, from outside; undefined when there is none
 * @param digest of the manifest, which has been compared with the manifest itself
 * @throws KontextError `program-invalid` unless one of `keys` signed it; `invalid-request` for a key that is none; `feature-missing`
 *   where the platform lacks Ed25519
 */
export async function verifyBundle(
  label: string,
  digest: string,
  signature: unknown,
  keys: readonly PublicKey[],
): Promise<void> {
  const imported = await Promise.all(keys.map(publicKey));
  const refused = (problem: string) =>
    new KontextError(
      'program-invalid',
      `${label} ${problem}. Sign it with kontext compile --sign, name the right publicKey, or leave publicKey out: it then runs with bounds checks.`,
    );
  if (signature === undefined) throw refused('is not signed');
  const bytes = signatureBytes(signature);
  if (!bytes) throw refused(`has a signature that is no Ed25519 signature`);
  for (const key of imported) if (await crypto.subtle.verify('Ed25519', key, bytes, message(digest))) return;
  throw refused('is not signed by a key that was named');
}

/** The digest under a name of its own, so that a signature made for something else says nothing about a bundle. */
const message = (digest: string) => new TextEncoder().encode(`kontext-webgpu bundle\n${digest}`);

function signatureBytes(value: unknown): Uint8Array<ArrayBuffer> | undefined {
  const { algorithm, signature } = (value ?? {}) as Partial<Record<string, unknown>>;
  if (algorithm !== 'Ed25519' || typeof signature !== 'string') return undefined;
  try {
    const bytes = fromBase64(signature);
    return bytes.length === 64 ? bytes : undefined;
  } catch {
    return undefined;
  }
}

/** SPKI of an Ed25519 key is this, then the key (RFC 8410). */
const SPKI = Uint8Array.of(0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00);

async function publicKey(key: PublicKey): Promise<CryptoKey> {
  if (typeof CryptoKey !== 'undefined' && key instanceof CryptoKey) {
    if (key.algorithm.name === 'Ed25519' && key.type === 'public') return key;
    throw badKey();
  }
  const raw = rawKey(key as string | Uint8Array);
  try {
    return await crypto.subtle.importKey('raw', raw, 'Ed25519', true, ['verify']);
  } catch (cause) {
    if ((cause as Error).name !== 'NotSupportedError') throw badKey();
    throw new KontextError(
      'feature-missing',
      'This platform cannot check Ed25519 signatures. Leave publicKey out: the bundle then runs with bounds checks.',
      { feature: 'Ed25519' },
      { cause },
    );
  }
}

function rawKey(key: string | Uint8Array): Uint8Array<ArrayBuffer> {
  try {
    const bytes =
      typeof key !== 'string'
        ? Uint8Array.from(key)
        : key.includes('-----')
          ? fromPem(key, 'PUBLIC KEY')
          : fromBase64(key);
    if (bytes.length === 32) return bytes;
    if (bytes.length === 44 && SPKI.every((byte, i) => bytes[i] === byte)) return bytes.slice(SPKI.length);
  } catch {
    // Not base64: refused below.
  }
  throw badKey();
}

const badKey = () =>
  new KontextError(
    'invalid-request',
    'publicKey is no Ed25519 public key: give its PEM, base64 of its 32 bytes, or a CryptoKey.',
    { option: 'publicKey' },
  );

function fromPem(text: string, kind: string): Uint8Array<ArrayBuffer> {
  const body = new RegExp(`-----BEGIN ${kind}-----([\\sA-Za-z0-9+/=]+)-----END ${kind}-----`).exec(text)?.[1];
  if (body === undefined) throw new Error(`no ${kind}`);
  return fromBase64(body.replaceAll(/\s/g, ''));
}

const fromBase64 = (text: string) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));

const base64 = (bytes: Uint8Array) => btoa(String.fromCharCode(...bytes));

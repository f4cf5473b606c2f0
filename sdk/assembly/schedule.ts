// Sigma schedules of rectified flow and the logit-normal distribution of its training timesteps.
// Sigmas are computed in float32 in the order of the reference pipeline, so they are its numbers to the last bit.

// Coefficients of AS 241, highest power first.
const MIDDLE_TOP = memory.data<f64>([
  2509.0809287301227, 33430.57558358813, 67265.7709270087, 45921.95393154987,
  13731.69376550946, 1971.5909503065513, 133.14166789178438, 3.3871328727963665,
]);
const MIDDLE_BOTTOM = memory.data<f64>([
  5226.495278852854, 28729.085735721943, 39307.89580009271, 21213.794301586597,
  5394.196021424751, 687.1870074920579, 42.31333070160091, 1.0,
]);
const TAIL_TOP = memory.data<f64>([
  0.0007745450142783414, 0.022723844989269184, 0.2417807251774506, 1.2704582524523684,
  3.6478483247632045, 5.769497221460691, 4.630337846156546, 1.4234371107496835,
]);
const TAIL_BOTTOM = memory.data<f64>([
  1.0507500716444169e-09, 0.0005475938084995345, 0.015198666563616457, 0.14810397642748008,
  0.6897673349851, 1.6763848301838038, 2.053191626637759, 1.0,
]);
const FAR_TOP = memory.data<f64>([
  2.0103343992922881e-07, 2.7115555687434876e-05, 0.0012426609473880784, 0.026532189526576124,
  0.29656057182850487, 1.7848265399172913, 5.463784911164114, 6.657904643501103,
]);
const FAR_BOTTOM = memory.data<f64>([
  2.0442631033899397e-15, 1.421511758316446e-07, 1.8463183175100548e-05, 0.0007868691311456133,
  0.014875361290850615, 0.1369298809227358, 0.599832206555888, 1.0,
]);

/**
 * Writes `linspace(1, 1 / steps, steps)` as float32, the unshifted schedule without its final 0.
 *
 * @param out address of `steps` float32 values
 */
export function linearSigmas(out: usize, steps: u32): void {
  const stop = 1 / <f64>steps;
  const step = steps > 1 ? (stop - 1) / <f64>(steps - 1) : 0;
  for (let i: u32 = 0; i < steps; i++) {
    store<f32>(out + (i << 2), <f32>(i > 0 && i == steps - 1 ? stop : <f64>i * step + 1));
  }
}

/**
 * The shift exponent for an image of `tokens` patches: the line through (baseTokens, baseShift) and (maxTokens,
 * maxShift), continued outside them (black-forest-labs/flux, `get_lin_function`).
 */
export function dynamicMu(tokens: f64, baseTokens: f64, maxTokens: f64, baseShift: f64, maxShift: f64): f64 {
  const slope = (maxShift - baseShift) / (maxTokens - baseTokens);
  return tokens * slope + (baseShift - slope * baseTokens);
}

/** sigma := e^mu / (e^mu + (1 / sigma - 1)), in place (Esser et al. 2024, section 5.3.2, with shift = e^mu). */
export function shiftExponential(sigmas: usize, count: u32, mu: f64): void {
  const factor = <f32>Math.exp(mu);
  for (let i: u32 = 0; i < count; i++) {
    const sigma = load<f32>(sigmas + (i << 2));
    store<f32>(sigmas + (i << 2), factor / (factor + ((<f32>1) / sigma - <f32>1)));
  }
}

/** sigma := shift * sigma / (1 + (shift - 1) * sigma), in place (Esser et al. 2024, equation 23). */
export function shiftStatic(sigmas: usize, count: u32, shift: f64): void {
  const factor = <f32>shift;
  const less = <f32>(shift - 1);
  for (let i: u32 = 0; i < count; i++) {
    const sigma = load<f32>(sigmas + (i << 2));
    store<f32>(sigmas + (i << 2), (factor * sigma) / (<f32>1 + less * sigma));
  }
}

/** Density at t of sigmoid(mean + std * normal) (Esser et al. 2024, equation 19); 0 outside (0, 1). */
export function logitNormalDensity(t: f64, mean: f64, std: f64): f64 {
  if (!(t > 0 && t < 1)) return 0;
  const z = (Math.log(t) - Math.log1p(-t) - mean) / std;
  return Math.exp(-0.5 * z * z) / (std * Math.sqrt(2 * Math.PI) * t * (1 - t));
}

/** The t below which a share `q` of the distribution lies. */
export function logitNormalQuantile(q: f64, mean: f64, std: f64): f64 {
  return sigmoid(mean + std * normalQuantile(q));
}

/** value := sigmoid(value), in place on float32: turns normal draws into logit-normal timesteps. */
export function sigmoidInPlace(values: usize, count: u32): void {
  for (let i: u32 = 0; i < count; i++) {
    store<f32>(values + (i << 2), <f32>sigmoid(<f64>load<f32>(values + (i << 2))));
  }
}

function sigmoid(x: f64): f64 {
  return 1 / (1 + Math.exp(-x));
}

/**
 * The standard normal quantile to about 16 digits: algorithm AS 241, PPND16 (Wichura, Applied Statistics 37, 1988).
 * Three rational functions: the middle 85 %, the tails down to e^-25, and beyond.
 */
function normalQuantile(p: f64): f64 {
  const q = p - 0.5;
  if (Math.abs(q) <= 0.425) {
    const r = 0.180625 - q * q;
    return (q * horner8(r, MIDDLE_TOP)) / horner8(r, MIDDLE_BOTTOM);
  }
  const tail = Math.min(p, 1 - p);
  if (tail <= 0) return q < 0 ? -Infinity : Infinity;
  const r = Math.sqrt(-Math.log(tail));
  const x = r <= 5 ? horner8(r - 1.6, TAIL_TOP) / horner8(r - 1.6, TAIL_BOTTOM) : horner8(r - 5, FAR_TOP) / horner8(r - 5, FAR_BOTTOM);
  return q < 0 ? -x : x;
}

function horner8(x: f64, coefficients: usize): f64 {
  let sum = load<f64>(coefficients);
  for (let i: usize = 8; i < 64; i += 8) sum = sum * x + load<f64>(coefficients + i);
  return sum;
}


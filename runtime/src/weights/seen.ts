// What loading and its kernels agree on, apart from both: the kernels are loaded with the first chunk that needs one.

/** Bytes of a kernel's uniform buffer. */
export const PARAMS_BYTES = 64;

/** Bits of a checked kernel's word. A damaged file rarely has neither: NaN and infinities, or nothing but zeros. */
export const SEEN = { notFinite: 1, notZero: 2 } as const;

// Where both tokenizers write their ids: a buffer of fixed length that counts on when it is full.
// So one call gives the padded ids and tells whether the text was cut.

let out: usize = 0;
let capacity: i32 = 0;
let count: i32 = 0;

/** Starts writing to the `length` i32 at `ids`. */
export function begin(ids: usize, length: i32): void {
  out = ids;
  capacity = length;
  count = 0;
}

// @ts-ignore: decorator
@inline
export function emit(id: i32): void {
  if (count < capacity) store<i32>(out + 4 * count, id);
  count++;
}

/** Ends with `eos`, which also replaces the last id of a text that is too long; pads; returns the count before the cut. */
export function end(eos: i32, pad: i32): i32 {
  emit(eos);
  if (count > capacity && capacity > 0) store<i32>(out + 4 * (capacity - 1), eos);
  for (let i = count; i < capacity; i++) store<i32>(out + 4 * i, pad);
  return count;
}

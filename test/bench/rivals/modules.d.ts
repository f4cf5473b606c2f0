// What the contenders use of the rivals' packages. Declared here, so that type checks pass where they are not installed.

declare module '@tensorflow/tfjs-core' {
  export interface Tensor {
    shape: number[];
    data(): Promise<Float32Array<ArrayBuffer>>;
    dispose(): void;
    reshape(shape: number[]): Tensor;
    transpose(axes: number[]): Tensor;
    add(other: Tensor | number): Tensor;
    sub(other: Tensor | number): Tensor;
    mul(other: Tensor | number): Tensor;
    div(other: Tensor | number): Tensor;
    square(): Tensor;
    sqrt(): Tensor;
    tanh(): Tensor;
    mean(axis: number, keepDims: boolean): Tensor;
    softmax(): Tensor;
  }
  export function tensor(values: Float32Array, shape: number[]): Tensor;
  export function matMul(a: Tensor, b: Tensor, transposeA?: boolean, transposeB?: boolean): Tensor;
  export function slice(x: Tensor, begin: number[], size: number[]): Tensor;
  export function concat(tensors: Tensor[], axis: number): Tensor;
  export function conv2d(x: Tensor, filter: Tensor, strides: number, pad: 'same'): Tensor;
  export function tidy(work: () => Tensor): Tensor;
  export function setBackend(name: string): Promise<boolean>;
  export function ready(): Promise<void>;
}

declare module '@tensorflow/tfjs-core/dist/public/chained_ops/register_all_chained_ops' {}

declare module '@tensorflow/tfjs-backend-webgpu' {}

declare module '@jax-js/jax' {
  export interface Array {
    /** The same array for one more use: every function takes its operands' memory. */
    readonly ref: Array;
    data(): Promise<Float32Array<ArrayBuffer>>;
    reshape(shape: number[]): Array;
    transpose(axes?: number[]): Array;
    add(other: Array | number): Array;
    sub(other: Array | number): Array;
    mul(other: Array | number): Array;
    div(other: Array | number): Array;
    mean(axis: number, options: { keepdims: boolean }): Array;
    slice(...index: (number | [] | [number, number])[]): Array;
  }
  type Arrays = Record<string, Array>;
  export function init(device: string): Promise<string[]>;
  export function defaultDevice(device: string): string;
  export function jit(work: (weights: Arrays, inputs: Arrays) => Array): (weights: Arrays, inputs: Arrays) => Array;
  export const numpy: {
    array(values: Float32Array, options: { shape: number[] }): Array;
    matmul(a: Array, b: Array): Array;
    concatenate(arrays: Array[], axis: number): Array;
    square(x: Array): Array;
    sqrt(x: Array): Array;
  };
  export const nn: {
    gelu(x: Array, options: { approximate: boolean }): Array;
    dotProductAttention(q: Array, k: Array, v: Array): Array;
  };
  export const lax: {
    conv(x: Array, filter: Array, strides: number[], padding: 'SAME'): Array;
  };
}

/** The only file in which permits are made: holding one is the proof that a command was judged and recorded. */

/** Of the type alone: nobody else can name it, so nobody else can make what has it. */
declare const seal: unique symbol;

/** Proof that a command may be sent upstream. `number` is the command's number in the recording. */
export interface Permit {
  readonly [seal]: true;
  readonly kind: "permit";
  readonly number: number;
}

/** Made by the guard after the verdict and the record; nobody else calls this (see the import table). */
export function makePermit(number: number): Permit {
  // A real symbol as a key costs a call of the runtime for each command.
  return { kind: "permit", number } as Permit;
}

/** Documents and a command in, a verdict out. No I/O, no clock, no sockets. */
export type * from "./model.ts";

/** For scenarios that speak SSH as no honest client would. */
export { signingKeyOf } from "./keys.ts";
export { hostKeysFrom, logIn } from "./log-in.ts";
export { encoded, type Field, made, message, Reader } from "./messages.ts";
export { Transport } from "./transport.ts";

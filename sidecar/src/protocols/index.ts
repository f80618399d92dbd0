/** The protocols that this build speaks, one line each. */
import { kubernetes } from "./kubernetes/index.ts";
import { postgres } from "./postgres/index.ts";
import type { Protocol } from "./protocol.ts";

export const protocols: readonly Protocol[] = [postgres, kubernetes];

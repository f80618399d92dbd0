/** The protocols that this build speaks, one line each. */
import { kubernetes } from "./kubernetes/index.ts";
import { postgres } from "./postgres/index.ts";
import type { Protocol } from "./protocol.ts";
import { ssh } from "./ssh/index.ts";

export const protocols: readonly Protocol[] = [postgres, ssh, kubernetes];

/** The operator: reconciles what users declare, and serves admission and gateways. */
import { runOperator } from "./run.ts";

process.exitCode = await runOperator();

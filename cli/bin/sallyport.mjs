#!/usr/bin/env node
// Runs the command line from its sources; images hold the bundle that `make build` writes instead.
import { register } from "tsx/esm/api";

register();
await import("../src/main.ts");

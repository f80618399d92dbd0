#!/usr/bin/env node
/** `sallyport`: the command line, and the gateway's own entry. */
import { runCli } from "./program.ts";
import { processTerminal } from "./terminal.ts";

process.exitCode = await runCli(process.argv.slice(2), processTerminal());

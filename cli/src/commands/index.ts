/**
 * The commands, one line each. A command's file is loaded when it is called, and what is heavy in it (the SQL parser,
 * token signing, the gateway) when its action runs, so that `sallyport --help` answers at once.
 */
import type { Command } from "commander";
import type { Invocation } from "../terminal.ts";

/** Adds a command's arguments, options and action. */
export type Configure = (command: Command, invocation: Invocation) => Promise<void> | void;

/** A command that `sallyport` knows. */
export interface CommandEntry {
  readonly name: string;
  readonly summary: string;
  readonly load: () => Promise<{ readonly configure: Configure }>;
}

/** Every command, in the order in which help lists them. */
export const commands: readonly CommandEntry[] = [
  { name: "gateway", summary: "run the gateway", load: () => import("./gateway.ts") },
  {
    name: "recorder",
    summary: "run the recorder, which keeps what gateways record",
    load: () => import("./recorder.ts"),
  },
  { name: "token", summary: "issue a short-lived token, or make a key", load: () => import("./token.ts") },
  {
    name: "login",
    summary: "get a short-lived certificate for ssh",
    load: () => import("./login.ts"),
  },
  {
    name: "kubeconfig",
    summary: "write a context for kubectl that leads through a gateway",
    load: () => import("./kubeconfig.ts"),
  },
  {
    name: "audit",
    summary: "look for what goes past the gateways",
    load: () => import("./audit.ts"),
  },
  {
    name: "validate",
    summary: "find every problem in a folder of manifests",
    load: () => import("./validate.ts"),
  },
  { name: "policy", summary: "test and explain policies", load: () => import("./policy.ts") },
  {
    name: "classify",
    summary: "propose tags for the columns of a live database",
    load: () => import("./classify.ts"),
  },
  {
    name: "approvals",
    summary: "list requests that wait for approval",
    load: () => import("./approvals.ts"),
  },
  { name: "approve", summary: "approve a request", load: () => import("./approve.ts") },
  { name: "deny", summary: "deny a request", load: () => import("./deny.ts") },
  { name: "revoke", summary: "take an approval back", load: () => import("./revoke.ts") },
  { name: "request", summary: "ask for access for a while", load: () => import("./request.ts") },
  { name: "wait", summary: "wait until a request is decided", load: () => import("./wait.ts") },
  { name: "sessions", summary: "list recorded sessions", load: () => import("./sessions.ts") },
  { name: "replay", summary: "show what happened in a session", load: () => import("./replay.ts") },
  { name: "verify", summary: "prove that recordings are unchanged", load: () => import("./verify.ts") },
  {
    name: "completion",
    summary: "write a completion script for a shell",
    load: () => import("./completion.ts"),
  },
  { name: "version", summary: "show the version", load: () => import("./version.ts") },
];

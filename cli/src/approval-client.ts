/** Approvals on the command line: what a gateway on this machine is asked over its socket, with the person's own token. */
import { readFile } from "node:fs/promises";
import { request } from "node:http";
import { join } from "node:path";
import { type Command, Option } from "commander";
import { CliFailure } from "./failure.ts";
import { exitCodes, type Terminal } from "./terminal.ts";
import { inFolder } from "./values.ts";

/** Which gateway is asked, and by whom. */
export interface GatewayOptions {
  readonly state?: string;
  readonly tokenFile?: string;
  /** A cluster is asked where one of these is given. */
  readonly namespace?: string;
  readonly kubeconfig?: string;
}

/** A request as the gateway tells it. */
export interface ApprovalView {
  readonly name: string;
  readonly type: "Statement" | "Access";
  readonly resource: string;
  readonly requester: string;
  readonly subjectKind: string;
  readonly onBehalfOf?: string;
  readonly phase: "Pending" | "Approved" | "Used" | "Denied" | "Expired" | "Cancelled" | "Revoked";
  readonly progress: string;
  readonly command?: string;
  readonly parameters?: readonly string[];
  /** What the command's text does not say; in a cluster the command's own notes do. */
  readonly context?: readonly { readonly label: string; readonly text: string }[];
  readonly reason?: string;
  readonly inTransaction: boolean;
  readonly policies: readonly {
    readonly policy: string;
    readonly rule: string;
    readonly required: number;
    readonly grant: string;
  }[];
  readonly decisions: readonly {
    readonly approver: string;
    readonly decision: string;
    readonly comment?: string;
  }[];
  readonly createdAt: string;
  readonly expiresAt: string;
}

/** Adds the options that say which gateway, and who asks. */
export function withGateway(command: Command): Command {
  return command
    .addOption(
      new Option(
        "--state <dir>",
        "folder of state of a gateway on this machine; default: ./sallyport-state",
      ).env("SALLYPORT_STATE"),
    )
    .option("--token-file <file>", "file with your own token for that gateway; default: SALLYPORT_TOKEN")
    .option("-n, --namespace <namespace>", "in a cluster: the Approval's namespace; default: the context's")
    .option(
      "--kubeconfig <file>",
      "in a cluster: who you are and where; default: KUBECONFIG, ~/.kube/config",
    );
}

/** Asks the gateway; what it refuses ends the command with exit code 1. */
export async function askGateway<Body>(
  options: GatewayOptions,
  terminal: Terminal,
  ask: { readonly method: "GET" | "POST"; readonly path: string; readonly body?: object },
): Promise<Body> {
  const token = await tokenFor(options, terminal);
  const state = options.state ?? "./sallyport-state";
  const folder = inFolder(terminal.cwd, state);
  const { status, text } = await exchange(join(folder, "approvals/socket"), token, ask).catch(
    (cause: unknown) => {
      throw new CliFailure(`no gateway answers in ${state}`, {
        next:
          "Give --state DIR, the state folder of a running gateway that was started with --approvers; " +
          "in a cluster give -n NAMESPACE.",
        cause,
      });
    },
  );
  const body = JSON.parse(text) as { readonly message?: string; readonly reason?: string };
  if (status === 200) return body as Body;
  throw new CliFailure(body.message ?? "the gateway refused", {
    next: nextFor(body.reason, status),
    exitCode: exitCodes.finding,
  });
}

function nextFor(reason: string | undefined, status: number): string {
  if (status === 401) return "Use a token of your own for this resource (see `sallyport token`).";
  if (reason === "SelfApproval") return "Somebody else must decide.";
  if (reason === "Closed" || reason === "AlreadyDecided") return "See `sallyport approvals --all`.";
  return "See `sallyport approvals`.";
}

async function tokenFor({ tokenFile }: GatewayOptions, terminal: Terminal): Promise<string> {
  const given = tokenFile === undefined ? process.env.SALLYPORT_TOKEN : await read(tokenFile, terminal);
  const token = given?.trim() ?? "";
  if (/^[\x21-\x7e]+$/.test(token)) return token;
  throw new CliFailure("your own token is needed", {
    next: "Set SALLYPORT_TOKEN, or give --token-file FILE; a token in an argument would be seen by others.",
  });
}

function read(file: string, terminal: Terminal): Promise<string> {
  return readFile(inFolder(terminal.cwd, file), "utf8").catch((cause: unknown) => {
    throw new CliFailure(`cannot read ${file}`, { next: "Name a file that holds your token.", cause });
  });
}

function exchange(
  socketPath: string,
  token: string,
  { method, path, body }: { readonly method: string; readonly path: string; readonly body?: object },
): Promise<{ readonly status: number; readonly text: string }> {
  return new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
    const sent = request({ socketPath, method, path, headers, timeout: 10_000 }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (piece: string) => {
        text += piece;
        if (text.length > answerCharactersMax) response.destroy(new Error("the answer is too long"));
      });
      response.on("end", () => resolve({ status: response.statusCode ?? 0, text }));
      response.on("error", reject);
    });
    sent.on("timeout", () => sent.destroy(new Error("no answer in time")));
    sent.on("error", reject);
    sent.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

const answerCharactersMax = 128 * 1024 * 1024;

/** The path of one request. */
export const approvalPath = (name: string): string => `/v1/approvals/${encodeURIComponent(name)}`;

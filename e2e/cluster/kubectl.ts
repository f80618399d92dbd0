import { spawn } from "node:child_process";

/** What a command printed, and how it ended. */
export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs kubectl with one kubeconfig. */
export interface Kubectl {
  readonly program: string;
  readonly kubeconfig: string;
  /** Resolves to what it printed; rejects with its error text when it fails. */
  (...argv: readonly string[]): Promise<string>;
  /** The same, with something on its standard input. */
  withInput(input: string, ...argv: readonly string[]): Promise<string>;
  /** Never rejects for what kubectl says: for tests that expect a refusal. */
  try(input: string | undefined, ...argv: readonly string[]): Promise<CommandResult>;
  /** Server-side apply of manifests, YAML or objects. */
  apply(manifests: string | readonly object[]): Promise<string>;
  /** `get -o json`, parsed. */
  json<T>(...argv: readonly string[]): Promise<T>;
}

/**
 * What passes by itself: the account of a new namespace is still being made, the way to the webhook of an operator that was
 * just replaced leads nowhere yet, kinds that were just defined are not served yet, or a busy API server gives up.
 * None of it is an answer about the object, and to apply it once more is harmless.
 */
export const passes = new RegExp(
  [
    ...["error looking up service account", "failed calling webhook", "no matches for kind"],
    ...["the object has been modified", "Too Many Requests", "currently unable to handle the request"],
    ...["etcdserver: ", "connection refused", "connection reset by peer", "TLS handshake timeout"],
    ...["i/o timeout", "unexpected EOF", "client connection lost", "context deadline exceeded"],
  ].join("|"),
);

/** A kubectl that speaks as the user of a kubeconfig. */
export function createKubectl(program: string, kubeconfig: string): Kubectl {
  const attempt = (input: string | undefined, ...argv: readonly string[]) =>
    run(program, ["--kubeconfig", kubeconfig, ...argv], input);
  const must = async (input: string | undefined, argv: readonly string[]) => {
    const { code, stdout, stderr } = await attempt(input, ...argv);
    if (code !== 0) throw new Error(`kubectl ${argv.join(" ")} (exit ${code}): ${stderr.trim()}`);
    return stdout;
  };
  return Object.assign((...argv: readonly string[]) => must(undefined, argv), {
    ...{ program, kubeconfig },
    withInput: (input: string, ...argv: readonly string[]) => must(input, argv),
    try: attempt,
    apply: async (manifests: string | readonly object[]) => {
      const text =
        typeof manifests === "string"
          ? manifests
          : JSON.stringify({ apiVersion: "v1", kind: "List", items: manifests });
      const deadline = Date.now() + 30_000;
      for (;;) {
        try {
          return await must(text, ["apply", "--server-side", "--field-manager=e2e", "-f", "-"]);
        } catch (error) {
          if (Date.now() > deadline || !passes.test(String(error))) throw error;
          await new Promise((resolve) => setTimeout(resolve, 250));
        }
      }
    },
    json: async <T>(...argv: readonly string[]) =>
      JSON.parse(await must(undefined, ["get", "-o", "json", ...argv])) as T,
  });
}

/** A token of a service account as a pod would get it (TokenRequest); makes the account and its namespace if need be. */
export async function requestToken(
  kubectl: Kubectl,
  request: { readonly namespace: string; readonly name: string; readonly audiences: readonly string[] },
): Promise<string> {
  const { namespace, name, audiences } = request;
  await kubectl.apply([
    { apiVersion: "v1", kind: "Namespace", metadata: { name: namespace } },
    { apiVersion: "v1", kind: "ServiceAccount", metadata: { name, namespace } },
  ]);
  const flags = audiences.map((audience) => `--audience=${audience}`);
  return (await kubectl("create", "token", name, "--namespace", namespace, ...flags)).trim();
}

/** No program that is run here takes this long, unless it hangs. */
const hangsMs = 600_000;

/** Runs a program to its end. */
export async function run(
  program: string,
  argv: readonly string[],
  input?: string,
  environment: Readonly<Record<string, string>> = {},
): Promise<CommandResult> {
  const child = spawn(program, argv, {
    stdio: ["pipe", "pipe", "pipe"],
    env: { ...process.env, ...environment },
    ...{ timeout: hangsMs, killSignal: "SIGKILL" },
  });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  // A program that does not read its input closes it early; how it ends says the rest.
  child.stdin.on("error", () => {});
  child.stdin.end(input ?? "");
  const code = await new Promise<number>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (status) => resolve(status ?? -1));
  });
  return { code, stdout, stderr };
}

/** Runs a program that has to succeed. */
export async function must(program: string, argv: readonly string[], input?: string): Promise<void> {
  const { code, stderr } = await run(program, argv, input);
  if (code !== 0) throw new Error(`${program} ${argv.join(" ")} (exit ${code}): ${stderr.trim()}`);
}

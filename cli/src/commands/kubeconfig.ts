/**
 * `sallyport kubeconfig`: a context for kubectl that leads through a gateway, with this program as its credential plugin
 * (client.authentication.k8s.io/v1), so that no token stands in the kubeconfig.
 */
import { mkdir, readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { text } from "node:stream/consumers";
import { type Command, InvalidArgumentError } from "commander";
import { CliFailure } from "../failure.ts";
import { type OutputFormat, printable, withOutput, writeJson } from "../output.ts";
import { replacePrivately } from "../private-file.ts";
import { exitCodes, type Invocation, type Terminal } from "../terminal.ts";
import { type CachedToken, cachedToken, defaultTokenFolder, keepToken, usableToken } from "../token-cache.ts";
import { inFolder, parseResource, type ResourceName } from "../values.ts";

interface KubeconfigOptions {
  readonly resource: ResourceName;
  readonly server?: string;
  readonly ca?: string;
  readonly tlsServerName?: string;
  readonly context?: string;
  readonly namespace?: string;
  readonly kubeconfig?: string;
  readonly command: string;
  readonly tokenFile?: string;
  readonly folder: string;
  readonly issuer?: string;
  readonly clientId?: string;
  readonly scope: string;
  readonly credential?: true;
  readonly output: OutputFormat;
}

const apiVersion = "client.authentication.k8s.io/v1";
/** How long somebody may take to confirm a code. */
const confirmMs = 10 * 60_000;

/** Adds options and action. */
export function configure(command: Command, { terminal }: Invocation): void {
  withOutput(command)
    .description(
      "write a context for kubectl that leads through a gateway; kubectl asks this program for tokens",
    )
    .requiredOption("--resource <ns/name>", "the resource, of protocol kubernetes", parseResource)
    .option("--server <url>", "the gateway: https://host:port", parseServer)
    .option("--ca <file>", "the gateway's authorities, PEM (status.caBundle of the resource)")
    .option("--tls-server-name <name>", "the name in its certificate, where --server has another")
    .option("--context <name>", "name of context, cluster and user; default: sallyport-NAMESPACE-NAME")
    .option("--namespace <name>", "the context's namespace")
    .option("--kubeconfig <file>", "the file to write; default: as kubectl finds it")
    .option("--command <program>", "how kubectl starts this program", "sallyport")
    .option("--token-file <file>", "a token to keep for it; default: SALLYPORT_TOKEN, or standard input")
    .option("--folder <dir>", "where tokens are kept", defaultTokenFolder)
    .option("--issuer <url>", "provider that gives tokens by a device code, when there is none or it is over")
    .option("--client-id <id>", "this program's name at that provider")
    .option("--scope <scopes>", "what is asked of that provider", "openid")
    .option("--credential", "be the plugin: write an ExecCredential")
    .addHelpText("after", example)
    .action((options: KubeconfigOptions) =>
      options.credential === true ? giveCredential(options, terminal) : writeContext(options, terminal),
    );
}

const example = `
Examples:
  kubectl get pres cluster -n access -o jsonpath='{.status.caBundle}' > ca.pem
  sallyport kubeconfig --resource access/cluster --server https://gateway.example.com:6443 --ca ca.pem < token
  kubectl --context sallyport-access-cluster get pods`;

async function writeContext(options: KubeconfigOptions, terminal: Terminal): Promise<void> {
  const { resource, server, output } = options;
  if (server === undefined || options.ca === undefined) {
    throw new CliFailure("the gateway's address or authorities are missing", {
      next: "Give --server https://host:port and --ca FILE.",
    });
  }
  const authorities = await readFile(inFolder(terminal.cwd, options.ca), "utf8").catch((cause: unknown) => {
    throw new CliFailure(`cannot read ${options.ca}`, {
      next: "Name the file of the gateway's authorities.",
      cause,
    });
  });
  if (!authorities.includes("-----BEGIN CERTIFICATE-----")) {
    throw new CliFailure(`${options.ca} holds no certificate`, { next: "Name a PEM file of certificates." });
  }
  const given = await givenToken(options, terminal);
  if (given !== "") {
    if (usableToken(given, terminal.now()) === undefined) {
      throw new CliFailure("the token cannot be used: it is none, or it has expired", {
        next: "Get a new one (see `sallyport token`).",
      });
    }
    await keepToken(inFolder(terminal.cwd, options.folder), resource, given);
  }
  const name = options.context ?? `sallyport-${resource.namespace}-${resource.name}`;
  const file = kubeconfigFile(options, terminal);
  await edit(file, name, {
    cluster: {
      server,
      "certificate-authority-data": Buffer.from(authorities).toString("base64"),
      ...(options.tlsServerName && { "tls-server-name": options.tlsServerName }),
    },
    user: { exec: execOf(options, terminal) },
    context: { cluster: name, user: name, ...(options.namespace && { namespace: options.namespace }) },
  });
  if (output === "json") writeJson(terminal, { kubeconfig: file, context: name, server });
  else terminal.out(`Wrote ${file}. Try: kubectl --context ${name} auth whoami\n`);
}

/** What kubectl runs whenever it has no token, or an old one. */
function execOf(options: KubeconfigOptions, terminal: Terminal): object {
  const { resource, issuer, clientId, folder, scope } = options;
  if ((issuer === undefined) !== (clientId === undefined)) {
    throw new CliFailure("a provider is named by two options", {
      next: "Give --issuer and --client-id together.",
    });
  }
  return {
    apiVersion,
    command: options.command,
    args: [
      ...["kubeconfig", "--credential", "--resource", `${resource.namespace}/${resource.name}`],
      ...(folder === defaultTokenFolder ? [] : ["--folder", inFolder(terminal.cwd, folder)]),
      ...(issuer && clientId ? ["--issuer", issuer, "--client-id", clientId, "--scope", scope] : []),
    ],
    interactiveMode: "IfAvailable",
    provideClusterInfo: false,
    installHint: "kubectl needs the program `sallyport` on its path.",
  };
}

async function giveCredential(options: KubeconfigOptions, terminal: Terminal): Promise<void> {
  const found = (await heldToken(options, terminal)) ?? (await confirmedToken(options, terminal));
  if (found === undefined) {
    const named = `${options.resource.namespace}/${options.resource.name}`;
    throw new CliFailure(`there is no token for ${named}, or it has expired`, {
      next: `Keep a new one: sallyport kubeconfig --resource ${named} --server … --ca … < token`,
      exitCode: exitCodes.finding,
    });
  }
  const { token, expiresAt } = found;
  const status = {
    token,
    ...(expiresAt !== undefined && {
      expirationTimestamp: new Date(expiresAt).toISOString().replace(/\.\d+Z$/, "Z"),
    }),
  };
  terminal.out(`${JSON.stringify({ apiVersion, kind: "ExecCredential", status })}\n`);
}

async function heldToken(options: KubeconfigOptions, terminal: Terminal): Promise<CachedToken | undefined> {
  const now = terminal.now();
  const file = options.tokenFile && inFolder(terminal.cwd, options.tokenFile);
  const given = file ? await readFile(file, "utf8").catch(() => "") : (process.env.SALLYPORT_TOKEN ?? "");
  return (
    usableToken(given, now) ??
    (await cachedToken(inFolder(terminal.cwd, options.folder), options.resource, now))
  );
}

/** Asks the provider, where a person is there to confirm; kubectl says whether one is. */
async function confirmedToken(
  options: KubeconfigOptions,
  terminal: Terminal,
): Promise<CachedToken | undefined> {
  const { issuer, clientId, scope, resource } = options;
  if (issuer === undefined || clientId === undefined || !isInteractive()) return undefined;
  const { beginDeviceLogin } = await import("@sallyport/sidecar/device-login");
  const signal = AbortSignal.any([terminal.stop, AbortSignal.timeout(confirmMs)]);
  const audience = `sallyport:${resource.namespace}/${resource.name}`;
  const failed = (cause: unknown) =>
    new CliFailure("the provider gives no token", { next: "Check --issuer and --client-id.", cause });
  try {
    const asked = { issuer, clientId, scope, resource: audience, token: "access_token" } as const;
    const login = await beginDeviceLogin(asked, signal);
    terminal.err(`To go on, open ${printable(login.url)} and confirm the code ${printable(login.code)}\n`);
    const token = usableToken((await login.token(signal)) ?? "", terminal.now());
    if (token === undefined) return undefined;
    await keepToken(inFolder(terminal.cwd, options.folder), resource, token.token);
    return token;
  } catch (error) {
    throw failed(error);
  }
}

function isInteractive(): boolean {
  try {
    const info = JSON.parse(process.env.KUBERNETES_EXEC_INFO ?? "{}") as { spec?: { interactive?: unknown } };
    return info.spec?.interactive === true;
  } catch {
    // Another client's form: nobody is there.
    return false;
  }
}

async function givenToken({ tokenFile }: KubeconfigOptions, terminal: Terminal): Promise<string> {
  if (tokenFile !== undefined) {
    const found = await readFile(inFolder(terminal.cwd, tokenFile), "utf8").catch((cause: unknown) => {
      throw new CliFailure(`cannot read ${tokenFile}`, { next: "Name a file that holds your token.", cause });
    });
    return found.trim();
  }
  const given = process.env.SALLYPORT_TOKEN ?? (process.stdin.isTTY ? "" : await text(process.stdin));
  return given.trim();
}

function kubeconfigFile({ kubeconfig }: KubeconfigOptions, terminal: Terminal): string {
  const [first] = (process.env.KUBECONFIG ?? "").split(delimiter).filter((path) => path !== "");
  return inFolder(terminal.cwd, kubeconfig ?? first ?? join(homedir(), ".kube/config"));
}

/** Puts the three entries in place of those of the same name, and leaves everything else as it stands. */
async function edit(
  file: string,
  name: string,
  entries: Readonly<Record<"cluster" | "user" | "context", object>>,
): Promise<void> {
  const { isMap, isSeq, parseDocument } = await import("yaml");
  const before = await readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "";
    throw new CliFailure(`cannot read ${file}`, { next: "Name another file by --kubeconfig.", cause: error });
  });
  const document = parseDocument(before === "" ? "apiVersion: v1\nkind: Config\n" : before);
  const unreadable = () =>
    new CliFailure(`${file} is no kubeconfig`, { next: "Mend it, or name another file by --kubeconfig." });
  if (document.errors.length > 0 || !isMap(document.contents)) throw unreadable();
  for (const [kind, value] of Object.entries(entries)) {
    const key = `${kind}s`;
    const list = document.get(key);
    if (list === undefined || list === null) document.set(key, document.createNode([]));
    else if (!isSeq(list)) throw unreadable();
    const entry = document.createNode({ name, [kind]: value });
    const items = document.get(key);
    if (!isSeq(items)) throw unreadable();
    const at = items.items.findIndex((one) => isMap(one) && one.get("name") === name);
    if (at === -1) items.add(entry);
    else items.set(at, entry);
    items.flow = false;
  }
  document.set("current-context", name);
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  await replacePrivately(file, document.toString());
}

function parseServer(given: string): string {
  const url = URL.canParse(given) ? new URL(given) : undefined;
  const isPlain =
    url?.protocol === "https:" && url.pathname === "/" && url.username === "" && url.search === "";
  if (url === undefined || !isPlain)
    throw new InvalidArgumentError("Write it as https://host:port, for example https://gateway:6443.");
  return url.origin;
}

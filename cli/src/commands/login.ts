/** `sallyport login`: a short-lived SSH certificate for a new key, and the lines of ssh_config that use it. */
import { mkdir, readFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { homedir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { type Command, InvalidArgumentError } from "commander";
import { CliFailure } from "../failure.ts";
import { type OutputFormat, withOutput, writeJson } from "../output.ts";
import { replacePrivately } from "../private-file.ts";
import { exitCodes, type Invocation, type Terminal } from "../terminal.ts";
import { inFolder, parseResource, type ResourceName } from "../values.ts";

interface LoginOptions {
  readonly ssh: Address;
  readonly resource: ResourceName;
  readonly account: string;
  readonly tokenFile?: string;
  readonly knownHosts: string;
  readonly folder: string;
  readonly output: OutputFormat;
}

interface Address {
  readonly host: string;
  readonly port: number;
}

const loginMs = 20_000;

/** Adds options and action. */
export function configure(command: Command, { terminal }: Invocation): void {
  withOutput(command)
    .description("get a short-lived SSH certificate from a gateway, and a stanza for ssh_config")
    .requiredOption("--ssh <host:port>", "the gateway's SSH port", parseAddress)
    .requiredOption("--resource <ns/name>", "the resource that the certificate is good for", parseResource)
    .requiredOption("--account <name>", "the account on the resource, as its credential is called")
    .option("--token-file <file>", "file with your token; default: SALLYPORT_TOKEN, else standard input")
    .option(
      "--known-hosts <file>",
      "known_hosts file that holds the gateway's key",
      join(homedir(), ".ssh/known_hosts"),
    )
    .option("--folder <dir>", "where key, certificate and config go", join(homedir(), ".sallyport/ssh"))
    .addHelpText("after", example)
    .action((options: LoginOptions) => logIn(options, terminal));
}

const example = `
Put \`Include ~/.sallyport/ssh/config\` at the top of ~/.ssh/config once.

Examples:
  sallyport login --ssh gateway.example.com:22 --resource shop/web --account app < token
  ssh web`;

async function logIn(options: LoginOptions, terminal: Terminal): Promise<void> {
  const { ssh, resource } = options;
  const { hostKeysFrom, newKey, obtainCertificate } = await import("@sallyport/sidecar/ssh-login");
  const knownHostsFile = inFolder(terminal.cwd, options.knownHosts);
  const knownHosts = await readFile(knownHostsFile, "utf8").catch(() => "");
  const keys = hostKeysFrom(linesFor(knownHosts, ssh));
  if (keys.length === 0) {
    throw new CliFailure(`${options.knownHosts} holds no key of ${ssh.host}:${ssh.port}`, {
      next: "Add the line that the gateway logs when it starts (knownHosts), behind the gateway's name.",
    });
  }
  const hostKeys = [
    ...keys,
    ...revokedIn(knownHosts).flatMap((line) => readable(() => hostKeysFrom([line]))),
  ];
  const token = await tokenOf(options, terminal);
  const signal = AbortSignal.timeout(loginMs);
  const named = `${resource.namespace}/${resource.name}`;
  const key = newKey(named);
  const socket = await dial(ssh, signal);
  const request = { socket, resource: named, token, hostKeys, publicKey: key.publicKey, signal };
  const issued = await obtainCertificate(request).catch((cause: unknown) => {
    throw new CliFailure("the gateway issued no certificate", {
      next: "Check that the token is for this resource and has not expired (see `sallyport token`).",
      exitCode: exitCodes.finding,
      cause,
    });
  });
  const folder = inFolder(terminal.cwd, options.folder);
  // Names hold no underscore: no two resources share a key.
  const keyFile = join(folder, `${resource.namespace}_${resource.name}`);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await replacePrivately(keyFile, key.privateKey);
  await replacePrivately(`${keyFile}-cert.pub`, `${issued.line} ${named}\n`);
  const stanza = stanzaFor(options, { keyFile, knownHostsFile });
  await writeStanza(join(folder, "config"), resource.name, stanza);
  const expiresAt = issued.validBefore.toISOString();
  if (options.output === "json") writeJson(terminal, { host: resource.name, keyFile, expiresAt });
  else
    terminal.out(
      `Certificate until ${expiresAt}. Connect with: ssh -F ${join(folder, "config")} ${resource.name}\n`,
    );
}

/** Lines of known_hosts for an address; names that are hashed are not found. */
function linesFor(file: string, { host, port }: Address): readonly string[] {
  const names = new Set(port === 22 ? [host, `[${host}]:22`] : [`[${host}]:${port}`]);
  return file.split("\n").filter((line) => {
    const [first = ""] = line.trim().split(/\s+/);
    return first.split(",").some((name) => names.has(name));
  });
}

/** Keys that are revoked, for whatever host: `@revoked names type key` with any name, as hashed ones cannot be read. */
function revokedIn(file: string): readonly string[] {
  return file.split("\n").flatMap((line) => {
    const [marker, , ...key] = line.trim().split(/\s+/);
    return marker === "@revoked" ? [`@revoked * ${key.join(" ")}`] : [];
  });
}

/** What cannot be read is a key of a kind that no gateway shows. */
function readable<Key>(read: () => readonly Key[]): readonly Key[] {
  try {
    return read();
  } catch {
    return [];
  }
}

function stanzaFor(
  { ssh, resource, account }: LoginOptions,
  files: { readonly keyFile: string; readonly knownHostsFile: string },
): string {
  return [
    `Host ${resource.name}`,
    `  HostName ${ssh.host}`,
    `  Port ${ssh.port}`,
    // Doubled, because OpenSSH 10 expands tokens here. Older ones do not, and the gateway takes both.
    `  User ${account}%%${resource.namespace}/${resource.name}`,
    `  IdentityFile ${quoted(files.keyFile)}`,
    `  CertificateFile ${quoted(`${files.keyFile}-cert.pub`)}`,
    "  IdentitiesOnly yes",
    `  UserKnownHostsFile ${quoted(files.knownHostsFile)}`,
    "  SendEnv SALLYPORT_REASON",
    // What the gateway has, AES-GCM first: OpenSSH would take AES-CTR, which costs both sides more.
    "  Ciphers aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes256-ctr,aes128-ctr",
    "",
  ].join("\n");
}

/** ssh_config reads `%` as the beginning of a token. */
const quoted = (path: string) => `"${path.replaceAll("%", "%%")}"`;

/** Puts a host's lines in place of those that were there for it. */
async function writeStanza(file: string, name: string, stanza: string): Promise<void> {
  const before = await readFile(file, "utf8").catch(() => "");
  const others = before.split(/^(?=Host )/m).filter((one) => one !== "" && !one.startsWith(`Host ${name}\n`));
  await replacePrivately(file, [...others, stanza].join(""));
}

async function tokenOf({ tokenFile }: LoginOptions, terminal: Terminal): Promise<string> {
  const fromFile =
    tokenFile === undefined
      ? undefined
      : await readFile(inFolder(terminal.cwd, tokenFile), "utf8").catch((cause: unknown) => {
          throw new CliFailure(`cannot read ${tokenFile}`, {
            next: "Name a file that holds your token.",
            cause,
          });
        });
  const given =
    fromFile ?? process.env.SALLYPORT_TOKEN ?? (process.stdin.isTTY ? "" : await text(process.stdin));
  const token = given.trim();
  if (/^[\x21-\x7e]+$/.test(token)) return token;
  throw new CliFailure("there is no token", {
    next: "Pipe your token in, or give --token-file FILE (see `sallyport token`).",
  });
}

function dial({ host, port }: Address, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, signal });
    const failed = (cause: unknown) =>
      reject(new CliFailure(`cannot reach ${host}:${port}`, { next: "Check --ssh and the network.", cause }));
    socket.once("error", failed);
    socket.once("connect", () => {
      socket.off("error", failed);
      resolve(socket);
    });
  });
}

function parseAddress(given: string): Address {
  const at = given.lastIndexOf(":");
  const host = given.slice(0, at).replace(/^\[|\]$/g, "");
  const port = Number(given.slice(at + 1));
  if (at <= 0 || !/^[A-Za-z0-9.:_-]+$/.test(host) || !Number.isInteger(port) || port < 1 || port > 65_535) {
    throw new InvalidArgumentError("Write it as host:port, for example gateway.example.com:22.");
  }
  return { host, port };
}

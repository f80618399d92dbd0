/** `sallyport token`: tokens and keys of a `local` identity provider. */
import { chmod, readFile, rm, writeFile } from "node:fs/promises";
import { type Command, InvalidArgumentError, Option } from "commander";
import { CliFailure } from "../failure.ts";
import { type OutputFormat, withOutput, writeJson } from "../output.ts";
import { exitCodes, type Invocation, type Terminal } from "../terminal.ts";
import { inFolder, parseLifetimeSeconds, parseResource, type ResourceName, repeated } from "../values.ts";

interface TokenOptions {
  readonly newKey?: string;
  readonly key?: string;
  readonly user?: string;
  readonly group: readonly string[];
  readonly resource: readonly ResourceName[];
  readonly audience: readonly string[];
  readonly lifetime: number;
  readonly kind?: "Human" | "Workload" | "Agent";
  readonly issuer?: string;
  readonly output: OutputFormat;
}

/** A token in a shell history or a log should be worthless soon. */
const lifetimeSecondsMax = 24 * 60 * 60;

/** Adds options and action. */
export function configure(command: Command, { terminal }: Invocation): void {
  withOutput(command)
    .description("issue a short-lived token of a local identity provider, or make its key")
    .option("--new-key <file>", "make a key pair: FILE (private, 0600) and FILE.pub")
    .option("--key <file>", "the provider's private key, PEM")
    .option("--user <name>", "who the token is for, without the provider's prefix")
    .option("--group <name>", "a group of the user, without the prefix (repeatable)", repeated(String), [])
    .option("--resource <ns/name>", "the resource it is good for (repeatable)", repeated(parseResource), [])
    .option("--audience <audience>", "an audience in place of a resource (repeatable)", repeated(String), [])
    .option("--lifetime <duration>", "how long it holds: 90s, 15m, 8h", parseLifetime, 15 * 60)
    .addOption(new Option("--kind <kind>", "what the user is").choices(["Human", "Workload", "Agent"]))
    .option("--issuer <issuer>", "the token's issuer, where the provider's manifest names one")
    .addHelpText("after", example)
    .action(async (options: TokenOptions) => {
      if (options.newKey !== undefined) await makeKey(options.newKey, options, terminal);
      else await issueToken(options, terminal);
    });
}

const example = `
Examples:
  sallyport token --new-key ci.key
  sallyport token --key ci.key --user alice --group analysts --resource shop/orders --lifetime 15m
  PGPASSWORD=$(sallyport token --key ci.key --user alice --resource shop/orders) psql …`;

async function issueToken(options: TokenOptions, terminal: Terminal): Promise<void> {
  const { key: keyFile, user, output, lifetime, kind, issuer } = options;
  if (keyFile === undefined || user === undefined || user === "") {
    throw new CliFailure("a token needs a key and a user", {
      next: "Give --key FILE and --user NAME, or make a key first: sallyport token --new-key FILE",
    });
  }
  if (options.resource.length + options.audience.length === 0) {
    throw new CliFailure("a token needs what it is good for", { next: "Give --resource namespace/name." });
  }
  const path = inFolder(terminal.cwd, keyFile);
  const key = await readFile(path, "utf8").catch((cause: unknown) => {
    throw new CliFailure(`cannot read the key ${keyFile}`, {
      next: "Name the private key's file, or make one: sallyport token --new-key FILE",
      cause,
    });
  });
  const { audienceOf, issueLocalToken } = await import("@sallyport/sidecar");
  const audiences = [...options.resource.map(audienceOf), ...options.audience];
  const now = terminal.now();
  const request = {
    key,
    subject: user,
    groups: options.group,
    audience: audiences.length === 1 ? (audiences[0] ?? "") : audiences,
    lifetimeSeconds: lifetime,
    now,
    ...(kind === undefined ? {} : { kind }),
    ...(issuer === undefined ? {} : { issuer }),
  };
  let token: string;
  try {
    token = await issueLocalToken(request);
  } catch {
    // The cause may quote the key.
    throw new CliFailure(`${keyFile} is not a private key that can sign`, {
      next: "Use a PEM private key (Ed25519, P-256 or RSA), not the .pub file.",
    });
  }
  const expiresAt = new Date((Math.floor(now / 1000) + lifetime) * 1000).toISOString();
  if (output === "json") writeJson(terminal, { token, user, audiences, expiresAt });
  else terminal.out(`${token}\n`);
}

async function makeKey(file: string, { output }: TokenOptions, terminal: Terminal): Promise<void> {
  const { generateLocalKey } = await import("@sallyport/sidecar");
  const { privateKey, publicKey } = generateLocalKey();
  const path = inFolder(terminal.cwd, file);
  const publicPath = `${path}.pub`;
  await writeNew(publicPath, publicKey, 0o644);
  try {
    await writeNew(path, privateKey, 0o600);
  } catch (error) {
    await rm(publicPath, { force: true });
    throw error;
  }
  if (output === "json")
    return writeJson(terminal, { privateKeyFile: path, publicKeyFile: publicPath, publicKey });
  terminal.out(publicKey);
  terminal.err(
    `Wrote ${file} (keep it secret) and ${file}.pub; the public key goes into the IdentityProvider\n`,
  );
  terminal.err("under spec.local.publicKeys.\n");
}

async function writeNew(path: string, content: string, mode: number): Promise<void> {
  try {
    await writeFile(path, content, { flag: "wx", mode });
    await chmod(path, mode);
  } catch (cause) {
    throw new CliFailure(`cannot write ${path}`, {
      next: "Name a file that does not exist yet, in a folder that you may write to; no key is ever overwritten.",
      cause,
      exitCode: exitCodes.finding,
    });
  }
}

function parseLifetime(text: string): number {
  const seconds = parseLifetimeSeconds(text);
  if (seconds > lifetimeSecondsMax) throw new InvalidArgumentError("A token holds for 24h at most.");
  return seconds;
}

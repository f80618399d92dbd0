/** The demo's people and files: the manifests beside this file, with the run's own port and key filled in. */
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import type { GatewayProcess } from "../targets/gateway.ts";
import type { PostgresServer } from "../targets/postgres.ts";
import type { LocalIssuer, TokenRequest } from "../targets/tokens.ts";

/** Where the demo keeps its files; emptied at each start, so it can be nothing but a folder inside `.demo`. */
export const demoFolder = join(
  import.meta.dirname,
  "../../.demo",
  folderName(process.env.SALLYPORT_DEMO_RUN),
);

function folderName(asked = ""): string {
  return /^[a-z0-9-]+$/.test(asked) ? asked : "run";
}

/** One of the three who connect. */
export interface Person extends TokenRequest {
  readonly what: string;
}

export const analyst: Person = { what: "analyst: reads", user: "ana", groups: ["analysts"] };
export const migrationJob: Person = {
  what: "migration job: changes the schema, sees no row",
  user: "migrations",
  kind: "Workload",
};
export const admin: Person = {
  what: "administrator: everything, but no change of a whole table",
  user: "adam",
  groups: ["admins"],
};
/** May approve, and is let in nowhere. */
export const lead: Person = { what: "lead: approves", user: "lena", groups: ["leads"] };
/** The gateway's own word for who may approve. */
export const approvers = "local:leads";
export const people: readonly Person[] = [analyst, migrationJob, admin];

/** The shop's tables and rows. */
export function shopSql(): Promise<string> {
  return readFile(join(import.meta.dirname, "shop.sql"), "utf8");
}

/** Copies the manifests and writes the secrets of this run; resolves to the folder that the gateway is given. */
export async function writeConfiguration(
  server: PostgresServer,
  issuer: LocalIssuer,
  port: number,
): Promise<string> {
  const configDir = join(demoFolder, "config");
  const secret = join(configDir, "secrets/shop-database");
  await mkdir(secret, { recursive: true, mode: 0o700 });
  for (const name of await readdir(import.meta.dirname)) {
    if (!name.endsWith(".yaml")) continue;
    const manifest = await readFile(join(import.meta.dirname, name), "utf8");
    await writeFile(
      join(configDir, name),
      forThisRun(manifest, { server: server.port, gateway: port, key: issuer.publicKeyPem }),
    );
  }
  const keep = (key: string, value: string) => writeFile(join(secret, key), value, { mode: 0o600 });
  await keep("username", server.superuser);
  await keep("password", server.password);
  await keep("ca.crt", server.caPem);
  return configDir;
}

function forThisRun(manifest: string, run: { server: number; gateway: number; key: string }): string {
  return manifest
    .replace("port: 5432", `port: ${run.server}`)
    .replace("port: 6432", `port: ${run.gateway}`)
    .replace(/^( *)-----BEGIN PUBLIC KEY-----[\s\S]*?-----END PUBLIC KEY-----/m, (_, indent: string) =>
      run.key.trim().replaceAll(/^/gm, indent),
    );
}

/** A line to paste: verify-full and the authority, because libpq's default would hand the token to anyone between. */
export function psqlLine(person: Person, gateway: GatewayProcess, issuer: LocalIssuer): string {
  const token = issuer.token({ ...person, lifetimeSeconds: 8 * 3600 });
  const caFile = relative(process.cwd(), gateway.caFile);
  const target = `host=${gateway.host} port=${gateway.port} user=shop dbname=shop`;
  return `PGPASSWORD=${token} psql "${target} sslmode=verify-full sslrootcert=${caFile}"`;
}

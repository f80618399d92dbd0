/**
 * `make demo`: a real PostgreSQL, the gateway in front of it, three identities, and a tour that checks what it claims.
 * With --tour it ends after the tour, with exit code 1 where a step did not do what it says.
 */
import { rm } from "node:fs/promises";
import { join, relative } from "node:path";
import { spawnGateway } from "../targets/gateway.ts";
import { freePort, startPostgres } from "../targets/postgres.ts";
import { LocalIssuer } from "../targets/tokens.ts";
import { approvers, demoFolder, lead, people, psqlLine, shopSql, writeConfiguration } from "./setting.ts";
import { runTour } from "./tour.ts";

const tourOnly = process.argv.includes("--tour");
const closers: (() => Promise<unknown>)[] = [];
let isClosing: Promise<void> | undefined;

/** The gateway first, then the server behind it; a second Ctrl-C waits for the first. */
function closeAll(): Promise<void> {
  isClosing ??= (async () => {
    for (const close of closers.reverse()) await close();
  })();
  return isClosing;
}

const interrupted = new Promise<void>((resolve) => {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => resolve());
});

async function main(): Promise<number> {
  const begun = performance.now();
  await rm(demoFolder, { recursive: true, force: true });
  const server = await startPostgres({ tls: true, database: "shop", initSql: await shopSql() });
  closers.push(() => server.stop());
  const issuer = new LocalIssuer("sallyport-demo", "sallyport:demo/shop");
  const port = await freePort();
  const configDir = await writeConfiguration(server, issuer, port);
  const stateDir = join(demoFolder, "state");
  const gateway = await spawnGateway({ configDir, stateDir, port, args: ["--approvers", approvers] });
  closers.push(() => gateway.stop());
  const seconds = ((performance.now() - begun) / 1000).toFixed(1);
  console.log(
    `PostgreSQL ${server.version} on port ${server.port}, gateway on port ${gateway.port}, up in ${seconds} s.\n`,
  );

  const tour = runTour({ server, gateway, issuer, configDir, stateDir });
  const failed = await Promise.race([tour, interrupted.then(() => undefined)]);
  if (failed === undefined) return 130;
  console.log(
    failed === 0 ? "\nEvery step did what it says." : `\n${failed} steps did not do what they say.`,
  );
  if (failed > 0) console.log(`What the gateway wrote:\n${gateway.logs()}`);
  if (tourOnly || failed > 0) return failed === 0 ? 0 : 1;

  console.log("\nTry it yourself (the tokens hold for eight hours; what you do is recorded):\n");
  for (const person of people) console.log(`# ${person.what}\n${psqlLine(person, gateway, issuer)}\n`);
  console.log("# a change of the schema by the administrator waits until the lead says:");
  const leadToken = issuer.token({ ...lead, lifetimeSeconds: 8 * 3600 });
  console.log(`SALLYPORT_TOKEN=${leadToken} npx sallyport approvals --state ${relative(".", stateDir)}\n`);
  const [recordings, key] = [gateway.recordingDir, gateway.publicKeyFile].map((path) => relative(".", path));
  console.log("# then, in this folder:");
  console.log(`npx sallyport sessions ${recordings}`);
  console.log(`npx sallyport verify ${recordings} --public-key ${key}`);
  console.log("\nCtrl-C stops everything.");
  await interrupted;
  console.log("\nStopping.");
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
} finally {
  await closeAll();
}
process.exit();

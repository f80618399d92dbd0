/**
 * `make bench`: the gateway beside direct access and PgBouncer on this machine, everything on the loopback.
 * --quick takes short runs; --only NAME runs the works whose name holds NAME; --profile tells where time goes.
 */
import { parseArgs } from "node:util";
import { heldCommands } from "./approvals.ts";
import { buildBundle } from "./bundle.ts";
import { ceiling } from "./ceiling.ts";
import { controlStream } from "./control.ts";
import { idleConnections, memory, timeToReady } from "./footprint.ts";
import { kubernetes } from "./kubernetes.ts";
import { masked, maskParts } from "./masking.ts";
import { operatorAtSize } from "./operator.ts";
import { profiles } from "./profile.ts";
import { describeMachine, keepInDocument, keepResults, type Row, table } from "./report.ts";
import {
  addedLatency,
  bulk,
  durableSelects,
  nameOfWork,
  type Pace,
  selects,
  selectWorks,
  severalProcesses,
} from "./speed.ts";
import { sshRows } from "./ssh.ts";
import { startWays, type Ways } from "./ways.ts";

interface Work {
  readonly name: string;
  readonly measure: (ways: Ways, pace: Pace) => Promise<Row[]>;
}

const works: readonly Work[] = [
  ...selectWorks.map((work) => ({
    name: nameOfWork(work),
    measure: (ways: Ways, pace: Pace) => selects(ways, work, pace),
  })),
  { name: "Durable", measure: durableSelects },
  { name: "processes", measure: severalProcesses },
  { name: "ceiling", measure: ceiling },
  { name: "latency", measure: addedLatency },
  { name: "COPY and SELECT", measure: bulk },
  { name: "control stream", measure: controlStream },
  { name: "masks", measure: ({ server }, { rounds }) => masked(server, rounds) },
  { name: "parts of masks", measure: maskParts },
  { name: "kubernetes", measure: kubernetes },
  { name: "operator", measure: (_, { resources }) => operatorAtSize(resources) },
  { name: "SSH", measure: (_, { rounds }) => sshRows({ rounds, megabytes: 256 }) },
  { name: "approvals", measure: (_, { rounds }) => heldCommands(rounds * 20) },
  { name: "ready", measure: ({ server }, { rounds }) => timeToReady(server, rounds) },
  { name: "memory", measure: memory },
  { name: "idle", measure: ({ server }) => idleConnections(server, 1_000) },
];

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      quick: { type: "boolean", default: false },
      only: { type: "string", default: "" },
      profile: { type: "boolean", default: false },
    },
  });
  const pace: Pace = values.quick
    ? { seconds: 1, rounds: 3, resources: 100 }
    : { seconds: 2, rounds: 5, resources: 1_000 };
  const chosen = works.filter(({ name }) => name.toLowerCase().includes(values.only.toLowerCase()));
  if (chosen.length === 0) throw new Error(`no work is called ${values.only}`);
  await buildBundle();
  const ways = await startWays();
  try {
    const machine = await describeMachine(ways.server, `${pace.rounds} rounds of ${pace.seconds} s`);
    console.log(`${machine}\n`);
    if (values.profile) {
      const found = await profiles(ways, pace.seconds * 3);
      console.log(found);
      await keepInDocument("profile", `${machine}\n\n\`\`\`text\n${found.trimEnd()}\n\`\`\``);
      return;
    }
    const rows: Row[] = [];
    const failures: string[] = [];
    for (const { name, measure } of chosen) {
      process.stderr.write(`${name}\n`);
      try {
        rows.push(...(await measure(ways, pace)));
      } catch (error) {
        // The other works are still worth knowing; the exit code tells.
        failures.push(`${name}: ${error instanceof Error ? error.message : error}`);
        process.exitCode = 1;
      }
    }
    console.log(table(rows));
    for (const failure of failures) console.error(`not measured: ${failure}`);
    await keepResults(rows);
    // A short or partial run says too little to be kept.
    if (!values.quick && values.only === "" && failures.length === 0) {
      await keepInDocument("results", `${machine}\n\n${table(rows)}`);
    }
  } finally {
    await ways.stop();
  }
}

// What was started ends with this process, which has to end in order for that.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(130));
try {
  await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}

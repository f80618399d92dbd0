/**
 * The SSH gateway beside a direct connection to the same sshd, with OpenSSH's own client and one cipher for both: bytes a
 * second, what an echoed key press costs more, and the memory of 200 sessions.
 */
import { spawn } from "node:child_process";
import { readFile, rm, truncate, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import {
  encoded,
  hostKeysFrom,
  logIn,
  made,
  message,
  Reader,
  signingKeyOf,
  type Transport,
} from "@sallyport/sidecar/ssh-testing";
import { type OpenSshServer, startOpenSsh } from "../targets/openssh.ts";
import { policyDocument } from "../targets/policies.ts";
import { type SshGateway, startSshGateway } from "../targets/ssh-gateway.ts";
import { bundle } from "./bundle.ts";
import { median } from "./pgbench.ts";
import { processorMicroseconds, residentKilobytes, settledResidentKilobytes } from "./process-cost.ts";
import type { Row } from "./report.ts";

const limits = { ratio: 0.5, echoMs: 2, sessionsMegabytes: 300 };
const sessionCount = 200;
const cipher = "aes128-gcm@openssh.com";
const runMs = 120_000;

const policies = policyDocument("web", "alice", "  profile: Admin");

/** All rows of SSH; `megabytes` move in each transfer. */
export async function sshRows({
  rounds,
  megabytes,
}: {
  readonly rounds: number;
  readonly megabytes: number;
}): Promise<Row[]> {
  const found = await startOpenSsh(["MaxStartups 400", "MaxSessions 400"]);
  if (found.kind !== "ready") throw new Error(found.reason);
  const server: OpenSshServer = found;
  const gateway = await startSshGateway({
    server,
    policies,
    program: bundle.program,
    args: ["--log-level", "warn"],
    resource: { recording: { mode: "Required", content: ["commands"] } },
  });
  try {
    return [
      ...(await throughput(server, gateway, rounds, megabytes)),
      await echo(server, gateway),
      await manySessions(gateway),
    ];
  } finally {
    await gateway.stop();
    await server.stop();
  }
}

interface Way {
  readonly name: "direct" | "gateway";
  readonly options: readonly string[];
  readonly destination: string;
  readonly environment: Readonly<Record<string, string>>;
}

async function waysTo(server: OpenSshServer, gateway: SshGateway): Promise<readonly [Way, Way]> {
  const key = join(gateway.home, "direct");
  await writeFile(key, server.privateKey, { mode: 0o600 });
  const known = join(gateway.home, "known_hosts_direct");
  await writeFile(known, `[127.0.0.1]:${server.port} ${server.hostKey}\n`);
  const common = ["-o", `Ciphers=${cipher}`, "-o", "ControlMaster=auto", "-o", "ControlPersist=60"];
  const direct = [
    ...["-F", "none", "-o", `Port=${server.port}`, "-o", `UserKnownHostsFile=${known}`, "-i", key],
    ...["-o", "IdentitiesOnly=yes", "-o", `ControlPath=${join(gateway.home, "mux-direct")}`],
  ];
  const through = [...gateway.options, "-o", `ControlPath=${join(gateway.home, "mux-gateway")}`];
  const environment = {
    PATH: process.env.PATH ?? "",
    HOME: gateway.home,
    SSH_ASKPASS: join(gateway.home, "askpass"),
    SSH_ASKPASS_REQUIRE: "force",
    SALLYPORT_TOKEN: gateway.issuer.token({ user: "alice", lifetimeSeconds: 3600 }),
  };
  const { destination } = gateway;
  return [
    {
      name: "direct",
      options: [...direct, ...common],
      destination: `${server.user}@127.0.0.1`,
      environment,
    },
    { name: "gateway", options: [...through, ...common], destination, environment },
  ];
}

async function throughput(
  server: OpenSshServer,
  gateway: SshGateway,
  rounds: number,
  megabytes: number,
): Promise<Row[]> {
  const ways = await waysTo(server, gateway);
  const bytes = megabytes * 1024 * 1024;
  const [local, remote] = [join(gateway.home, "payload"), join(server.folder, "payload")];
  for (const file of [local, remote]) {
    await writeFile(file, "");
    await truncate(file, bytes);
  }
  const kinds: readonly { readonly work: string; readonly run: (way: Way) => readonly string[] }[] = [
    {
      work: "exec, from the host",
      run: (way) => shell(way, `"$@" 'head -c ${bytes} /dev/zero' > /dev/null`),
    },
    {
      work: "exec, to the host",
      run: (way) => shell(way, `head -c ${bytes} /dev/zero | "$@" 'cat > /dev/null'`),
    },
    { work: "sftp get", run: (way) => batch(way, `get ${remote} /dev/null`) },
    { work: "sftp put", run: (way) => batch(way, `put ${local} ${remote}.up`) },
  ];
  const rows: Row[] = [];
  try {
    // The first command of a way logs in; all others go through the connection that is there.
    for (const way of ways) await timed(way, shell(way, '"$@" true'));
    for (const { work, run } of kinds) {
      const ratios: number[] = [];
      const speeds: Record<Way["name"], number[]> = { direct: [], gateway: [] };
      let processorUs = 0;
      for (let round = 0; round < rounds; round++) {
        const before = await processorMicroseconds(gateway.pid);
        for (const way of ways) speeds[way.name].push(megabytes / (await timed(way, run(way))));
        processorUs += (await processorMicroseconds(gateway.pid)) - before;
        ratios.push((speeds.gateway.at(-1) ?? 0) / (speeds.direct.at(-1) ?? 1));
      }
      const each = (processorUs / 1000 / (rounds * megabytes)).toFixed(1);
      rows.push({
        work: `SSH ${work}`,
        against: "direct",
        ratio: median(ratios),
        atLeast: limits.ratio,
        detail: `${median(speeds.gateway).toFixed(0)} MB/s, direct ${median(speeds.direct).toFixed(0)} MB/s, ${each} ms of the gateway's processor a MB`,
      });
    }
  } finally {
    for (const way of ways) await timed(way, ["ssh", ...way.options, "-O", "exit", way.destination]);
    await rm(`${remote}.up`, { force: true });
  }
  return rows;
}

/** A line of sh in which `"$@"` is the way's ssh. */
const shell = (way: Way, line: string) => ["sh", "-c", line, "sh", "ssh", ...way.options, way.destination];

const batch = (way: Way, line: string) => [
  ...["sh", "-c", 'line=$1; shift; echo "$line" | "$@"', "sh", line],
  ...["sftp", "-q", ...way.options, "-o", "BatchMode=no", "-b", "-", way.destination],
];

/** Seconds that a program takes. */
function timed(way: Way, [program = "", ...args]: readonly string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const begun = performance.now();
    const child = spawn(program, args, {
      env: way.environment,
      stdio: ["ignore", "ignore", "pipe"],
      timeout: runMs,
    });
    let errors = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      errors = (errors + text).slice(-4_000);
    });
    child.once("error", reject);
    // Not `close`: a ControlMaster that goes on keeps the pipe.
    child.once("exit", (code) => {
      child.stderr.destroy();
      if (code === 0) resolve((performance.now() - begun) / 1000);
      else reject(new Error(`${program} over ${way.name} ended with ${code}\n${errors}`));
    });
  });
}

/** A client of our own, which adds little time by itself. */
async function cat(
  login: Omit<Parameters<typeof logIn>[0], "signal">,
): Promise<{ readonly transport: Transport; readonly press: () => Promise<void> }> {
  const transport = await logIn({ ...login, signal: AbortSignal.timeout(20_000) });
  transport.socket.setNoDelay(true);
  let [wake, remote] = [() => {}, 0];
  const arrived = (type: number) =>
    new Promise<void>((resolve, reject) => {
      transport.receiver = {
        message: (payload) => {
          if (payload[0] === message.channelOpenConfirmation) remote = new Reader(payload, 5).uint32();
          if (payload[0] === type) wake();
        },
        ended: () => reject(new Error("the connection ended")),
      };
      wake = resolve;
    });
  const ask = async (type: number, payload: Buffer) => {
    const answered = arrived(type);
    transport.send(payload);
    await answered;
  };
  await ask(message.channelOpenConfirmation, made(message.channelOpen, "session", 0, 1 << 30, 32_768));
  const run = made(message.channelRequest, remote, "exec", true, { raw: encoded("cat") });
  await ask(message.channelSuccess, run);
  return { transport, press: () => ask(message.channelData, made(message.channelData, remote, "x")) };
}

function throughGateway(gateway: SshGateway, hostKey: string): Parameters<typeof cat>[0] {
  return {
    socket: connect(gateway.port, "127.0.0.1"),
    user: "app%web",
    password: gateway.issuer.token({ user: "alice", lifetimeSeconds: 3600 }),
    hostKeys: hostKeysFrom([hostKey]),
  };
}

async function echo(server: OpenSshServer, gateway: SshGateway): Promise<Row> {
  const key = signingKeyOf(server.privateKey);
  if (key === undefined) throw new Error("the key of the host cannot be read");
  const hostKey = (await readFile(join(gateway.home, "known_hosts"), "utf8")).trim();
  const direct = await cat({
    socket: connect(server.port, "127.0.0.1"),
    user: server.user,
    key,
    hostKeys: hostKeysFrom([server.hostKey]),
  });
  const through = await cat(throughGateway(gateway, hostKey));
  const times: Record<"direct" | "through", number[]> = { direct: [], through: [] };
  // In turn, so that both see the same machine.
  for (let index = 0; index < 600; index++) {
    for (const [name, way] of [
      ["direct", direct],
      ["through", through],
    ] as const) {
      const begun = performance.now();
      await way.press();
      if (index >= 100) times[name].push(performance.now() - begun);
    }
  }
  direct.transport.destroy();
  through.transport.destroy();
  const added = median(times.through) - median(times.direct);
  return {
    work: "SSH echo of a key press",
    against: `at most ${limits.echoMs} ms more`,
    ratio: limits.echoMs / Math.max(added, 0.001),
    atLeast: 1,
    detail: `${added.toFixed(2)} ms added to ${median(times.direct).toFixed(2)} ms, medians of 500`,
  };
}

async function manySessions(gateway: SshGateway): Promise<Row> {
  const hostKey = (await readFile(join(gateway.home, "known_hosts"), "utf8")).trim();
  const before = await settledResidentKilobytes(gateway.pid, 5);
  const all: Awaited<ReturnType<typeof cat>>[] = [];
  try {
    for (let index = 0; index < sessionCount; index++) {
      const one = await cat(throughGateway(gateway, hostKey));
      await one.press();
      all.push(one);
    }
    const kilobytes = Math.max(
      await residentKilobytes(gateway.pid),
      await settledResidentKilobytes(gateway.pid, 8),
    );
    const megabytes = kilobytes / 1024;
    return {
      work: `SSH ${sessionCount} sessions`,
      against: `at most ${limits.sessionsMegabytes} MB`,
      ratio: limits.sessionsMegabytes / megabytes,
      atLeast: 1,
      detail: `${megabytes.toFixed(0)} MB resident, ${(before / 1024).toFixed(0)} MB before`,
    };
  } finally {
    for (const { transport } of all) transport.destroy();
  }
}

/** `make bench ARGS=--profile`: where the gateway spends its processor time under pgbench, function by function. */
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { SourceMap } from "node:module";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { startGateway } from "../targets/gateway.ts";
import { bundle } from "./bundle.ts";
import { pgbench, protocols } from "./pgbench.ts";
import { gatewaySetting, reached, reader, type Ways } from "./ways.ts";

/** Functions by their own time under eight clients, one list for each protocol. */
export async function profiles({ server }: Ways, seconds: number): Promise<string> {
  const lists: string[] = [];
  for (const protocol of protocols) {
    const folder = await mkdtemp(join(tmpdir(), "sallyport-profile-"));
    try {
      const gateway = await startGateway({
        server,
        ...gatewaySetting("Accepted"),
        program: ["--cpu-prof", "--cpu-prof-interval", "500", "--cpu-prof-dir", folder, ...bundle.program],
      });
      const way = reached("gateway", gateway.pid, {
        ...{ port: gateway.port, socketDir: "", caFile: gateway.caFile, user: gateway.user },
        ...{ password: await gateway.token(reader), database: server.database },
      });
      const { transactionsPerSecond } = await pgbench({ to: way.to("TLS"), protocol, clients: 8, seconds });
      await gateway.stop();
      const [name = ""] = await readdir(folder);
      const profile: unknown = JSON.parse(await readFile(join(folder, name), "utf8"));
      const title = `${protocol}, 8 clients, TLS (${Math.round(transactionsPerSecond)} transactions a second under the profiler)`;
      lists.push(`${title}\n${selfTimes(profile as Profile)}`);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
  return lists.join("\n");
}

/** The part of V8's profile that is read here. */
interface Profile {
  readonly nodes: readonly {
    readonly id: number;
    readonly children?: readonly number[];
    readonly callFrame: Frame;
  }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

interface Frame {
  readonly functionName: string;
  readonly url: string;
  readonly lineNumber: number;
  readonly columnNumber: number;
}

const shown = 30;

function selfTimes({ nodes, samples, timeDeltas }: Profile): string {
  const own = new Map<number, number>();
  samples.forEach((id, index) => {
    own.set(id, (own.get(id) ?? 0) + (timeDeltas[index] ?? 0));
  });
  const callers = new Map<number, Frame>();
  for (const { children = [], callFrame } of nodes)
    for (const child of children) callers.set(child, callFrame);
  const byFunction = new Map<string, number>();
  let busy = 0;
  for (const { id, callFrame } of nodes) {
    const time = own.get(id) ?? 0;
    if (callFrame.functionName === "(idle)") continue;
    busy += time;
    const caller = callers.get(id);
    // Native code has no place of its own, and several functions of one name.
    const isNative = callFrame.url === "" && caller !== undefined && caller.functionName !== "(root)";
    const key = isNative
      ? `${nameOf(callFrame)}, called by ${nameOf(caller)}  ${placeOf(caller)}`
      : `${nameOf(callFrame)}  ${placeOf(callFrame)}`;
    byFunction.set(key, (byFunction.get(key) ?? 0) + time);
  }
  return [...byFunction]
    .sort(([, a], [, b]) => b - a)
    .slice(0, shown)
    .map(([key, time]) => `${((100 * time) / busy).toFixed(1).padStart(5)} %  ${key}\n`)
    .join("");
}

const nameOf = ({ functionName }: Frame) => functionName || "(anonymous)";

function placeOf({ url, lineNumber, columnNumber }: Frame): string {
  if (!url.startsWith("file:")) return url;
  const file = fileURLToPath(url);
  const entry = sourceMapOf(file)?.findEntry(lineNumber, columnNumber);
  if (entry === undefined || !("originalSource" in entry)) return relative(".", file);
  return `${relative(".", resolve(file, "..", entry.originalSource))}:${entry.originalLine + 1}`;
}

const maps = new Map<string, SourceMap | undefined>();

/** The bundle comes in parts, each with a map of its own; node_modules have none. */
function sourceMapOf(file: string): SourceMap | undefined {
  if (!maps.has(file)) {
    const path = `${file}.map`;
    maps.set(file, existsSync(path) ? new SourceMap(JSON.parse(readFileSync(path, "utf8"))) : undefined);
  }
  return maps.get(file);
}

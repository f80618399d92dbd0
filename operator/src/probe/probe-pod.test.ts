import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { testSettings } from "../placement/testing.ts";
import { probePod, readFindings, type Trial } from "./probe-pod.ts";

const trial = (key: string, gateways: number, servers: number): Trial => ({
  key,
  gateways: Array.from({ length: gateways }, (_, at) => ({ host: `10.0.0.${at}`, port: 5432 })),
  servers: Array.from({ length: servers }, (_, at) => ({ host: `10.0.1.${at}`, port: 5432 })),
});
const said = (message: string, exitCode = 0) => ({
  status: { phase: "Succeeded", containerStatuses: [{ state: { terminated: { exitCode, message } } }] },
});

test.each([
  ["a server that is silent while its gateway answers", "ct", "refused"],
  ["a server that answers", "cc", "connected"],
  ["a server that answers where the gateway does not", "tc", "connected"],
  ["a network in which nothing is reached", "tt", "unknown"],
  ["a port that nobody listens on", "cr", "unknown"],
  ["words of another length", "ctt", "unknown"],
  ["no word", "", "unknown"],
  ["something else", "c!", "unknown"],
])("%s", (_, message, result) => {
  expect(readFindings(said(message), [trial("one", 1, 1)]).get("one")).toBe(result);
});

test("one server of several that is reached opens the resource, and no other one", () => {
  const found = readFindings(said("cttcctc"), [trial("shut", 1, 2), trial("open", 2, 2)]);
  expect(Object.fromEntries(found)).toEqual({ shut: "refused", open: "connected" });
});

test("a pod that failed, or is not over, has found nothing", () => {
  const trials = [trial("one", 1, 1)];
  expect(readFindings(said("ct", 1), trials).get("one")).toBe("unknown");
  expect(readFindings({}, trials).get("one")).toBe("unknown");
});

test("the pod has no token, meets Pod Security restricted, and is told its addresses as arguments", () => {
  const pod = probePod({ name: "sallyport-probe", settings: testSettings }, [trial("one", 1, 1)]);
  const spec = pod.spec as {
    automountServiceAccountToken: boolean;
    volumes?: unknown;
    containers: { command: string[]; securityContext: unknown }[];
  };
  expect(spec.automountServiceAccountToken).toBe(false);
  expect(spec.volumes).toBeUndefined();
  expect(spec.containers[0]!.command.slice(3)).toEqual(["10.0.0.0 5432", "10.0.1.0 5432"]);
  expect(spec.containers[0]!.securityContext).toMatchObject({ capabilities: { drop: ["ALL"] } });
});

test("the program that the pod runs tells a listener from a closed port", async () => {
  const folder = mkdtempSync(join(tmpdir(), "sallyport-probe-"));
  const server = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const closed = createServer();
  await new Promise<void>((resolve) => closed.listen(0, "127.0.0.1", resolve));
  const ports = [server, closed].map((one) => (one.address() as { port: number }).port);
  await new Promise((resolve) => closed.close(resolve));
  try {
    const { spec } = probePod({ name: "p", settings: testSettings }, []);
    const [, flag, program] = (spec as { containers: { command: string[] }[] }).containers[0]!.command;
    const file = join(folder, "last-words");
    const here = program!.replace("/dev/termination-log", file);
    const addresses = ports.map((port) => `127.0.0.1 ${port}`);
    // The listener is this process: the kernel accepts for it while it waits here.
    execFileSync(process.execPath, [flag!, here, ...addresses], { timeout: 20_000 });
    expect(readFileSync(file, "utf8")).toBe("cr");
  } finally {
    server.close();
    rmSync(folder, { recursive: true });
  }
});

/** Ports of the system's pods as a test reaches them: through kubectl's port-forward, certificates checked by name. */
import { spawn } from "node:child_process";
import { request } from "node:https";
import { connect } from "node:tls";
import { controlProtocol, FramedConnection } from "@sallyport/control";
import { waitFor } from "../cluster/processes.ts";
import { systemNamespace } from "./installed.ts";
import type { Scenario } from "./scenario.ts";

/** A port of 127.0.0.1 that leads into a pod. */
interface Forwarded {
  readonly port: number;
  close(): void;
}

async function forward({ kubectl }: Scenario, target: string, port: number): Promise<Forwarded> {
  const flags = ["--kubeconfig", kubectl.kubeconfig, "--namespace", systemNamespace];
  const child = spawn(kubectl.program, [...flags, "port-forward", target, `:${port}`], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let said = "";
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
    said += chunk;
  });
  try {
    const found = await waitFor("the forwarded port", () => /127\.0\.0\.1:(\d+)/.exec(said)?.[1]);
    return { port: Number(found), close: () => child.kill() };
  } catch (error) {
    child.kill();
    throw error;
  }
}

/** The recorder's API as an auditor reaches it. */
export interface RecorderApi {
  /** Asks with a token, or with none. */
  ask(
    method: "GET" | "POST",
    path: string,
    token: string | undefined,
  ): Promise<{ readonly status: number; readonly body: string }>;
  close(): void;
}

/** Opens the way to the API of one of the recorders; `ca` is PEM of the control plane's authorities. */
export async function recorderApi(scenario: Scenario, ca: string, ordinal = 0): Promise<RecorderApi> {
  const pod = `sallyport-recorder-${ordinal}`;
  const { port, close } = await forward(scenario, `pod/${pod}`, 7445);
  const servername = `${pod}.sallyport-recorder.${systemNamespace}.svc`;
  return {
    close,
    ask: (method, path, token) =>
      new Promise((resolve, reject) => {
        const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
        const signal = AbortSignal.timeout(30_000);
        const options = { host: "127.0.0.1", port, servername, ca, method, path, headers, signal };
        const sent = request({ ...options, agent: false }, (answer) => {
          let body = "";
          answer.setEncoding("utf8").on("data", (chunk: string) => {
            body += chunk;
          });
          answer.once("end", () => resolve({ status: answer.statusCode ?? 0, body }));
          answer.once("error", reject);
        });
        sent.once("error", reject);
        sent.end();
      }),
  };
}

/** The operator's control stream as somebody dials it who has got hold of a token. */
export interface ControlDoor {
  /** The first answer to a token. */
  knock(token: string): Promise<unknown>;
  close(): void;
}

/** Opens the way to the control stream; `ca` is PEM of the control plane's authorities. */
export async function controlDoor(scenario: Scenario, ca: string): Promise<ControlDoor> {
  const { port, close } = await forward(scenario, "service/sallyport-control", 8443);
  return {
    close,
    knock: async (token) => {
      const servername = `sallyport-control.${systemNamespace}.svc`;
      const socket = connect({ host: "127.0.0.1", port, servername, ca, ALPNProtocols: [controlProtocol] });
      const connection = new FramedConnection(socket);
      socket.setTimeout(20_000, () => connection.end(new Error("the control stream says nothing")));
      try {
        connection.send({ kind: "hello", token, version: "test" });
        const { value } = await connection.messages().next();
        return value?.header;
      } finally {
        connection.end();
      }
    },
  };
}

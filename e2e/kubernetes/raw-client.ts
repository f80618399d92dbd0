/** Requests that no client library would send: exact headers, exact paths, exact bytes. */
import { type ClientHttp2Session, connect as connectHttp2 } from "node:http2";
import { request } from "node:https";
import { connect } from "node:tls";
import type { KubernetesGateway } from "../targets/kubernetes-gateway.ts";

/** What is sent, beside the path. */
export interface RawRequest {
  readonly method?: string;
  readonly user?: string;
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
  readonly body?: string | Buffer;
}

/** What came back. */
export interface RawAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: string;
}

const answerMs = 20_000;

/** One request on a connection of its own. */
export function raw(gateway: KubernetesGateway, path: string, options: RawRequest = {}): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    const authorization = { authorization: `Bearer ${gateway.token(options.user ?? "ana")}` };
    // Node would send the body of a DELETE without saying that there is one.
    const length = options.body === undefined ? {} : { "content-length": Buffer.byteLength(options.body) };
    const sent = request(
      {
        host: "localhost",
        port: gateway.port,
        // As it is: a URL would be put in order first.
        path,
        method: options.method ?? "GET",
        ca: gateway.caPem,
        headers: { ...authorization, ...length, ...(options.headers as Record<string, string>) },
        agent: false,
        timeout: answerMs,
      },
      (response) => {
        let body = "";
        response.setEncoding("utf8").on("data", (text: string) => {
          body += text;
        });
        response.on("error", reject);
        response.on("end", () =>
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body }),
        );
      },
    );
    sent.on("timeout", () => sent.destroy(new Error(`no answer to ${path}`)));
    sent.on("error", reject);
    sent.end(options.body);
  });
}

/** One request over HTTP/2. */
export async function rawHttp2(
  gateway: KubernetesGateway,
  headers: Readonly<Record<string, string | readonly string[]>>,
  body = "",
): Promise<RawAnswer> {
  const session = rawHttp2Session(gateway);
  try {
    return await session.ask(headers, body);
  } finally {
    session.close();
  }
}

/** Requests over one HTTP/2 connection, side by side. */
export function rawHttp2Session(gateway: KubernetesGateway, silentMs = answerMs) {
  const session = connectHttp2(gateway.url, { ca: gateway.caPem });
  session.setTimeout(silentMs, () => session.destroy(new Error("no answer")));
  const ask = (headers: Readonly<Record<string, string | readonly string[]>>, body = "") =>
    askOver(session, headers, body);
  const stream = (headers: Readonly<Record<string, string>>) => session.request(headers);
  return { ask, stream, close: () => session.destroy() };
}

function askOver(
  session: ClientHttp2Session,
  headers: Readonly<Record<string, string | readonly string[]>>,
  body: string,
): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    session.once("error", reject);
    const stream = session.request(headers as Record<string, string>, { endStream: body === "" });
    let answer: Readonly<Record<string, unknown>> = {};
    let text = "";
    stream.on("response", (given) => {
      answer = given;
    });
    stream.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
    });
    stream.on("error", reject);
    stream.on("close", () => {
      session.off("error", reject);
      resolve({ status: Number(answer[":status"] ?? 0), headers: answer, body: text });
    });
    if (body !== "") stream.end(body);
  });
}

/** What the gateway answers to bytes, until it closes. */
export function rawBytes(gateway: Pick<KubernetesGateway, "port" | "caPem">, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({
      host: "localhost",
      port: gateway.port,
      ca: gateway.caPem,
      ALPNProtocols: ["http/1.1"],
    });
    let got = "";
    socket.setTimeout(4_000, () => socket.destroy());
    socket.on("secureConnect", () => socket.write(text, "latin1"));
    socket.setEncoding("latin1").on("data", (chunk: string) => {
      got += chunk;
    });
    socket.on("close", () => resolve(got));
    socket.on("error", reject);
  });
}

/** What the gateway says to one try of an exec: the id of its refusal, where it refuses. */
export interface TriedExec {
  /** kubectl asks by GET for a WebSocket, and then by POST for SPDY. */
  readonly method: "GET" | "POST";
  readonly token: string;
  readonly command: string;
  /** What a run of kubectl calls itself; "" where a client does not. */
  readonly run?: string;
}

/** Asks for an exec on a connection of its own as kubectl would; gives back the refusal's id. */
export async function tryExec(
  gateway: Pick<KubernetesGateway, "port" | "caPem">,
  { method, token, command, run = "" }: TriedExec,
): Promise<string | undefined> {
  const head = [
    `${method} /api/v1/namespaces/default/pods/p/exec?command=${command}&stdout=true HTTP/1.1`,
    "Host: localhost",
    `Authorization: Bearer ${token}`,
    ...(run === "" ? [] : [`Kubectl-Session: ${run}`]),
    method === "GET" ? upgradeHead : spdyHead,
    "",
  ];
  return /\(([0-9a-f]{12})\)/.exec(await rawBytes(gateway, head.join("\r\n")))?.[1];
}

const spdyHead = [
  "Connection: Upgrade",
  "Upgrade: SPDY/3.1",
  "X-Stream-Protocol-Version: v4.channel.k8s.io",
  "",
].join("\r\n");

/** The head of a WebSocket's request, without its first line and without who asks. */
export const upgradeHead = [
  "Connection: Upgrade",
  "Upgrade: websocket",
  "Sec-WebSocket-Version: 13",
  "Sec-WebSocket-Key: eA==",
  "Sec-WebSocket-Protocol: v5.channel.k8s.io",
  "",
].join("\r\n");

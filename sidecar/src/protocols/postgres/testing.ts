/** A session on its own, between two scripted ends: what tests of the protocol are written with. */
import {
  analyseSql,
  compilePolicies,
  forSession,
  type PolicyRule,
  type SessionPolicy,
  shapeOf,
  staticNames,
} from "@sallyport/policy";
import { SessionGuard } from "../../guard/index.ts";
import type { CommandRecord, ResponseRecord, SessionRecording } from "../../recording/model.ts";
import { defaultLimits, type Limits } from "../../wire/limits.ts";
import { ApplicationName } from "./application-name.ts";
import { backend, errorFrame, frame, frontend, lengthAt, readErrorFields } from "./frames.ts";
import { SessionMasks } from "./masking/session-masks.ts";
import { PreparedStatements } from "./prepared.ts";
import { PostgresSession } from "./session.ts";
import { DecisionCache, type LiveNames, StatementJudge } from "./statement-judge.ts";

const c = (text: string) => Buffer.from(`${text}\0`);
const int16 = (value: number) => Buffer.from([value >> 8, value & 255]);

/** Messages of a client. */
export const client = {
  query: (sql: string) => frame(frontend.query, c(sql)),
  parse: (name: string, sql: string) => frame(frontend.parse, Buffer.concat([c(name), c(sql), int16(0)])),
  bind: (portal: string, statement: string, values: readonly (string | null)[] = []) =>
    frame(
      frontend.bind,
      Buffer.concat([
        c(portal),
        c(statement),
        int16(0),
        int16(values.length),
        ...values.map((value) => {
          const bytes = Buffer.from(value ?? "");
          const head = Buffer.alloc(4);
          head.writeInt32BE(value === null ? -1 : bytes.length);
          return Buffer.concat([head, bytes]);
        }),
        int16(0),
      ]),
    ),
  describe: (what: "S" | "P", name: string) =>
    frame(frontend.describe, Buffer.concat([Buffer.from(what), c(name)])),
  execute: (portal: string, rows = 0) => {
    const count = Buffer.alloc(4);
    count.writeInt32BE(rows);
    return frame(frontend.execute, Buffer.concat([c(portal), count]));
  },
  close: (what: "S" | "P", name: string) =>
    frame(frontend.close, Buffer.concat([Buffer.from(what), c(name)])),
  sync: () => frame(frontend.sync, Buffer.alloc(0)),
  copyData: (text: string) => frame(frontend.copyData, Buffer.from(text)),
  copyDone: () => frame(frontend.copyDone, Buffer.alloc(0)),
  terminate: () => frame(frontend.terminate, Buffer.alloc(0)),
  functionCall: () => frame(frontend.functionCall, Buffer.alloc(10)),
};

/** Messages of a server. */
export const server = {
  parseComplete: () => frame(backend.parseComplete, Buffer.alloc(0)),
  bindComplete: () => frame(backend.bindComplete, Buffer.alloc(0)),
  closeComplete: () => frame(backend.closeComplete, Buffer.alloc(0)),
  noData: () => frame(backend.noData, Buffer.alloc(0)),
  rowDescription: () => frame(backend.rowDescription, Buffer.concat([int16(1), c("a"), Buffer.alloc(18)])),
  dataRow: (...values: readonly string[]) => {
    const fields = values.flatMap((value) => {
      const head = Buffer.alloc(4);
      head.writeInt32BE(Buffer.byteLength(value));
      return [head, Buffer.from(value)];
    });
    return frame(backend.dataRow, Buffer.concat([int16(values.length), ...fields]));
  },
  complete: (tag: string) => frame(backend.commandComplete, c(tag)),
  ready: (status: "I" | "T" | "E") => frame(backend.readyForQuery, Buffer.from(status)),
  copyIn: () => frame(backend.copyInResponse, Buffer.from([0, 0, 0])),
  error: (sqlstate: string, message: string) => errorFrame({ severity: "ERROR", sqlstate, message }),
  parameter: (name: string, value: string) =>
    frame(backend.parameterStatus, Buffer.concat([c(name), c(value)])),
};

/** Cuts a byte string into whole messages; fails on anything left over. */
export function messagesIn(bytes: Buffer): { type: string; body: Buffer }[] {
  const messages: { type: string; body: Buffer }[] = [];
  let at = 0;
  while (at < bytes.length) {
    const size = lengthAt(bytes, at) + 1;
    if (size < 5 || at + size > bytes.length) throw new Error("not whole messages");
    messages.push({ type: String.fromCharCode(bytes[at] ?? 0), body: bytes.subarray(at + 5, at + size) });
    at += size;
  }
  return messages;
}

/** The SQLSTATE and message of an ErrorResponse body. */
export function errorIn(body: Buffer): { sqlstate: string; message: string } {
  const fields = readErrorFields(body);
  return { sqlstate: fields.get("C") ?? "", message: fields.get("M") ?? "" };
}

/** A recording that keeps its records for the test to look at, and fails or fills up when told. */
export class RememberedRecording implements SessionRecording {
  readonly commands: CommandRecord[] = [];
  readonly responses: ResponseRecord[] = [];
  readonly events: string[] = [];
  rowBytes = 0;
  failure: Error | undefined;
  command(record: CommandRecord): number {
    if (this.failure !== undefined) return -1;
    return this.commands.push(record);
  }
  response(_number: number, record: ResponseRecord): void {
    this.responses.push(record);
  }
  rows(_number: number, chunk: Uint8Array): void {
    this.rowBytes += chunk.length;
  }
  event(name: string): void {
    this.events.push(name);
  }
  stored(): Promise<void> {
    return this.room();
  }
  room(): Promise<void> {
    return this.failure === undefined ? Promise.resolve() : Promise.reject(this.failure);
  }
  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** What substitute statements of tests are marked with. */
export const nonce = "refused_by_test";

/** A session whose both ends are the test's. */
export interface TestSession {
  readonly session: PostgresSession;
  readonly recording: RememberedRecording;
  /** Puts other rules in force, as a reload does. */
  adopt(rules: readonly PolicyRule[], more?: object): void;
  /** Sets the clock that rules read. */
  passTo(nowMs: number): void;
  /** Gives bytes of the client and waits until the session takes more. */
  send(...messages: readonly Buffer[]): Promise<void>;
  reply(...messages: readonly Buffer[]): void;
  /** What has left toward the server since the last call, as letters: `PBDES`. */
  upstream(): string;
  upstreamBytes(): Buffer;
  /** What has left toward the client since the last call. */
  received(): { type: string; body: Buffer }[];
  clientBytes(): Buffer;
}

const identity = { provider: "test", user: "test:ann", groups: [], kind: "Human", claims: {} } as const;
const facts = { namespace: "default", name: "shop", labels: {}, namespaceLabels: {}, protocol: "postgres" };

function policyOf(rules: readonly PolicyRule[], more: object = {}): SessionPolicy {
  const spec = {
    resources: { names: ["shop"] },
    subjects: [{ user: "test:ann" }],
    profile: "Admin",
    rules,
    ...more,
  };
  const documents = [{ kind: "AccessPolicy", namespace: "default", name: "p", generation: 1, spec }] as const;
  const resources = [{ ...facts, spec: { protocol: "postgres" } }];
  const { set, problems } = compilePolicies(documents, resources);
  if (problems.length > 0) throw new Error(JSON.stringify(problems));
  const session = { database: "shop", account: "app", applicationName: "", clientAddress: "127.0.0.1" };
  return forSession(set, { resource: facts, identity, session });
}

/** A session of a user with the Admin profile and the given rules beside it. */
export function openSession(
  rules: readonly PolicyRule[],
  limits: Partial<Limits> = {},
  isFresh = () => true,
  encodings?: ReadonlySet<string>,
): TestSession {
  const policy = policyOf(rules);
  let nowMs = 0;
  const recording = new RememberedRecording();
  const guard = new SessionGuard({
    policy,
    recording,
    recordingMode: "Required",
    durability: "Accepted",
    enforcement: "Enforce",
    recordsRows: true,
    now: () => nowMs,
    onDecision: () => undefined,
  });
  const statements = new PreparedStatements();
  const names: LiveNames = {
    ...staticNames(["public.customers(id, name)", "public.orders(id, total)"]),
    get isFresh() {
      return isFresh();
    },
    isPrivate: false,
    mayChangeAtEnd: false,
    prepared: (name) => statements.lookUp(name),
    refresh: () => Promise.resolve(),
    readAnew: async (then) => then(),
    apply: () => undefined,
    ready: () => undefined,
    reportSearchPath: () => undefined,
  };
  const judge = new StatementJudge({
    guard,
    names,
    analyser: { analyse: analyseSql, shapeOf },
    sharedCache: new DecisionCache(),
    prepared: statements,
    encodings,
  });
  const masks = new SessionMasks({
    key: Buffer.alloc(32),
    onMasked: () => undefined,
    onPattern: () => undefined,
    masking: () => guard.masking,
    names,
  });
  let up: Uint8Array[] = [];
  let down: Uint8Array[] = [];
  const made: PostgresSession = new PostgresSession(
    {
      guard,
      judge,
      names,
      masks,
      limits: { ...defaultLimits, ...limits },
      nonce,
      applicationName: new ApplicationName("local:ann/1", undefined),
      toClient: (bytes) => down.push(bytes),
      toUpstream: (bytes) => up.push(bytes),
      onTerminate: () => undefined,
      clock: { monotonicMs: () => 0, nowMs: () => 0 },
    },
    statements,
  );
  const take = (pieces: Uint8Array[]) => Buffer.concat(pieces);
  const self: TestSession = {
    session: made,
    recording,
    passTo: (at) => {
      nowMs = at;
    },
    adopt: (changed, more) => {
      guard.adopt(policyOf(changed, more));
      judge.policyChanged(new DecisionCache());
    },
    send: async (...messages) => {
      await made.fromClient(Buffer.concat(messages));
    },
    reply: (...messages) => made.fromUpstream(Buffer.concat(messages)),
    upstreamBytes: () => {
      const bytes = take(up);
      up = [];
      return bytes;
    },
    upstream: () =>
      messagesIn(self.upstreamBytes())
        .map(({ type }) => type)
        .join(""),
    clientBytes: () => {
      const bytes = take(down);
      down = [];
      return bytes;
    },
    received: () => messagesIn(self.clientBytes()),
  };
  return self;
}

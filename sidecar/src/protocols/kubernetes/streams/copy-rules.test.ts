import { PassThrough } from "node:stream";
import {
  compilePolicies,
  forSession,
  type Identity,
  type PolicyRule,
  type ResourceFacts,
} from "@sallyport/policy";
import { expect, test } from "vitest";
import { type SessionApprovals, SessionGuard } from "../../../guard/index.ts";
import type { CommandRecord, SessionRecording } from "../../../recording/model.ts";
import { OutputPatterns } from "../../../terminal/index.ts";
import { noFacts } from "../command.ts";
import type { OpenSession } from "../connection.ts";
import { copyOf } from "../copying.ts";
import { type ApiRequest, readRequest } from "../request.ts";
import { ChannelBridge } from "./channel-bridge.ts";
import { CopyRefused, copyGate, mayGoOnCopying } from "./copy-rules.ts";
import { SpdyBridge } from "./spdy-bridge.ts";
import { controlFrame, dataFrame, frameTypes, HeaderStorer, SpdyReader } from "./spdy-frames.ts";
import { commandReader } from "./stream-readers.ts";
import { type OutputStream, Terminal } from "./terminal.ts";
import { FrameReader, frame } from "./websocket-frames.ts";

const resource: ResourceFacts = {
  ...{ namespace: "a", name: "c", labels: {}, namespaceLabels: {}, protocol: "kubernetes" },
};
const identity: Identity = { provider: "p", user: "p:ann", groups: [], kind: "Human", claims: {} };
const noKeys: Omit<PolicyRule, "name"> = { match: { objects: ["/etc/*", "*.pem"] }, action: "Deny" };

/** Nobody has approved anything, and nobody is asked. */
const approvals = {
  service: { granted: () => undefined, listen: () => () => undefined },
  ...{
    identity,
    resource: "a/c",
    sessionId: "s",
    holdInTransactionMs: 0,
    noticeMs: 1_000,
    onEvent: () => {},
  },
} as unknown as SessionApprovals;

/** What a session may do under rules, their policy Enforce or Audit as `mode` says. */
function policyUnder(rules: readonly Omit<PolicyRule, "name">[], mode: "Enforce" | "Audit" = "Enforce") {
  const base = { resources: { names: ["c"] }, subjects: [{ user: "p:ann" }] };
  const policyOf = (name: string, spec: object) => ({
    ...{ kind: "AccessPolicy" as const, namespace: "a", name, generation: 1, spec: { ...base, ...spec } },
  });
  const named = rules.map((rule, at) => ({ ...rule, name: `r${at}` }));
  const { set, problems } = compilePolicies(
    [policyOf("all", { profile: "Admin" }), policyOf("files", { mode, rules: named })],
    [{ ...resource, spec: { protocol: "kubernetes" } }],
    { features: { masking: false, approvals: true } },
  );
  expect(problems).toEqual([]);
  const session = { database: "", account: "g", applicationName: "", clientAddress: "192.0.2.1" };
  return forSession(set, { resource, identity, session });
}

/** A session under such rules, and what was recorded of it. */
function sessionUnder(
  rules: readonly Omit<PolicyRule, "name">[],
  mode: "Enforce" | "Audit" = "Enforce",
  enforcement: "Enforce" | "Audit" = "Enforce",
) {
  const records: CommandRecord[] = [];
  const notes: unknown[] = [];
  const recording: SessionRecording = {
    command: (record) => records.push(record),
    room: () => Promise.resolve(),
    stored: () => Promise.resolve(),
    response: () => {},
    rows: () => {},
    event: (name, fields) => void notes.push({ name, ...fields }),
    close: () => Promise.resolve(),
    failure: undefined,
  };
  const guard = new SessionGuard({
    policy: policyUnder(rules, mode),
    recording,
    recordingMode: "BestEffort",
    durability: "Accepted",
    recordsRows: false,
    enforcement,
    now: () => 0,
    onDecision: () => {},
    approvals,
  });
  return { guard, records, notes };
}

/** A gate for an exec of these arguments under a session's rules. */
function gateFor(line: string, guard: SessionGuard) {
  const query = line.split(" ").map((word) => `command=${encodeURIComponent(word)}`);
  const request = readRequest("POST", `/api/v1/namespaces/a/pods/p/exec?${query.join("&")}`) as ApiRequest;
  const copying = copyOf(line.split(" "));
  if (copying === undefined) throw new Error("that is no copy");
  const session = { admitted: { guard } } as unknown as OpenSession;
  return copyGate({ session, request, facts: noFacts, copying, nowMs: () => 0 });
}

function terminalFor(line: string, guard: SessionGuard, show: (stream: OutputStream, bytes: Buffer) => void) {
  const options = { recordsInput: false, patterns: new OutputPatterns([]), listing: undefined };
  return new Terminal(guard, 1, { ...options, gate: gateFor(line, guard) }, show);
}

/** An entry of an archive, with its data. */
function entry(name: string, content: string): Buffer {
  const head = Buffer.alloc(512);
  head.write(name, 0);
  head.write(`${content.length.toString(8).padStart(11, "0")}\0`, 124);
  head.write("0", 156);
  head.fill(0x20, 148, 156);
  head.write(
    `${head
      .reduce((sum, byte) => sum + byte, 0)
      .toString(8)
      .padStart(6, "0")}\0 `,
    148,
  );
  return Buffer.concat([head, Buffer.from(content), Buffer.alloc((512 - (content.length % 512)) % 512)]);
}
const good = entry("ok.txt", "fine");
const bad = entry("key.pem", "secret");
const end = Buffer.alloc(1_024);

const put = "tar -xmf - -C /data";
const refused = '"/data/key.pem" of 6 bytes is not copied by rule r0 of policy files: ';

/** What one side got, each message or frame a word. */
const whole = (stream: PassThrough) => {
  stream.uncork();
  return (stream.read() as Buffer | null) ?? Buffer.alloc(0);
};
const messages = (bytes: Buffer, isMasked: boolean, channel: number) =>
  Buffer.concat(
    [...new FrameReader(isMasked).read(bytes)].flatMap((piece) =>
      piece.isFirst && piece.bytes[0] === channel ? [Buffer.from(piece.bytes.subarray(1))] : [],
    ),
  );

test("K19: over WebSocket nothing of a denied file reaches the container, and one record tells of it", async () => {
  const { guard, records, notes } = sessionUnder([noKeys]);
  const [client, upstream] = [new PassThrough(), new PassThrough()];
  const bridge = new ChannelBridge(client, () => undefined, { isBase64: false, hasPlainStatus: false });
  await bridge.connect(
    upstream,
    terminalFor(put, guard, () => undefined),
  );
  const typed = frame(2, [Buffer.from([0]), good, bad, end], true);
  const failed = await Promise.resolve(bridge.fromClient(Buffer.concat(typed))).catch(
    (error: unknown) => error,
  );
  expect(failed).toBeInstanceOf(CopyRefused);
  expect(String(failed)).toContain(refused);
  const id = /\(([0-9a-f]{12})\)$/.exec(String(failed))?.[1];
  expect(messages(whole(upstream), true, 0).equals(good)).toBe(true);
  expect(records.map(({ verdict, text }) => [verdict.action, text])).toEqual([
    ["Deny", 'create pods/exec a/p -- tar -xmf - -C /data (file "/data/key.pem", 6 bytes)'],
  ]);
  expect(notes).toContainEqual(expect.objectContaining({ name: "refused", code: "denied", id }));
});

test("K19: the end of what is typed is the end of an archive, which must be whole", async () => {
  for (const [typed, isWhole] of [
    [Buffer.concat([good, end]), true],
    [good.subarray(0, 300), false],
    [Buffer.from("hello\n"), false],
  ] as const) {
    const { guard } = sessionUnder([noKeys]);
    const [client, upstream] = [new PassThrough(), new PassThrough()];
    const bridge = new ChannelBridge(client, () => undefined, { isBase64: false, hasPlainStatus: false });
    await bridge.connect(
      upstream,
      terminalFor(put, guard, () => undefined),
    );
    const sent = [frame(2, [Buffer.from([0]), typed], true), frame(2, [Buffer.from([255, 0])], true)].flat();
    const failed = await Promise.resolve(bridge.fromClient(Buffer.concat(sent))).catch(
      (error: unknown) => error,
    );
    expect(failed instanceof CopyRefused).toBe(!isWhole);
    const bytes = whole(upstream);
    expect(messages(bytes, true, 0).equals(isWhole ? typed : Buffer.alloc(0))).toBe(true);
    expect(messages(Buffer.from(bytes), true, 255)).toHaveLength(isWhole ? 1 : 0);
  }
});

test("K19: what is typed while the copy waits for approval is judged once it begins", async () => {
  const { guard, records } = sessionUnder([noKeys]);
  const [client, upstream] = [new PassThrough(), new PassThrough()];
  const bridge = new ChannelBridge(client, () => undefined, { isBase64: false, hasPlainStatus: false });
  const typed = frame(2, [Buffer.from([0]), good, bad, end], true);
  await bridge.fromClient(Buffer.concat(typed));
  expect(records).toHaveLength(0);
  const connecting = bridge.connect(
    upstream,
    terminalFor(put, guard, () => undefined),
  );
  await expect(connecting).rejects.toThrow(refused);
  expect(messages(whole(upstream), true, 0).equals(good)).toBe(true);
});

test("K19: over WebSocket nothing of a denied file is shown, and what comes before it is", async () => {
  const { guard, records } = sessionUnder([noKeys]);
  const [client, upstream] = [new PassThrough(), new PassThrough()];
  const bridge = new ChannelBridge(client, () => undefined, { isBase64: false, hasPlainStatus: false });
  await bridge.connect(upstream, terminalFor("tar cf - /", guard, bridge.show));
  const printed = frame(2, [Buffer.from([1]), good, bad, end], false);
  await expect(bridge.fromUpstream(Buffer.concat(printed))).rejects.toThrow(
    '"/key.pem" of 6 bytes is not copied',
  );
  await expect(bridge.upstreamEnded()).rejects.toThrow(CopyRefused);
  expect(messages(whole(client), false, 1).equals(good)).toBe(true);
  expect(records).toHaveLength(1);
});

test("K19: what a container prints in place of an archive is not shown, and the end is a refusal", async () => {
  const { guard } = sessionUnder([noKeys]);
  const [client, upstream] = [new PassThrough(), new PassThrough()];
  const bridge = new ChannelBridge(client, () => undefined, { isBase64: false, hasPlainStatus: false });
  await bridge.connect(upstream, terminalFor("tar cf - /x", guard, bridge.show));
  await bridge.fromUpstream(Buffer.concat(frame(2, [Buffer.from([1]), Buffer.from("root:x:0\n")], false)));
  const ended = frame(2, [Buffer.from([3]), Buffer.from('{"status":"Success"}')], false);
  await expect(bridge.fromUpstream(Buffer.concat(ended))).rejects.toThrow(/in the middle of a head/);
  expect(whole(client)).toHaveLength(0);
});

/** An exec over SPDY: its streams opened, and what each side was sent on them. */
async function overSpdy(line: string, guard: SessionGuard) {
  const [toClient, toServer]: Buffer[][] = [[], []];
  const bridge = new SpdyBridge((pieces) => void toClient?.push(...pieces), true);
  const terminal = terminalFor(line, guard, (stream, bytes) => bridge.show(stream, bytes));
  const reader = commandReader(terminal, () => undefined);
  await bridge.connect({ send: (pieces) => void toServer?.push(...pieces), reader, onEnd: () => undefined });
  const store = new HeaderStorer();
  const number = (value: number) => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(value);
    return bytes;
  };
  const text = (value: string) => Buffer.concat([number(value.length), Buffer.from(value)]);
  for (const [id, type] of [
    [1, "error"],
    [3, "stdin"],
    [5, "stdout"],
  ] as const) {
    const headers = store.write(Buffer.concat([number(1), text("streamtype"), text(type)]));
    const body = Buffer.concat([number(id), Buffer.alloc(6), headers]);
    await bridge.fromClient(Buffer.concat(controlFrame(frameTypes.synStream, 0, body)));
  }
  const got = (pieces: readonly Buffer[], stream: number) => {
    const found = { bytes: Buffer.alloc(0), isOver: false };
    for (const item of new SpdyReader().read(Buffer.concat(pieces))) {
      if (item.kind !== "data" || item.stream !== stream) continue;
      found.bytes = Buffer.concat([found.bytes, item.bytes]);
      found.isOver ||= item.isFin;
    }
    return found;
  };
  return { bridge, typed: () => got(toServer ?? [], 3), shown: () => got(toClient ?? [], 5) };
}

test("K19: over SPDY nothing of a denied file reaches the container, nor the end that would make it whole", async () => {
  const { guard, records } = sessionUnder([noKeys]);
  const { bridge, typed } = await overSpdy(put, guard);
  const sent = Buffer.concat(dataFrame(3, Buffer.concat([good, bad, end]), true));
  await expect(bridge.fromClient(sent)).rejects.toThrow(refused);
  expect([typed().bytes.equals(good), typed().isOver, records.length]).toEqual([true, false, 1]);
  const short = await overSpdy(put, guard);
  await expect(short.bridge.fromClient(Buffer.concat(dataFrame(3, Buffer.from("hi"), true)))).rejects.toThrow(
    /in the middle of a head/,
  );
  expect(short.typed()).toEqual({ bytes: Buffer.alloc(0), isOver: false });
});

test("K19: over SPDY nothing of a denied file is shown", async () => {
  const { guard } = sessionUnder([noKeys]);
  const { bridge, shown } = await overSpdy("tar cf - /", guard);
  const sent = Buffer.concat(dataFrame(5, Buffer.concat([good, bad, end]), true));
  await expect(bridge.fromUpstream(sent)).rejects.toThrow('"/key.pem" of 6 bytes is not copied');
  expect([shown().bytes.equals(good), shown().isOver]).toEqual([true, false]);
  const allowed = await overSpdy("tar cf - /", guard);
  await allowed.bridge.fromUpstream(Buffer.concat(dataFrame(5, Buffer.concat([good, end]), true)));
  expect([allowed.shown().bytes.length, allowed.shown().isOver]).toEqual([good.length + end.length, true]);
});

test("rules of size and of CEL are asked, and Allow rules by CEL alone", async () => {
  const judged = async (rules: readonly Omit<PolicyRule, "name">[], bytes = bad) => {
    const { guard } = sessionUnder(rules);
    const sifted = gateFor(put, guard)?.push(bytes);
    return sifted?.refuse === undefined
      ? "passes"
      : String(await sifted.refuse().catch((error: unknown) => error));
  };
  const deny = (cel: string) => ({ match: { cel }, action: "Deny" });
  expect(await judged([deny("command.facts.fileSize > 6")])).toBe("passes");
  expect(await judged([deny("command.facts.fileSize > 5")])).toContain("rule r0");
  expect(
    await judged([deny('command.facts.file != "" && !command.facts.file.startsWith("/tmp/")')]),
  ).toContain("r0");
  expect(await judged([deny('command.facts.file.startsWith("/tmp/")')])).toBe("passes");
  expect(await judged([{ match: { objects: ["/tmp/*"] }, action: "Allow" }, noKeys], good)).toBe("passes");
  expect(await judged([{ match: { commands: ["cp.get"], objects: ["/data/*"] }, action: "Deny" }])).toBe(
    "passes",
  );
  expect(await judged([{ match: { commands: ["cp.put"], objects: ["/data/*"] }, action: "Deny" }])).toContain(
    "r0",
  );
});

test("a file that wants approval is refused in the middle of a copy, unless the copy was approved by the same rule", async () => {
  const rule = (objects: readonly string[]) => ({
    ...{ match: { objects }, action: "RequireApproval", approval: { required: 1 } },
  });
  const late = sessionUnder([rule(["*.pem"])]);
  const sifted = gateFor(put, late.guard)?.push(bad);
  await expect(sifted?.refuse?.()).rejects.toThrow(/needs approval by rule r0/);
  expect(late.records.map(({ verdict }) => verdict.action)).toEqual(["RequireApproval"]);
  // The folder that is written into was asked about before.
  const { guard } = sessionUnder([rule(["/data/*"])]);
  expect(gateFor(put, guard)?.push(bad).refuse).toBeUndefined();
});

test("no rule that names files, no gate; rules that only report let all pass, and are recorded", async () => {
  expect(
    gateFor(put, sessionUnder([{ match: { objects: ["create:pods"] }, action: "Deny" }]).guard),
  ).toBeUndefined();
  for (const { guard, records } of [
    sessionUnder([noKeys], "Audit"),
    sessionUnder([noKeys], "Enforce", "Audit"),
  ]) {
    const gate = gateFor(put, guard);
    expect(gate?.push(Buffer.concat([good, bad])).refuse).toBeUndefined();
    expect(gate?.push(Buffer.alloc(512, 9)).passed).toHaveLength(512);
    expect(records).toHaveLength(1);
    expect(records[0]?.text).toContain("/data/key.pem");
  }
});

test("K31: a copy that runs ends where rules begin to name files, unless each of its files is judged", () => {
  const line = put.split(" ").map((word) => `command=${encodeURIComponent(word)}`);
  const request = readRequest("POST", `/api/v1/namespaces/a/pods/p/exec?${line.join("&")}`) as ApiRequest;
  const copy = (guard: SessionGuard) => ({
    session: { admitted: { guard } } as unknown as OpenSession,
    ...{ request, facts: noFacts },
  });
  const other: Omit<PolicyRule, "name"> = { match: { objects: ["/var/*"] }, action: "Deny" };
  const watched = (mode: "Enforce" | "Audit", from: Omit<PolicyRule, "name">[], bytes: Buffer) => {
    const { guard } = sessionUnder(from, mode);
    const gate = gateFor(put, guard);
    expect(gate?.push(bytes).refuse).toBeUndefined();
    expect(mayGoOnCopying(copy(guard), gate)).toBe(true);
    const after = (rules: Omit<PolicyRule, "name">[], then: "Enforce" | "Audit" = "Enforce") => {
      guard.adopt(policyUnder(rules, then));
      return mayGoOnCopying(copy(guard), gate);
    };
    return after;
  };
  const half = bad.subarray(0, 515);
  // Nothing was looked at: whatever the rules name, what has gone by may have been it.
  const unwatched = watched("Enforce", [], half);
  expect([unwatched([noKeys], "Audit"), unwatched([noKeys]), unwatched([])]).toEqual([true, false, true]);
  // What is watched goes on, but not with a file that is denied from now on; behind it all is well.
  const between = watched("Enforce", [other], half);
  expect([between([noKeys]), between([other]), between([noKeys], "Audit")]).toEqual([false, true, true]);
  expect(watched("Enforce", [other], bad)([noKeys])).toBe(true);
  // Where rules only watched, and could not read it, everything passes: not once they are enforced.
  const unread = watched("Audit", [noKeys], Buffer.concat([good, Buffer.alloc(512, 1)]));
  expect([unread([noKeys], "Audit"), unread([noKeys])]).toEqual([true, false]);
});

import fc from "fast-check";
import { expect, test } from "vitest";
import { parseGatewayMessage, parseOperatorMessage } from "./messages.ts";
import { gatewayUri, parseGatewayUri, peerNumber, recorderFor } from "./names.ts";
import { parseRecordingAnswer, parseRecordingRequest } from "./recording-messages.ts";

const parsers = [parseGatewayMessage, parseOperatorMessage, parseRecordingRequest, parseRecordingAnswer];
const kinds = [
  "hello",
  "sessions",
  "problems",
  "sign",
  "ask",
  "bundle",
  "welcome",
  "peers",
  "open",
  "append",
  "failed",
];

test("whatever JSON comes, a parser gives a message or throws a MessageError", () => {
  const anything = fc.oneof(
    fc.jsonValue(),
    fc.record({
      kind: fc.constantFrom(...kinds),
      id: fc.jsonValue(),
      file: fc.jsonValue(),
      put: fc.jsonValue(),
    }),
  );
  fc.assert(
    fc.property(anything, (value) => {
      for (const parse of parsers) {
        try {
          expect(parse(value).kind).toBeTypeOf("string");
        } catch (error) {
          expect((error as Error).name).toBe("MessageError");
        }
      }
    }),
  );
});

test("what is not in the agreement is left out", () => {
  const message = parseGatewayMessage({ kind: "hello", token: "t", version: "1", resource: "other/db" });
  expect(message).toEqual({ kind: "hello", token: "t", version: "1" });
});

test("a document of a kind that does not travel is refused", () => {
  const update = { kind: "bundle", revision: {}, digest: "d", remove: [] };
  const put = (key: string) => parseOperatorMessage({ ...update, put: [{ key, json: "{}" }] });
  expect(put("AccessPolicy/ns/a").kind).toBe("bundle");
  for (const key of ["Secret/ns/a", "ConfigMap/ns/a", "a"]) expect(() => put(key)).toThrow("does not travel");
});

test("a hello says whether peers may be told, and that of an earlier gateway says nothing", () => {
  const hello = { kind: "hello", token: "t", version: "1" };
  expect(parseGatewayMessage({ ...hello, takesPeers: true })).toEqual({ ...hello, takesPeers: true });
  expect(() => parseGatewayMessage({ ...hello, takesPeers: "yes" })).toThrow("takesPeers");
});

test("peers are a bounded list of pods and addresses", () => {
  const peer = { podUid: "uid-1", host: "10.0.0.1", port: 9465 };
  const told = (peers: unknown) => parseOperatorMessage({ kind: "peers", authorities: "pem", peers });
  expect(told([{ ...peer, name: "left out" }])).toEqual({ kind: "peers", authorities: "pem", peers: [peer] });
  for (const wrong of [
    { ...peer, podUid: 1 },
    { ...peer, host: "x".repeat(65) },
    { ...peer, port: -1 },
  ])
    expect(() => told([wrong])).toThrow("not as agreed");
  expect(() => told(Array.from({ length: 257 }, () => peer))).toThrow("peers");
});

test("the number of a pod is a byte, the same for everybody, and hardly ever another pod's", () => {
  const numbers = Array.from({ length: 1_000 }, (_, at) => peerNumber(`5f3c1d2e-0000-4000-8000-${at}`));
  expect(numbers.every((number) => Number.isInteger(number) && number >= 0 && number <= 255)).toBe(true);
  expect(new Set(numbers).size).toBeGreaterThan(200);
  expect(peerNumber("uid-1")).toBe(peerNumber("uid-1"));
});

test("a gateway's URI names exactly one gateway", () => {
  const name = { namespace: "shop", resource: "orders.db", podUid: "0b1c-2" };
  expect(parseGatewayUri(gatewayUri(name))).toEqual(name);
  const others = [
    "sallyport://gateway/shop/db",
    "sallyport://gateway/shop/../db/uid",
    "https://gateway/shop/db/uid",
  ];
  for (const uri of others) expect(parseGatewayUri(uri)).toBeUndefined();
});

test("a further recorder takes its share from the others and moves nothing between them", () => {
  const before = ["r-0", "r-1", "r-2"];
  const namespaces = Array.from({ length: 300 }, (_, at) => `ns-${at}`);
  let moved = 0;
  for (const namespace of namespaces) {
    const [old, now] = [recorderFor(namespace, before), recorderFor(namespace, [...before, "r-3"])];
    if (old !== now) {
      expect(now).toBe("r-3");
      moved++;
    }
  }
  expect(moved).toBeGreaterThan(30);
  expect(moved).toBeLessThan(150);
  expect(recorderFor("shop", [])).toBeUndefined();
});

test("the reason of a problem is one word in CamelCase: it stands in conditions and events", () => {
  const read = (reason: unknown) =>
    parseGatewayMessage({ kind: "problems", problems: [{ reason, message: "it is so" }] });
  expect(read("SecretMissing")).toMatchObject({ problems: [{ reason: "SecretMissing" }] });
  for (const wrong of ["", "Record down", "Record\nReady", "recorder", "Recorder-", "R".repeat(65), 1])
    expect(() => read(wrong)).toThrow("not as agreed");
});

test("a report of what went past approval is read as agreed, or refused; without one it is what it always was", () => {
  const session = {
    ...{ id: "1", cause: "held", state: "Live", user: "u", subjectKind: "Human", protocol: "ssh" },
    ...{ account: "", database: "", clientAddress: "", startedAt: 0, commands: 1, refused: 0 },
  };
  const read = (brokeGlass?: unknown, held?: unknown) =>
    parseGatewayMessage({ kind: "sessions", sessions: [{ ...session, brokeGlass, held }] });
  const rule = { policy: "prod", rule: "fixes", count: 1, reason: "" };
  expect(read()).toEqual({ kind: "sessions", sessions: [session] });
  expect(read(undefined, 2)).toEqual({ kind: "sessions", sessions: [{ ...session, held: 2 }] });
  for (const wrong of [-1, 0.5, "1"]) expect(() => read(undefined, wrong)).toThrow("not as agreed");
  expect(read({ count: 1, rules: [rule] })).toMatchObject({
    sessions: [{ brokeGlass: { count: 1, rules: [rule] } }],
  });
  for (const wrong of [
    { count: 1, rules: 1 },
    { count: -1, rules: [] },
    { count: 1, rules: Array(9).fill(rule) },
    { count: 1, rules: [{ ...rule, reason: "x".repeat(201) }] },
    { count: 1, rules: [{ ...rule, count: "1" }] },
  ])
    expect(() => read(wrong)).toThrow("not as agreed");
});

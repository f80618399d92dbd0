import { expect, test } from "vitest";
import { KubeError, type RawRequest } from "../kube/index.ts";
import { ExecProber, type ExecProberParts, readAnswer } from "./exec-prober.ts";

const answer = (status: number, message: string) => new KubeError({ status, reason: "", message });
const closed = answer(
  403,
  "denied request: direct pods/exec is closed in namespace a; connect through the Sallyport gateway",
);

test.each([
  ["the policy's refusal", closed, "closed"],
  ["a pod that is not there", answer(404, "pods not found"), "open"],
  [
    "a service that is not there, from 1.37 on",
    answer(503, 'no endpoints available for service "sallyport-bypass-probe_"'),
    "open",
  ],
  ["a missing upgrade", answer(400, "Upgrade request required"), "open"],
  ["RBAC's refusal", answer(403, "User cannot create resource pods/exec"), "unknown"],
  ["the refusal of somebody else's policy", answer(403, "connect through the bastion"), "unknown"],
  ["the policy's words with another status", answer(500, closed.message), "unknown"],
  ["a busy API server", answer(503, "try later"), "unknown"],
  ["no answer", new Error("timed out"), "unknown"],
])("%s", (_, error, expected) => {
  expect(readAnswer(error)).toBe(expected);
});

/** Runs rounds against a cluster of these namespaces until something new was told. */
async function tried(names: readonly string[], answers: (path: string) => unknown) {
  const over = new AbortController();
  const asked: RawRequest[] = [];
  const namespaces = names.map((name) => ({
    metadata: { name, labels: { "sallyport.dev/protect-exec": name === "other" ? "false" : "true" } },
  }));
  const parts = {
    client: {
      request: async (request: RawRequest) => {
        asked.push(request);
        throw answers(request.path);
      },
    },
    caches: { namespaces: { list: () => namespaces } },
    log: { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} },
    againAfterMs: 600_000,
    onChange: () => over.abort(),
  } as unknown as ExecProberParts;
  const prober = new ExecProber(parts);
  const before = prober.findings;
  await prober.run(over.signal);
  return { before, after: prober.findings, asked };
}

test("each labelled namespace is tried, and no other one", async () => {
  const { before, after, asked } = await tried(["b", "a", "other"], (path) =>
    path.includes("/b/") ? answer(404, "pods not found") : closed,
  );
  expect(before).toEqual({ closed: [], open: [], unknown: ["a", "b"], openWays: [] });
  const openWays = ways.map(({ way }) => way);
  expect(after).toEqual({ closed: ["a"], open: ["b"], unknown: [], openWays });
  expect(asked.map(({ method, path }) => `${method} ${path}`)).toEqual(
    ["a", "b"].flatMap((name) => ways.map(({ rest }) => `POST /api/v1/namespaces/${name}/${rest}`)),
  );
});

const ways = [
  { way: "pods/exec", rest: "pods/sallyport-bypass-probe/exec?command=true" },
  { way: "pods/attach", rest: "pods/sallyport-bypass-probe/attach" },
  { way: "pods/portforward", rest: "pods/sallyport-bypass-probe/portforward" },
  { way: "pods/proxy", rest: "pods/sallyport-bypass-probe_/proxy/" },
  { way: "services/proxy", rest: "services/sallyport-bypass-probe_/proxy/" },
];

test.each(ways)(
  "where $way alone is open, or not known, nobody is told that all is closed",
  async ({ way, rest }) => {
    const missing = (path: string) => (path.endsWith(rest) ? answer(404, "not found") : closed);
    const { after } = await tried(["a"], missing);
    expect(after).toEqual({ closed: [], open: ["a"], unknown: [], openWays: [way] });
    const silent = (path: string) => (path.endsWith(rest) ? new Error("timed out") : closed);
    expect((await tried(["a"], silent)).after).toMatchObject({ closed: [], open: [], unknown: ["a"] });
  },
);

test("of more than fifty namespaces the others are not known", async () => {
  const names = Array.from({ length: 52 }, (_, at) => `n${100 + at}`);
  const { after, asked } = await tried(names, () => closed);
  expect(asked).toHaveLength(50 * ways.length);
  expect(after.closed).toHaveLength(50);
  expect(after.unknown).toEqual(["n150", "n151"]);
});

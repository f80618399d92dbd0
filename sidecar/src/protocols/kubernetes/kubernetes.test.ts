import { createDeflate } from "node:zlib";
import { PatternScanner, SessionMasking } from "@sallyport/policy";
import { describe, expect, test, vi } from "vitest";
import { OutputPatterns } from "../../terminal/index.ts";
import { commandOf, noFacts } from "./command.ts";
import { Denials, digestOfDenial } from "./denials.ts";
import { securityOf, securityOfContainer, writtenBy } from "./facts.ts";
import { reasonIn, upstreamHeaders } from "./headers.ts";
import { boundChange, HeldCollection } from "./held-object.ts";
import { readJsonBody } from "./json-body.ts";
import { masked } from "./object-mask.ts";
import { readProtobuf } from "./protobuf.ts";
import { type ApiRequest, readRequest, targetOf } from "./request.ts";
import { readArgv } from "./shell.ts";
import { StreamMask } from "./stream-mask.ts";
import { CopyReader } from "./streams/copy.ts";
import {
  controlFrame,
  dataFrame,
  HeaderInflater,
  HeaderStorer,
  readHeaders,
  SpdyReader,
} from "./streams/spdy-frames.ts";
import { FrameReader, frame } from "./streams/websocket-frames.ts";

const read = (method: string, target: string) => readRequest(method, target) as ApiRequest;

test.each([
  ["GET", "/api/v1/pods", "list", "pods", "", ""],
  ["GET", "/api/v1/namespaces/a/pods/p", "get", "pods", "a", "p"],
  ["GET", "/api/v1/namespaces/a", "get", "namespaces", "a", "a"],
  ["GET", "/api/v1/namespaces/a/pods?watch=true", "watch", "pods", "a", ""],
  ["GET", "/api/v1/watch/namespaces/a/secrets", "watch", "secrets", "a", ""],
  ["DELETE", "/apis/apps/v1/namespaces/a/deployments", "deletecollection", "deployments", "a", ""],
  ["GET", "/api/v1/secrets?fieldSelector=metadata.name%3Dx", "list", "secrets", "", "x"],
  ["PUT", "/api/v1/namespaces/a/finalize", "update", "namespaces", "a", "a"],
])("K5: %s %s is %s of %s", (method, target, verb, resource, namespace, name) => {
  expect(read(method, target)).toMatchObject({ verb, resource, namespace, name });
});

test("K5, K6: what opens a stream is the same command, whatever the method says", () => {
  for (const method of ["GET", "POST"]) {
    const request = read(method, "/api/v1/namespaces/a/pods/p/exec?command=ls&command=-l&container=c");
    const { parts, argv } = commandOf(request);
    expect(parts).toEqual([
      expect.objectContaining({ operation: "execute", words: ["create", "pods/exec"] }),
    ]);
    expect(parts[0]?.objects[0]?.name).toBe("create:pods/exec");
    expect(argv).toEqual(["ls", "-l"]);
  }
  const operation = (method: string, path: string) => commandOf(read(method, path)).parts[0]?.operation;
  expect(operation("GET", "/api/v1/nodes/n/proxy/exec/a/p/c")).toBe("privilege");
  expect(operation("POST", "/api/v1/namespaces/a/serviceaccounts/s/token")).toBe("privilege");
  expect(operation("PATCH", "/api/v1/namespaces/a/pods/p/ephemeralcontainers")).toBe("execute");
  expect(operation("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings")).toBe("privilege");
  expect(operation("POST", "/api/v1/namespaces/a/pods/p/eviction")).toBe("control");
  expect(operation("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")).toBe("define");
});

test("K15: arguments keep their order, empty ones and odd characters, on the way to the server too", () => {
  const request = read(
    "POST",
    "/api/v1/namespaces/a/pods/p/exec?command=sh&command=&command=a%26b%20%3D&command=%E2%82%AC",
  );
  expect(request.query.getAll("command")).toEqual(["sh", "", "a&b =", "€"]);
  expect(read("POST", targetOf(request)).query.getAll("command")).toEqual(["sh", "", "a&b =", "€"]);
});

test.each([
  "/api/v1/namespaces/a/../b/secrets",
  "/api/v1/namespaces/a%2Fb/pods",
  "/api//v1/pods",
  "/api/v1/namespaces/%00/pods",
  "/api/v1/namespaces/%ff/pods",
  "http://elsewhere/api",
  "/api/v1/Pods",
  "/api/v1/namespaces/a/pods/p/exec/more",
  "/api/v1/proxy/nodes/n",
  "/api/v1/pods#x",
])("K30: %s is refused", (target) => {
  expect(readRequest("GET", target)).toHaveProperty("refused");
});

test("K30: the old paths of watches are no way to ask for anything else", () => {
  // To the server each of these is a watch, whatever its method and its last word say.
  for (const method of ["POST", "PUT", "PATCH", "DELETE"])
    expect(readRequest(method, "/api/v1/watch/namespaces/a/secrets/s")).toHaveProperty("refused");
  for (const connecting of ["exec", "attach", "portforward", "proxy"])
    expect(readRequest("GET", `/api/v1/watch/namespaces/a/pods/p/${connecting}`)).toHaveProperty("refused");
  expect(readRequest("HEAD", "/api/v1/watch/namespaces/a/secrets")).toMatchObject({ verb: "watch" });
});

test.each([
  [["ls", "-l"], "none", ["ls"]],
  [["sh", "-c", "echo a && cat b; ls 'c d'"], "plain", ["echo", "cat", "ls"]],
  [["/bin/bash", "-c", "echo $(id)"], "opaque", ["/bin/bash"]],
  [["sh", "-c", "echo a > /etc/x"], "opaque", ["sh"]],
  [["sh", "-c", "echo a | sh"], "opaque", ["echo", "sh"]],
  [["sh", "-c", "PATH=/tmp ls"], "opaque", ["sh"]],
  [["sh", "-c", "ech'o' x"], "plain", ["echo"]],
  [["sh", "-c", "`id`"], "opaque", ["sh"]],
  [["sh"], "opaque", ["sh"]],
  [["sh", "-x", "-c", "id"], "opaque", ["sh"]],
  [["env", "sh"], "opaque", ["env"]],
  [["sh", "-c", "echo a & id"], "opaque", ["sh"]],
  [["sh", "-c", ""], "opaque", ["sh"]],
  // A new line begins a new command, and nothing but it, blanks and tabs stands between words.
  [["sh", "-c", "ls\nrm -rf /"], "plain", ["ls", "rm"]],
  [["sh", "-c", "\n ls 'a' \n\n rm |\n cat &&\nid;\n"], "plain", ["ls", "rm", "cat", "id"]],
  [["sh", "-c", "ls\u00a0/../../bin/rm"], "opaque", ["sh"]],
  [["sh", "-c", "ls\f/../../bin/rm"], "opaque", ["sh"]],
  [["sh", "-c", "ls\r\nrm"], "opaque", ["sh"]],
  [["sh", "-c", "ls || rm"], "plain", ["ls", "rm"]],
  [["sh", "-c", "ls ||| rm"], "opaque", ["sh"]],
  [["sh", "-c", "ls |& rm"], "opaque", ["sh"]],
  [["sh", "-c", "ls;; rm"], "opaque", ["sh"]],
  [["sh", "-c", "ls;\n;rm"], "opaque", ["sh"]],
  [["sh", "-c", "; rm"], "opaque", ["sh"]],
  [["sh", "-c", "ls |"], "opaque", ["sh"]],
  [["sh", "-c", "ls &&\n"], "opaque", ["sh"]],
  [["sh", "-c", "ls\n# nothing\nrm"], "opaque", ["sh"]],
  [["bash", "-c", "ls \\; rm"], "plain", ["ls"]],
  [["bash", "-c", "ls 中\\;rm"], "opaque", ["bash"]],
  // What gives the words after it another meaning.
  [["sh", "-c", "alias ls=rm\nls /"], "opaque", ["alias", "ls"]],
  [["bash", "-c", "hash -p /bin/rm ls; ls /"], "opaque", ["hash", "ls"]],
  [["sh", "-c", "export PATH=/tmp; ls"], "opaque", ["export", "ls"]],
  [["sh", "-c", "trap 'rm -rf /' EXIT"], "opaque", ["trap"]],
  [["bash", "-c", "test -v 'a[$(id)]'"], "opaque", ["test"]],
  [["bash", "-c", "test -f /etc/x && printf '%s' y"], "plain", ["test", "printf"]],
  // Programs that run others, by whatever name they are there.
  [["python3.11", "-c", "print(1)"], "opaque", ["python3.11"]],
  [["/usr/bin/perl5.36.0", "-e", "1"], "opaque", ["/usr/bin/perl5.36.0"]],
  [["ksh93", "-c", "id"], "opaque", ["ksh93"]],
  [["fish", "-c", "id"], "opaque", ["fish"]],
  [["C:\\Windows\\System32\\CMD.EXE", "/c", "dir"], "opaque", ["C:\\Windows\\System32\\CMD.EXE"]],
  [["/lib64/ld-linux-x86-64.so.2", "/bin/sh"], "opaque", ["/lib64/ld-linux-x86-64.so.2"]],
  [["psql", "-c", "\\! id"], "opaque", ["psql"]],
  [["sort", "--compress-program=/tmp/x", "y"], "opaque", ["sort"]],
  [["sort", "-u", "y"], "none", ["sort"]],
  [["ldconfig"], "none", ["ldconfig"]],
])("K15: %j is %s and runs %j", (argv, kind, programs) => {
  expect(readArgv(argv)).toEqual({ kind, programs });
});

test("what reaches out of a pod is found at any depth, and in patches by their paths", () => {
  const template = (spec: object) => ({ spec: { template: { spec } } });
  expect(securityOf(template({ hostPID: true }))).toMatchObject({ hostPID: true, hostAccess: true });
  expect(securityOf(template({ volumes: [{ hostPath: { path: "/" } }] })).hostAccess).toBe(true);
  expect(
    securityOf(template({ containers: [{ image: "i", securityContext: { privileged: false } }] })),
  ).toMatchObject({
    hostAccess: false,
    images: ["i"],
  });
  expect(securityOf({ capabilities: { add: ["NET_BIND_SERVICE"], drop: ["ALL"] } }).hostAccess).toBe(false);
  const path = "/spec/template/spec/containers/0/securityContext/capabilities/add/-";
  expect(securityOf(writtenBy([{ op: "add", path, value: "SYS_ADMIN" }])).capabilities).toEqual([
    "SYS_ADMIN",
  ]);
  expect(writtenBy([{ op: "move", from: "/a", path: "/b" }])).toBeUndefined();
  let deep: object = { privileged: true };
  for (let depth = 0; depth < 100; depth += 1) deep = { deep };
  expect(securityOf(deep)).toMatchObject({ opaque: true, hostAccess: true });
});

test("of a pod with several containers, the one that is meant counts, or all where none is named", () => {
  const spec = {
    hostNetwork: false,
    containers: [{ name: "a" }, { name: "b", securityContext: { privileged: true } }],
  };
  expect(securityOfContainer(spec, "a").privileged).toBe(false);
  expect(securityOfContainer(spec, "b").privileged).toBe(true);
  expect(securityOfContainer(spec, "").privileged).toBe(true);
});

test("K24: nothing of what a client says of itself reaches the server", () => {
  const identity = {
    provider: "p",
    user: "okta:ä",
    groups: ["g1", "g2"],
    kind: "Human",
    claims: {},
  } as const;
  const sent = upstreamHeaders(
    {
      authorization: "Bearer mine",
      "impersonate-user": "root",
      "impersonate-extra-x": "y",
      "impersonate-extra-sallyport-reason": "INC-42",
      "sallyport-reason": "INC-42",
      "x-remote-user": "root",
      cookie: "c",
      connection: "keep-alive, x-secret",
      "x-secret": "1",
      "transfer-encoding": "chunked",
      accept: "application/json",
    },
    { name: "a", username: "a", password: "theirs\n" },
    identity,
    { extra: {} },
  );
  expect(sent).toEqual({
    accept: "application/json",
    authorization: "Bearer theirs",
    "impersonate-user": Buffer.from("okta:ä").toString("latin1"),
    "impersonate-group": ["g1", "g2"],
  });
});

test.each([
  [{}, undefined],
  [{ "sallyport-reason": "INC-42" }, "INC-42"],
  [{ "impersonate-extra-sallyport-reason": "INC-43" }, "INC-43"],
  [{ "sallyport-reason": "mine", "impersonate-extra-sallyport-reason": "kubectl's" }, "mine"],
  [{ "sallyport-reason": Buffer.from("größer").toString("latin1") }, "größer"],
  [{ "sallyport-reason": ["one", "two"] }, "one, two"],
])("of the headers %j the reason is %j", (headers, reason) => {
  expect(reasonIn(headers)).toBe(reason);
});

test("K3: the second telling of a denial is the first one's, once, and not for long", () => {
  let nowMs = 0;
  const denials = new Denials(() => nowMs);
  denials.remember("k", "id1");
  expect(denials.take("other")).toBeUndefined();
  expect(denials.take("k")).toBe("id1");
  expect(denials.take("k")).toBeUndefined();
  denials.remember("k", "id2");
  nowMs = 10_001;
  expect(denials.take("k")).toBeUndefined();
  for (let at = 0; at <= 1_000; at += 1) denials.remember(`k${at}`, "id");
  expect([denials.take("k0"), denials.take("k1")]).toEqual([undefined, "id"]);
});

test("K3: two denials are one only where user, run, pod, command, order of words and message are the same", () => {
  const target = "/api/v1/namespaces/a/pods/p/exec?command=ls&command=-l";
  const of = (change: { user?: string; run?: string; target?: string; message?: string }) => {
    const { user = "okta:ana", run = "r", message = "no" } = change;
    const headers = run === "" ? {} : { "kubectl-session": run };
    const url = change.target ?? target;
    const who = { kind: "human", user, groups: [], claims: {} } as const;
    return digestOfDenial(who as never, { method: "POST", url, headers }, read("POST", url), message);
  };
  const all = [
    of({}),
    of({ user: "okta:bob" }),
    of({ run: "other" }),
    of({ run: "" }),
    of({ message: "never" }),
    of({ target: target.replace("/p/", "/q/") }),
    of({ target: target.replace("/a/", "/b/") }),
    of({ target: `${target}&stdin=true` }),
    of({ target: target.replace("command=ls&command=-l", "command=-l&command=ls") }),
    of({ target: target.replace("exec", "attach") }),
    // What stands in one place does not count for another.
    of({ user: 'okta:ana","r', run: "" }),
  ];
  expect(new Set(all).size).toBe(all.length);
  expect(of({})).toMatch(/^[0-9a-f]{64}$/);
  // Methods are what differs between the two.
  expect(of({})).toBe(of({}));
});

describe("frames of WebSockets", () => {
  test("come out the same, however the bytes are cut", () => {
    const long = Buffer.alloc(70_000, 1);
    const bytes = Buffer.concat([
      ...frame(2, [Buffer.from([0]), Buffer.from("hi")], true),
      ...frame(9, [Buffer.from("p")], true),
      ...frame(2, [long], true),
      ...frame(2, [], true),
    ]);
    for (const size of [1, 2, 3, 7, 1000, bytes.length]) {
      const reader = new FrameReader(true);
      const messages: string[] = [];
      let length = 0;
      for (let at = 0; at < bytes.length; at += size) {
        for (const piece of reader.read(bytes.subarray(at, at + size))) {
          if (piece.opcode === 9) messages.push(`ping ${piece.bytes}`);
          else {
            length += piece.bytes.length;
            if (piece.isLast) {
              messages.push(`${length}`);
              length = 0;
            }
          }
        }
      }
      expect(messages).toEqual(["3", "ping p", "70000", "0"]);
    }
  });

  test.each([
    ["a frame of a client that is not masked", Buffer.from([0x82, 1, 0])],
    ["reserved bits", Buffer.from([0xc2, 0x81, 0, 0, 0, 0, 0])],
    ["a continuation of nothing", Buffer.from([0x80, 0x81, 0, 0, 0, 0, 0])],
    ["a control frame in parts", Buffer.from([0x09, 0x80, 0, 0, 0, 0])],
    ["an unknown opcode", Buffer.from([0x83, 0x80, 0, 0, 0, 0])],
  ])("refuse %s", (_name, bytes) => {
    expect(() => [...new FrameReader(true).read(bytes)]).toThrow();
  });
});

describe("frames of SPDY", () => {
  const headers = (values: Readonly<Record<string, string>>) => {
    const pieces: Buffer[] = [];
    const number = (value: number) => {
      const bytes = Buffer.alloc(4);
      bytes.writeUInt32BE(value);
      pieces.push(bytes);
    };
    number(Object.keys(values).length);
    for (const [name, value] of Object.entries(values)) {
      for (const text of [name, value]) {
        number(text.length);
        pieces.push(Buffer.from(text));
      }
    }
    return Buffer.concat(pieces);
  };

  test("headers that are stored are read by any inflater, one after the other", async () => {
    const storer = new HeaderStorer();
    const inflater = new HeaderInflater();
    for (const value of ["stdin", "stdout", "x".repeat(3_000)]) {
      const plain = await inflater.read(storer.write(headers({ streamtype: value, port: "80" })));
      expect(readHeaders(plain)).toEqual(
        new Map([
          ["streamtype", value],
          ["port", "80"],
        ]),
      );
    }
    inflater.close();
  });

  test("headers that grow without bound end the stream", async () => {
    const inflater = new HeaderInflater();
    const deflate = createDeflate();
    const bomb = await new Promise<Buffer>((resolve) => {
      const chunks: Buffer[] = [];
      deflate
        .on("data", (chunk: Buffer) => chunks.push(chunk))
        .on("end", () => resolve(Buffer.concat(chunks)));
      deflate.end(Buffer.alloc(10_000_000));
    });
    await expect(inflater.read(bomb)).rejects.toThrow();
  });

  test("are the same, however the bytes are cut, and other versions are refused", () => {
    const bytes = Buffer.concat([
      ...controlFrame(6, 0, Buffer.from([0, 0, 0, 1])),
      ...dataFrame(5, Buffer.alloc(3_000, 7), false),
      ...dataFrame(5, Buffer.alloc(0), true),
    ]);
    for (const size of [1, 5, 4096]) {
      const reader = new SpdyReader();
      let [data, fins, controls] = [0, 0, 0];
      for (let at = 0; at < bytes.length; at += size) {
        for (const item of reader.read(bytes.subarray(at, at + size))) {
          if (item.kind === "control") controls += 1;
          else {
            data += item.bytes.length;
            if (item.isFin) fins += 1;
          }
        }
      }
      expect([data, fins, controls]).toEqual([3_000, 1, 1]);
    }
    expect(() => [...new SpdyReader().read(Buffer.from([0x80, 2, 0, 6, 0, 0, 0, 0]))]).toThrow();
  });
});

describe("patterns in output", () => {
  const masking = new SessionMasking([
    {
      masks: [
        {
          ref: { policy: "p", rule: "r", enforcement: "authoritative" },
          columns: [],
          patterns: ["email"],
          customPatterns: [],
          with: "Redact",
          liftable: false,
        },
      ],
      inference: "Deny",
      maskedWrites: "Deny",
    },
  ]);

  test("are hidden wherever the bytes are cut, also behind escape sequences, and the length stays", () => {
    const text = "mail a\u001b[1mnn@exam\u001b[0mple.com now\nplain\n";
    expect(new PatternScanner(["email"]).scan(Buffer.from("ann@example.com"))).toHaveLength(1);
    for (let cut = 0; cut <= text.length; cut += 1) {
      let shown = "";
      const mask = new StreamMask(new OutputPatterns(masking.patterns), (bytes) => {
        shown += bytes.toString();
      });
      mask.push(Buffer.from(text.slice(0, cut)));
      mask.push(Buffer.from(text.slice(cut)));
      mask.flush();
      expect(shown).toHaveLength(text.length);
      expect(shown).not.toContain("nn@");
      expect(shown).not.toContain("ple.com");
      expect(shown).toMatch(/^mail \*+ now\nplain\n$/);
    }
  });

  test("are hidden in what flows, whatever the pieces, and while its reader takes nothing", () => {
    vi.useFakeTimers();
    try {
      let shown = "";
      let isStopped = false;
      const mask = new StreamMask(
        new OutputPatterns(masking.patterns),
        (bytes) => {
          shown += bytes.toString();
        },
        { hasTerminal: false, isStopped: () => isStopped },
      );
      for (let piece = 0; piece < 50; piece += 1) {
        mask.push(Buffer.from("ple.com\nmail zoe@exam"));
        vi.advanceTimersByTime(7);
      }
      isStopped = true;
      vi.advanceTimersByTime(1_000);
      isStopped = false;
      vi.advanceTimersByTime(2);
      mask.push(Buffer.from(`ple.com\n${"plain\n".repeat(1_000)}mail zoe@exam`));
      vi.advanceTimersByTime(400);
      mask.push(Buffer.from("ple.com\nprompt$ "));
      expect(shown).not.toContain("@");
      vi.advanceTimersByTime(1_100);
      expect(shown).toMatch(/prompt\$ $/);
    } finally {
      vi.useRealTimers();
    }
  });

  test("hold nothing back for longer than 20 ms", async () => {
    let quickest = Number.POSITIVE_INFINITY;
    // A stall of the machine is not held back by us, and does not come five times in a row.
    for (let tries = 0; tries < 5 && quickest >= 500; tries += 1) {
      const begun = performance.now();
      const shownAt = await new Promise<number>((resolve) => {
        new StreamMask(new OutputPatterns(masking.patterns), () => resolve(performance.now())).push(
          Buffer.from("prompt$ "),
        );
      });
      expect(shownAt - begun).toBeGreaterThan(5);
      quickest = Math.min(quickest, shownAt - begun);
    }
    expect(quickest).toBeLessThan(500);
  });
});

test("K19: an archive that leaves its folder, or is none, is told", () => {
  const head = Buffer.alloc(512);
  head.write("../../etc/cron.d/x", 0);
  head.write("00000000003\0", 124);
  head[156] = 0x30;
  head.fill(0x20, 148, 156);
  const sum = head.reduce((total, byte) => total + byte, 0);
  head.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  const notes: unknown[] = [];
  const reader = new CopyReader("in", (fields) => notes.push(fields));
  for (const byte of Buffer.concat([head, Buffer.from("abc"), Buffer.alloc(509)]))
    reader.push(Buffer.from([byte]));
  expect(notes).toEqual([
    expect.objectContaining({ name: "../../etc/cron.d/x", size: 3, type: "file", leavesFolder: true }),
  ]);
  new CopyReader("out", (fields) => notes.push(fields)).push(Buffer.alloc(512, 9));
  expect(notes.at(-1)).toEqual({ direction: "out", unreadable: true });
  expect(commandOf(read("GET", "/version"), noFacts).parts).toEqual([]);
});

describe("bodies that two readers could take for two things", () => {
  const pod = (text: string) => readJsonBody(Buffer.from(text));

  test.each([
    ['{"spec":{"hostNetwork":true},"spec":{}}'],
    ['{"a":[{"b":1,"\\u0062":2}]}'],
    ['{"a":{"x":1} , "a" : 2}'],
  ])("K27: a member that is given twice makes %s unreadable", (text) => {
    expect(pod(text)).toBeUndefined();
  });

  test.each([
    ['{"a":{"b":1},"b":{"a":"b"},"c":["a","a",{"a":1},{"a":1}]}'],
    ['{"a":"\\"b\\":1,","b":"{\\"a\\":2}"}'],
    ["[]"],
    ['"text"'],
  ])("K27: %s is read as it is", (text) => {
    expect(pod(text)).toEqual(JSON.parse(text));
  });

  const field = (number: bigint, bytes: Buffer) => {
    const varint: number[] = [];
    for (let rest = number * 8n + 2n; ; rest >>= 7n) {
      varint.push(Number(rest & 0x7fn) | (rest > 0x7fn ? 0x80 : 0));
      if (rest <= 0x7fn) break;
    }
    return Buffer.concat([Buffer.from([...varint, bytes.length]), bytes]);
  };
  const object = (apiVersion: string, kind: string, raw: Buffer) =>
    Buffer.concat([
      Buffer.from("k8s\0"),
      field(1n, Buffer.concat([field(1n, Buffer.from(apiVersion)), field(2n, Buffer.from(kind))])),
      field(2n, raw),
    ]);
  const hostNetwork = Buffer.from([11 * 8, 1]);

  test("K27: protobuf is read by its numbers, and not at all where a number could be cut or a kind is not said", () => {
    expect(readProtobuf(object("v1", "Pod", field(2n, hostNetwork)))).toEqual({
      spec: { hostNetwork: true },
    });
    expect(readProtobuf(object("v1", "Pod", field(2n ** 32n + 2n, hostNetwork)))).toBeUndefined();
    expect(readProtobuf(object("", "", field(2n, hostNetwork)))).toBeUndefined();
    expect(readProtobuf(object("v1", "", field(2n, hostNetwork)))).toBeUndefined();
    expect(readProtobuf(object("extensions/v1beta1", "Deployment", Buffer.alloc(0)))).toBeUndefined();
    expect(readProtobuf(object("v1", "ConfigMap", Buffer.alloc(0)))).toEqual({});
  });
});

test("K27: what is only tried is said to be so where the server keeps nothing, and nowhere else", () => {
  const dry = (method: string, path: string) => commandOf(read(method, `${path}?dryRun=All`)).facts?.dryRun;
  expect(dry("POST", "/api/v1/namespaces/a/pods")).toBe(true);
  expect(dry("DELETE", "/api/v1/namespaces/a/pods/p")).toBe(true);
  for (const path of ["pods/p/exec", "pods/p/portforward", "services/s/proxy", "serviceaccounts/s/token"]) {
    expect(dry("POST", `/api/v1/namespaces/a/${path}`)).toBe(false);
  }
});

test("a selector names one object only where many are meant, and an empty one bounds nothing", () => {
  const named = "?fieldSelector=metadata.name%3Dallowed";
  expect(read("POST", `/api/v1/namespaces/a/pods${named}`).name).toBe("");
  expect(read("DELETE", `/api/v1/namespaces/a/pods${named}`).name).toBe("allowed");
  const bound = (query: string) =>
    commandOf(read("DELETE", `/api/v1/namespaces/a/pods${query}`)).parts[0]?.unbounded;
  expect([bound(named), bound("?labelSelector="), bound("?labelSelector=a"), bound("")]).toEqual([
    false,
    true,
    false,
    true,
  ]);
});

test("K24: a token that is the name of a WebSocket protocol goes no further", () => {
  const account = { name: "a", username: "g", password: "t" } as never;
  const identity = { user: "local:ana", groups: [], claims: {} } as never;
  const headers = upstreamHeaders(
    { "sec-websocket-protocol": "binary.k8s.io, Base64url.Bearer.authorization.k8s.io.c2VjcmV0" },
    account,
    identity,
    { extra: {} },
  );
  expect(headers["sec-websocket-protocol"]).toBe("binary.k8s.io");
});

test("K27: an object that has the members of a list, a table or an event is masked like any other", () => {
  const hidden = { fields: ["spec", "status"], deniesWrites: true, mayBeQuoted: false };
  const metadata = { annotations: { "kubectl.kubernetes.io/last-applied-configuration": '{"a":"shown"}' } };
  const object = { metadata, spec: { a: "shown" }, status: { b: "shown" } };
  for (const more of [
    { items: [] },
    { items: [object] },
    { type: "Opaque", object },
    { kind: "Table", rows: [{ cells: ["a", "shown"], object }] },
    { kind: "Status", apiVersion: "example.com/v1" },
    { kind: "Status", apiVersion: "v1" },
  ])
    expect(JSON.stringify(masked({ ...object, ...more }, hidden))).not.toContain("shown");
  // What a server itself says of a request has a status that is a word.
  const said = { kind: "Status", apiVersion: "v1", metadata: {}, status: "Failure", code: 404 };
  expect(masked(said, hidden)).toEqual(said);
});

test("K27: what tools keep of a masked object in annotations, and what columns show of it, is hidden too", () => {
  const annotations = {
    "kapp.k14s.io/original": '{"data":{}}',
    "objectset.rio.cattle.io/applied": "H4sI",
    "example.com/copy": ' {"spec":1}',
    "example.com/owner": "ann",
  };
  const hidden = { fields: ["spec"], deniesWrites: true, mayBeQuoted: false };
  const object = { metadata: { annotations }, spec: { image: "secret:1" } };
  const table = { kind: "Table", rows: [{ cells: ["web", 3, "secret:1"], object }] };
  const shown = JSON.stringify(masked(table, hidden));
  expect(shown).not.toMatch(/secret:1|H4sI|"data|example.com\/copy":" /);
  expect(shown).toContain('"web"');
  expect(shown).toContain('"example.com/owner":"ann"');
});

test("K27: of a refused write whoever sees a part masked reads only what quotes nothing of the object", () => {
  const told = (message: string, field: string, mayBeQuoted = true) => {
    const status = {
      kind: "Status",
      apiVersion: "v1",
      status: "Failure",
      message,
      details: { causes: [{ message }] },
    };
    const shown = JSON.stringify(masked(status, { fields: [field], deniesWrites: false, mayBeQuoted }));
    return shown === JSON.stringify(status);
  };
  const cannot = 'User "local:max" cannot patch resource "secrets" in API group ""';
  for (const plain of [
    'secrets "s" not found',
    'deployments.apps "web" already exists',
    `secrets "s" is forbidden: ${cannot} in the namespace "default"`,
    `secrets is forbidden: ${cannot} at the cluster scope`,
    "the server could not find the requested resource",
    'Operation cannot be fulfilled on secrets "s": the object has been modified; please apply your changes to the latest version and try again',
    'Operation cannot be fulfilled on Secret "s": the UID in the precondition (x) does not match the UID in record (cd-1). The object might have been deleted and then recreated',
    'Operation cannot be fulfilled on secrets "s": StorageError: invalid object, Code: 4, Key: /registry/secrets/default/s, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: x, UID in object meta: cd-1',
  ])
    expect([plain, told(plain, "spec")]).toEqual([plain, true]);
  for (const quoting of [
    "secrets \"s\" is forbidden: ValidatingAdmissionPolicy 'a' with binding 'b' denied request: hunter2",
    'admission webhook "w.example.com" denied the request: secrets "hunter2" not found',
    'admission webhook "w.example.com" denied the request: Secret "s" is invalid: hunter2',
    `secrets "s" is forbidden: ${cannot} in the namespace "default": hunter2`,
    'secrets "s" not found\nhunter2',
    'Operation cannot be fulfilled on secrets "s": hunter2',
    "hunter2",
  ])
    for (const field of ["data", "spec"])
      expect([quoting, field, told(quoting, field)]).toEqual([quoting, field, false]);
  // Validation quotes what a spec holds, and of data names the keys.
  const invalid = 'Secret "s" is invalid: data[a/b]: Invalid value: "a/b"';
  expect([told(invalid, "data"), told(invalid, "spec"), told("hunter2", "spec", false)]).toEqual([
    true,
    false,
    true,
  ]);
});

test("a change that was asked about names its object, and is else what was sent, to the byte", () => {
  const bound = (body: string, path = "/api/v1/namespaces/a/configmaps/x", method = "PATCH") =>
    boundChange(read(method, path), Buffer.from(body, "latin1"), "u")?.toString("latin1");
  const bodies = [
    ["{}", '{"metadata":{"uid":"u"}}'],
    [' {"a": 9007199254740993.0}', ' {"metadata":{"uid":"u"},"a": 9007199254740993.0}'],
    ['{"metadata":{ }}', '{"metadata":{"uid":"u" }}'],
    ['{"a":["{",{"metadata":{}}],"met\\u0061data" : {"a":1}}', undefined],
    ['{"metadata":{"uid":"u"},"b":"\xff"}', '{"metadata":{"uid":"u"},"b":"\xff"}'],
    ["[]", '[{"op":"test","path":"/metadata/uid","value":"u"}]'],
    ['[{"op":"add"}]', '[{"op":"test","path":"/metadata/uid","value":"u"},{"op":"add"}]'],
  ] as const;
  for (const [body, expected] of bodies)
    expect([body, bound(body)]).toEqual([
      body,
      expected ?? '{"a":["{",{"metadata":{}}],"met\\u0061data" : {"uid":"u","a":1}}',
    ]);
  for (const unfit of [
    "",
    "1",
    "a: b",
    '{"metadata":null}',
    '{"metadata":[]}',
    '{"metadata":{"uid":"v"}}',
    '{"metadata":{"uid":null}}',
    '{"metadata":{},"metadata":{}}',
  ])
    expect([unfit, bound(unfit)]).toEqual([unfit, undefined]);
  const evict = (body: string) => bound(body, "/api/v1/namespaces/a/pods/x/eviction", "POST");
  expect(JSON.parse(evict('{"deleteOptions":{"dryRun":["All"]}}') ?? "")).toEqual({
    deleteOptions: { dryRun: ["All"], preconditions: { uid: "u" } },
  });
  expect(evict('{"deleteOptions":{"preconditions":{"uid":"v"}}}')).toBeUndefined();
});

test("a deletion of many that was asked about is another once anything has come to it, and none of the past", () => {
  const path = "/api/v1/namespaces/a/configmaps";
  const objects = ["a", "b"].map((name) => ({ namespace: "a", name, uid: name }));
  const of = (query: string) => new HeldCollection(read("DELETE", `${path}?${query}`));
  const one = of("labelSelector=x&dryRun=All&limit=2000");
  expect(one.path).toBe(`${path}?labelSelector=x&limit=501`);
  expect(of("limit=7").path).toBe(`${path}?limit=7`);
  const look = (found: readonly (typeof objects)[number][]) => one.look({ kind: "found", objects: found });
  const asked = look(objects);
  expect(one.explained.split("\n").slice(1)).toEqual(["-- a/a", "-- a/b"]);
  expect([look(objects), look(objects.slice(1)), look([])]).toEqual([asked, asked, asked]);
  const again = { namespace: "a", name: "b", uid: "b2" };
  expect(look([again]).about).not.toBe(asked.about);
  expect(look([...objects, again]).about).not.toBe(asked.about);
  const many = Array.from({ length: 501 }, (_, at) => ({ namespace: "", name: `${at}`, uid: `${at}` }));
  expect(of("").look({ kind: "found", objects: many }).unfit).toContain("select fewer");
  expect(of("").look({ kind: "hidden" }).unfit).toContain("may not read");
  for (const past of [
    "resourceVersion=1&resourceVersionMatch=Exact",
    "resourceVersion=&resourceVersion=1",
    "continue=a",
  ])
    expect([past, of(past).look({ kind: "found", objects }).unfit]).toEqual([
      past,
      expect.stringContaining("leave out"),
    ]);
  expect([
    of("fieldSelector=metadata.name%3Dx").path,
    new HeldCollection(read("DELETE", `${path}/x`)).path,
  ]).toEqual([undefined, undefined]);
});

test("frames of clients are read with their masks, however they are cut", () => {
  const mask = Buffer.from([0xa1, 0xb2, 0xc3, 0xd4]);
  const payload = Buffer.from(Array.from({ length: 1_003 }, (_, at) => at & 0xff));
  const head = Buffer.from([0x82, 0x80 | 126, payload.length >> 8, payload.length & 0xff, ...mask]);
  const bytes = Buffer.concat([head, Buffer.from(payload.map((byte, at) => byte ^ (mask[at & 3] ?? 0)))]);
  // Where in memory a piece begins is the socket's matter.
  const placed = (piece: Buffer, offset: number) => {
    const room = Buffer.alloc(piece.length + offset).subarray(offset);
    piece.copy(room);
    return room;
  };
  for (const offset of [0, 1, 2, 3]) {
    for (const size of [1, 2, 3, 5, 7, 64, 1_000, bytes.length]) {
      const reader = new FrameReader(true);
      const read: Buffer[] = [];
      for (let at = 0; at < bytes.length; at += size)
        for (const piece of reader.read(placed(bytes.subarray(at, at + size), offset)))
          read.push(piece.bytes);
      expect(Buffer.concat(read).equals(payload)).toBe(true);
    }
  }
});

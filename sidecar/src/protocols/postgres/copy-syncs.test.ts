/**
 * Syncs in and around COPY data, before a server that follows PostgreSQL's rules: while it takes data it ignores Sync and
 * Flush, and after an error of the extended protocol it skips up to the next Sync. Whatever a client sends, in whatever
 * pieces it, the server and their answers come: it gets what the server alone would have said, and the gateway ends idle.
 */
import { loadSqlParser } from "@sallyport/policy";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { GatewayError } from "../../wire/gateway-error.ts";
import { errorFrame, frame, frontend, lengthAt, readErrorFields } from "./frames.ts";
import { client, messagesIn, nonce, openSession, server } from "./testing.ts";

beforeAll(() => loadSqlParser());

const copy = "COPY orders FROM STDIN";
const doomed = "COPY customers FROM STDIN";
const select = "SELECT id FROM orders";
const refused = "DELETE FROM orders";
const noDeletes = [{ name: "no-deletes", match: { commands: ["DELETE"] }, action: "Deny" }];

/** PostgreSQL as far as COPY data and Syncs go: what it says lies in its buffer until it flushes it. */
class Server {
  /** What has left it. */
  said = Buffer.alloc(0);
  isClosed = false;
  private buffer: Buffer[] = [];
  private input = Buffer.alloc(0);
  private status: "I" | "T" | "E" = "I";
  private isSkipping = false;
  private copying: "no" | "simple" | "extended" = "no";
  private isDoomed = false;
  private text = "";

  give(bytes: Uint8Array): void {
    this.input = Buffer.concat([this.input, bytes]);
  }

  /** Takes one message; false where none has come whole. */
  step(): boolean {
    if (this.isClosed || this.input.length < 5) return false;
    const size = lengthAt(this.input, 0) + 1;
    if (this.input.length < size) return false;
    const [type, body] = [this.input[0] ?? 0, this.input.subarray(5, size)];
    this.input = this.input.subarray(size);
    if (type === frontend.terminate) this.isClosed = true;
    else if (this.copying !== "no") this.data(type, body);
    else if (type === frontend.sync) this.ready();
    else if (!this.isSkipping) this.command(type, body);
    return true;
  }

  private data(type: number, body: Buffer): void {
    const text = body.toString("latin1");
    if (type === frontend.sync || type === frontend.flush) return;
    if (type === frontend.copyData && text !== "bad") this.isDoomed ||= text === "late";
    else if (type === frontend.copyData) this.fail("22P02");
    else if (type === frontend.copyFail) this.fail("57014");
    else if (type === frontend.copyDone) this.copied();
    else {
      const named = `0x${type.toString(16).toUpperCase()}`;
      this.fail("08P01", `unexpected message type ${named} during COPY from stdin`);
      this.say(errorFrame({ severity: "FATAL", sqlstate: "08P01", message: "lost" }));
      this.flush();
      this.isClosed = true;
    }
  }

  private copied(): void {
    if (this.isDoomed) {
      this.fail("22P04");
      return;
    }
    this.say(server.complete("COPY 1"));
    if (this.copying === "simple") this.ready();
    this.copying = "no";
  }

  private command(type: number, body: Buffer): void {
    const parts = body.toString("utf8").split("\0");
    switch (type) {
      case frontend.query:
        this.run(parts[0] ?? "", "simple");
        return;
      case frontend.parse:
        this.text = parts[1] ?? "";
        if (this.mayRun(this.text, "extended")) this.say(server.parseComplete());
        return;
      case frontend.bind:
        this.say(server.bindComplete());
        return;
      case frontend.execute:
        this.run(this.text, "extended");
        return;
      case frontend.describe:
        this.say(server.noData());
        return;
      case frontend.close:
        this.say(server.closeComplete());
        return;
      case frontend.flush:
        this.flush();
        return;
    }
  }

  private mayRun(text: string, by: "simple" | "extended"): boolean {
    const isFree = this.status !== "E" || text === "ROLLBACK";
    const sqlstate = isFree ? (text === refused ? "42501" : "42703") : "25P02";
    if (isFree && text !== refused && !text.includes(nonce)) return true;
    this.fail(sqlstate, isFree ? `column "${nonce}" does not exist` : "aborted", by);
    return false;
  }

  private run(text: string, by: "simple" | "extended"): void {
    if (!this.mayRun(text, by)) return;
    if (text === copy || text === doomed) {
      this.say(server.copyIn());
      this.flush();
      this.copying = by;
      this.isDoomed = false;
      if (text === doomed) this.fail("P0001");
      return;
    }
    if (text === "BEGIN") this.status = "T";
    if (text === "ROLLBACK") this.status = "I";
    this.say(server.complete(text));
    if (by === "simple") this.ready();
  }

  private fail(sqlstate: string, message = "failed", by = this.copying): void {
    this.copying = "no";
    if (this.status === "T") this.status = "E";
    this.say(server.error(sqlstate, message));
    this.flush();
    if (sqlstate === "08P01") return;
    if (by === "simple") this.ready();
    else this.isSkipping = true;
  }

  private ready(): void {
    this.isSkipping = false;
    this.say(server.ready(this.status));
    this.flush();
  }

  private say(bytes: Buffer): void {
    this.buffer.push(bytes);
  }

  private flush(): void {
    this.said = Buffer.concat([this.said, ...this.buffer]);
    this.buffer = [];
  }
}

type Steps = readonly (readonly [what: string, size: number])[];

interface Action {
  readonly name: string;
  readonly bytes: readonly Buffer[];
}

const messages: Readonly<Record<string, Buffer>> = {
  sync: client.sync(),
  flush: frame(frontend.flush, Buffer.alloc(0)),
  done: client.copyDone(),
  fail: frame(frontend.copyFail, Buffer.from("no\0")),
  good: client.copyData("good"),
  late: client.copyData("late"),
  bad: client.copyData("bad"),
};
const message = (name: string) => messages[name] ?? Buffer.alloc(0);
const named = (...names: string[]): Action => ({ name: names.join(" "), bytes: names.map(message) });
const whole = (text: string) => [client.parse("", text), client.bind("", ""), client.execute("")];
const texts = fc.constantFrom(select, refused, "BEGIN", "ROLLBACK");
const pieces = fc.array(fc.constantFrom("good", "good", "late", "bad", "sync", "sync", "flush"), {
  maxLength: 4,
});
const ends = fc.constantFrom(
  ["done"],
  ["done"],
  ["done", "sync"],
  ["fail", "sync"],
  ["sync", "done"],
  ["fail"],
);
const endsOrNone = fc.oneof({ weight: 5, arbitrary: ends }, { weight: 1, arbitrary: fc.constant([]) });
const begun = (text: string, isSimple: boolean): Action => ({
  name: `${isSimple ? "Query" : "Execute"} ${text}`,
  bytes: isSimple ? [client.query(text)] : whole(text),
});
const copied = (by: fc.Arbitrary<readonly string[]>) =>
  fc
    .tuple(fc.constantFrom(copy, copy, doomed), fc.boolean(), pieces, by)
    .map(([text, isSimple, data, end]) => [begun(text, isSimple), named(...data, ...end)]);
const script = (by: fc.Arbitrary<readonly string[]>) => {
  const action = fc.oneof(
    { weight: 4, arbitrary: copied(by) },
    { weight: 4, arbitrary: fc.tuple(texts, fc.boolean()).map((begin) => [begun(...begin)]) },
    { weight: 2, arbitrary: fc.constantFrom("sync", "flush", "good", "done").map((name) => [named(name)]) },
  );
  return fc.array(action, { minLength: 1, maxLength: 6 }).map((actions) => actions.flat());
};
/** What comes next, again and again: bytes of the client, messages to the server, bytes of its answers. */
const order = fc.array(
  fc.tuple(fc.constantFrom("client", "server", "answer"), fc.integer({ min: 1, max: 60 })),
  {
    minLength: 3,
    maxLength: 40,
  },
);
const numRuns = Number(process.env.SALLYPORT_SEQUENCES ?? 150);
const ending = [client.sync(), client.query("ROLLBACK"), client.query(select)];

/** What the server alone says to all of it. */
function alone(bytes: Buffer): { said: string[]; isClosed: boolean } {
  const direct = new Server();
  direct.give(bytes);
  while (direct.step());
  return { said: shown(direct.said), isClosed: direct.isClosed };
}

function shown(bytes: Buffer): string[] {
  return messagesIn(bytes).map(({ type, body }) => {
    if (type !== "E") return `${type}${body.toString("latin1")}`;
    const fields = readErrorFields(body);
    return `E${fields.get("C")}${fields.get("C") === "08P01" ? fields.get("M") : ""}`;
  });
}

async function through(
  bytes: Buffer,
  steps: Steps,
  limits: object,
): Promise<{ said: string[]; isIdle: boolean; isRefused: boolean }> {
  const session = openSession(noDeletes);
  session.adopt(noDeletes, { limits });
  const upstream = new Server();
  let rest = bytes;
  let delivered = 0;
  let pending = false;
  let failure: unknown;
  const said: Buffer[] = [];
  const given = (size: number) => {
    if (pending || rest.length === 0) return false;
    pending = true;
    const part = rest.subarray(0, size);
    rest = rest.subarray(size);
    session.send(part).then(
      () => {
        pending = false;
      },
      (error: unknown) => {
        failure = error;
      },
    );
    return true;
  };
  const taken = (most: number) => {
    upstream.give(session.upstreamBytes());
    let count = 0;
    while (count < most && upstream.step()) count += 1;
    return count > 0;
  };
  const answered = (size: number) => {
    const part = upstream.said.subarray(delivered, delivered + size);
    delivered += part.length;
    if (part.length > 0) session.reply(Buffer.from(part));
    return part.length > 0;
  };
  const play = (what: string, size: number) =>
    what === "client" ? given(size) : what === "server" ? taken(size) : answered(size);
  for (let step = 0, idle = 0; idle < 10 && failure === undefined; step += 1) {
    const [what, size] = steps[step % steps.length] ?? ["client", 1];
    let hasMoved = play(what, what === "server" ? (size % 4) + 1 : size);
    // A gateway that waits for what can no longer come stays where it is.
    if (!hasMoved && step % 3 === 0) hasMoved = given(60) || taken(1) || answered(60);
    await new Promise((resolve) => setImmediate(resolve));
    said.push(session.clientBytes());
    idle = hasMoved ? 0 : idle + 1;
  }
  if (failure !== undefined && !(failure instanceof GatewayError)) throw failure;
  const isIdle = rest.length === 0 && !pending && session.session.isIdle;
  return { said: shown(Buffer.concat(said)), isIdle, isRefused: failure !== undefined };
}

async function compare(actions: readonly Action[], steps: Steps, limits = {}): Promise<void> {
  const bytes = Buffer.concat([...actions.flatMap((one) => one.bytes), ...ending]);
  const wanted = alone(bytes);
  const got = await through(bytes, steps, limits);
  const names = actions.map(({ name }) => name).join(", ");
  // What must wait for a server that waits for data ends the session with an error of the gateway's own.
  if (got.isRefused) {
    expect(wanted.isClosed, names).toBe(true);
    expect(wanted.said.slice(0, got.said.length), names).toEqual(got.said);
    return;
  }
  expect(got.said, names).toEqual(wanted.said);
  expect(got.isIdle || wanted.isClosed, names).toBe(true);
}

describe("C18: Syncs in COPY data", () => {
  it("are answered as by the server alone, whoever is faster", async () => {
    const play = fc.asyncProperty(script(endsOrNone), order, (...given) => compare(...given));
    await fc.assert(play, { numRuns, seed: 18 });
  }, 120_000);

  it("are answered as by the server alone under a limit on rows", async () => {
    const limits = { affectedRows: 1_000 };
    const play = fc.asyncProperty(script(ends), order, (...given) => compare(...given, limits));
    await fc.assert(play, { numRuns, seed: 18 });
  }, 120_000);

  const steps: readonly Steps[] = [
    [
      ["client", 10_000],
      ["server", 3],
      ["answer", 10_000],
    ],
    [
      ["client", 7],
      ["server", 3],
      ["answer", 10_000],
    ],
    [
      ["client", 40],
      ["server", 3],
      ["answer", 3],
    ],
  ];
  const failing: Readonly<Record<string, readonly string[]>> = {
    "one before the failure": ["sync", "bad", "done"],
    "one behind it": ["bad", "sync", "done"],
    "two before it": ["sync", "good", "sync", "bad", "done"],
    "one on each side of it": ["sync", "bad", "sync", "done"],
    "two behind it": ["bad", "sync", "sync", "done"],
    "one before a failure at the end of the data": ["late", "sync", "done"],
    "one before CopyFail": ["good", "sync", "fail"],
    "one before data that never ends": ["good", "sync"],
    "one behind a failure in data that never ends": ["bad", "sync"],
  };
  for (const [where, data] of Object.entries(failing))
    for (const isSimple of [true, false])
      for (const text of [copy, doomed])
        it(`${where}: ${isSimple ? "Query" : "Execute"} of ${text}, with more behind`, async () => {
          const behind = [
            [begun(select, true)],
            [begun(select, false)],
            [begun(refused, true)],
            [begun(refused, false)],
          ];
          for (const more of [
            ...behind,
            [named("sync"), begun(select, true)],
            [named("flush"), ...behind.flat()],
          ])
            for (const order of steps) await compare([begun(text, isSimple), named(...data), ...more], order);
        });
});

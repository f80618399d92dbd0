import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { linkSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Copying } from "../copying.ts";
import { type CopiedFile, CopyGate } from "./copy-gate.ts";

let folder = "";

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "sallyport-copy-"));
  mkdirSync(join(folder, "d", "x".repeat(120)), { recursive: true });
  writeFileSync(join(folder, "d", "a"), "first");
  writeFileSync(join(folder, "d", "grün b"), Buffer.alloc(1_000, 7));
  writeFileSync(join(folder, "d", "x".repeat(120), "long"), Buffer.alloc(512, 1));
  writeFileSync(join(folder, "noise"), randomBytes(2_000));
  symlinkSync("/etc", join(folder, "d", "link"));
  linkSync(join(folder, "d", "a"), join(folder, "d", "same"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** An archive as a real tar makes it. */
function archive(...argv: readonly string[]): Buffer {
  const { status, stdout, stderr } = spawnSync("tar", [...argv], {
    cwd: folder,
    timeout: 30_000,
    maxBuffer: 64 * 1024 * 1024,
  });
  if (status !== 0) throw new Error(stderr.toString());
  return stdout;
}

const copying = (direction: Copying["direction"], place: string | undefined): Copying => ({
  ...{ direction, place, isKubectls: true, isTail: false },
});

interface Run {
  readonly passed: Buffer;
  readonly seen: readonly CopiedFile[];
  /** Why it was refused. */
  readonly why: string | undefined;
}

/** Sends an archive through a gate, in slices of these sizes again and again. */
function through(
  bytes: Buffer,
  from: Copying,
  denies: (file: CopiedFile) => boolean = () => false,
  sizes: readonly number[] = [bytes.length],
): Run {
  const seen: CopiedFile[] = [];
  let why: string | undefined;
  const refuse = () => Promise.reject(new Error("refused"));
  const gate = new CopyGate(from, (found) => {
    if ("unreadable" in found) {
      why = found.unreadable;
      return refuse;
    }
    seen.push(found);
    if (!denies(found)) return undefined;
    why = `denied ${found.path}`;
    return refuse;
  });
  const passed: Buffer[] = [];
  let isCut = false;
  for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
    const size = Math.max(1, sizes[turn % sizes.length] ?? 1);
    const sifted = gate.push(bytes.subarray(at, at + size));
    // What a socket has read is soon overwritten.
    passed.push(Buffer.from(sifted.passed));
    if (isCut) expect(sifted.passed).toHaveLength(0);
    isCut ||= sifted.refuse !== undefined;
    at += size;
  }
  passed.push(gate.end().passed);
  return { passed: Buffer.concat(passed), seen, why };
}

const paths = ({ seen }: Run) => seen.map(({ path, size }) => `${path} ${size}`).toSorted();
const all = [
  "/w/d 0",
  "/w/d/a 5",
  "/w/d/grün b 1000",
  `/w/d/${"x".repeat(120)} 0`,
  `/w/d/${"x".repeat(120)}/long 512`,
];
const plain = ["--exclude=link", "--exclude=same", "d"];

/** A head that says what it is told to. */
function head(
  name: string | Buffer,
  size: number | string,
  type = "0",
  more: { readonly prefix?: string; readonly link?: string; readonly magic?: string } = {},
): Buffer {
  const block = Buffer.alloc(512);
  Buffer.from(name).copy(block, 0, 0, 100);
  block.write("0000644\0", 100);
  block.write(typeof size === "string" ? size : `${size.toString(8).padStart(11, "0")}\0`, 124, "latin1");
  block.write(type, 156);
  block.write(more.link ?? "", 157);
  block.write(more.magic ?? "ustar\x0000", 257, "latin1");
  block.write(more.prefix ?? "", 345);
  return summed(block);
}

function summed(block: Buffer): Buffer {
  block.fill(0x20, 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}

const data = (content: string | Buffer) => {
  const bytes = Buffer.from(content);
  return Buffer.concat([bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)]);
};
const end = Buffer.alloc(1024);
const record = (key: string, value: string) => {
  const rest = ` ${key}=${value}\n`;
  let length = Buffer.byteLength(rest);
  while (`${length}`.length + Buffer.byteLength(rest) !== length)
    length = `${length}`.length + Buffer.byteLength(rest);
  return `${length}${rest}`;
};
const pax = (records: string, type = "x") =>
  Buffer.concat([head("PaxHeaders/x", Buffer.byteLength(records), type), data(records)]);

describe.each(["gnu", "pax", "ustar", "v7"])("an archive of a real tar, format %s", (format) => {
  const made = () =>
    archive(
      `--format=${format}`,
      "-cf",
      "-",
      ...(format === "v7" || format === "ustar" ? ["--exclude=xxx*"] : []),
      ...plain,
    );
  const expected = format === "v7" || format === "ustar" ? all.slice(0, 3) : all;

  test("passes unchanged, and each file of it was judged before, wherever the bytes are cut", () => {
    const bytes = made();
    for (const sizes of [[bytes.length], [1], [511, 2], [512], [513], [7, 1_000, 3]]) {
      const run = through(bytes, copying("in", "/w"), () => false, sizes);
      expect(run.why).toBeUndefined();
      expect(run.passed.equals(bytes)).toBe(true);
      expect([...new Set(paths(run))]).toEqual(expect.arrayContaining([...expected].toSorted()));
    }
  });

  test("out of the container, too", () => {
    const bytes = made();
    const run = through(bytes, copying("out", "/d"));
    expect([run.why, run.passed.equals(bytes)]).toEqual([undefined, true]);
    expect(paths(run)).toEqual(expected.map((one) => one.slice(2)).toSorted());
  });
});

test("K19: nothing of a denied file passes, head included, and all that stands before it does, however it is cut", () => {
  const bytes = archive("--format=gnu", "-cf", "-", "d/a", "d/grün b", `d/${"x".repeat(120)}/long`);
  const denied: readonly (readonly [string, number])[] = [
    ["/w/d/a", 0],
    ["/w/d/grün b", 1_024],
    [`/w/d/${"x".repeat(120)}/long`, 1_024 + 512 + 1_024],
  ];
  fc.assert(
    fc.property(
      fc.constantFrom(...denied),
      fc.array(fc.integer({ min: 1, max: 1_500 }), { minLength: 1, maxLength: 8 }),
      ([path, before], sizes) => {
        const run = through(bytes, copying("in", "/w"), (file) => file.path === path, sizes);
        expect(run.why).toBe(`denied ${path}`);
        expect(run.passed.equals(bytes.subarray(0, before))).toBe(true);
      },
    ),
    { numRuns: 60 },
  );
});

test("K19: a file over the limit is cut before its first byte", () => {
  const bytes = archive("-cf", "-", "d/a", "d/grün b");
  const run = through(bytes, copying("in", "/w"), ({ size }) => size > 999);
  expect([run.why, run.passed.length]).toEqual(["denied /w/d/grün b", 1_024]);
});

test("K19: a size to base 256 is read, and one that is negative or without end is not", () => {
  const big = (first: number, value: bigint) => {
    const field = Buffer.alloc(12);
    field[0] = first;
    field.writeBigUInt64BE(value, 4);
    return head("big", field.toString("latin1"));
  };
  const run = through(big(0x80, 9n * 1024n ** 3n), copying("in", "/w"));
  expect(paths(run)).toEqual([`/w/big ${9 * 1024 ** 3}`]);
  for (const odd of [big(0xff, 1n), big(0x80, 2n ** 60n)])
    expect(through(odd, copying("in", "/w")).why).toContain("no tar archive");
});

const sparse = () => {
  truncateSync(join(folder, "d", "a"), 5);
  writeFileSync(join(folder, "holes"), "");
  truncateSync(join(folder, "holes"), 1_000_000);
  return "holes";
};

test.each([
  ["a name that climbs", () => head("../x", 0), "leaves its folder"],
  ["a name that climbs behind a folder", () => head("d/../../x", 0), "leaves its folder"],
  ["an absolute name", () => head("/etc/x", 0), "leaves its folder"],
  ["a symbolic link", () => archive("-cf", "-", "d/link"), "lead elsewhere"],
  ["a hard link", () => archive("-cf", "-", "d/a", "d/same"), "lead elsewhere"],
  ["a device", () => head("sda", 0, "4"), "lead elsewhere"],
  ["a pipe", () => head("pipe", 0, "6"), "lead elsewhere"],
  [
    "holes, as GNU tar tells them",
    () => archive("--format=gnu", "-S", "-cf", "-", sparse()),
    "more than one reading",
  ],
  [
    "holes, as pax tells them",
    () => archive("--format=pax", "-S", "-cf", "-", sparse()),
    "more than one reading",
  ],
  ["an old extended head", () => head("x", 0, "X"), "more than one reading"],
  ["a folder with a size", () => head("d/", 512, "5"), "has a size"],
  ["a folder by its name alone, with a size", () => head("d/", 512), "has a size"],
  ["a link with a size", () => head("l", 512, "2"), "has a size"],
  ["no name", () => head("", 0), "no name"],
  ["a name that is no UTF-8", () => head(Buffer.from([0x66, 0xff]), 0), "no UTF-8"],
  ["two sizes", () => Buffer.concat([pax(record("size", "0")), head("x", 512)]), "two sizes"],
  ["a size with something between its digits", () => head("x", "0000\x00001000"), "no tar archive"],
  ["no size", () => head("x", " ".repeat(12)), "no tar archive"],
  ["a wrong sum", () => Buffer.concat([Buffer.from("y"), head("x", 0).subarray(1)]), "no tar archive"],
  ["a name for all files", () => pax(record("path", "x"), "g"), "for all files"],
  ["an extended head that cannot be read", () => pax("99 path=x\n"), "cannot be read"],
  [
    "an extended name that climbs",
    () => Buffer.concat([pax(record("path", "../x")), head("x", 0)]),
    "leaves its folder",
  ],
  ["a head behind the end", () => Buffer.concat([Buffer.alloc(512), head("x", 0)]), "behind its end"],
  [
    "an end in place of what was announced",
    () => Buffer.concat([pax(record("path", "x")), end]),
    "does not come",
  ],
  [
    "heads without end",
    () => Buffer.concat(Array.from({ length: 300 }, () => pax(record("comment", "x")))),
    "no end",
  ],
  ["a head that is too long", () => head("x", 70_000, "L"), "fitting size"],
  ["compression", () => archive("-czf", "-", "noise"), "no tar archive"],
  ["text", () => Buffer.alloc(600, "no tar at all "), "no tar archive"],
  ["a short text", () => Buffer.from("hello\n"), "in the middle of a head"],
])("K19: into a container, %s is refused, and nothing of it passes", (_what, bytes, why) => {
  const all = bytes();
  for (const sizes of [[all.length], [1, 600]]) {
    const run = through(all, copying("in", "/w"), () => false, sizes);
    expect(run.why).toContain(why);
    const before = _what === "a hard link" ? 1_024 : _what === "a head behind the end" ? 512 : 0;
    expect(run.passed.length).toBe(before);
  }
});

test("K19: a name is judged in each of its readings", () => {
  const small = Buffer.concat([pax(record("path", "shown")), head("hidden", 3), data("abc"), end]);
  expect(paths(through(small, copying("in", "/w")))).toEqual(["/w/hidden 3", "/w/shown 3"]);
  const twice = Buffer.concat([
    pax(record("path", "one") + record("path", "two")),
    head("@LongLink", 6, "L"),
    data("three\0"),
    head("four", 0),
    end,
  ]);
  expect(paths(through(twice, copying("in", "/w")))).toEqual(["/w/one 0", "/w/three 0", "/w/two 0"]);
  const prefixed = (magic: string) => through(head("b", 0, "0", { prefix: "a", magic }), copying("in", "/w"));
  expect(paths(prefixed("ustar\x0000"))).toEqual(["/w/a/b 0"]);
  expect(paths(prefixed("ustar  \0"))).toEqual(["/w/a/b 0", "/w/b 0"]);
});

test("K19: what comes out must lie below what was asked for, and what was not kubectl's to ask for does not pass", () => {
  const bytes = archive("-cf", "-", "d/a");
  expect(paths(through(bytes, copying("out", "/d/a")))).toEqual(["/d/a 5"]);
  expect(paths(through(bytes, copying("out", "/")))).toEqual(["/d/a 5"]);
  expect(through(bytes, copying("out", "/d/other")).why).toContain("not below");
  expect(through(bytes, copying("out", "/d/a/b")).why).toContain("not below");
  for (const odd of [
    copying("out", undefined),
    { ...copying("out", "/d/a"), isTail: true },
    { ...copying("out", "/d/a"), isKubectls: false },
  ]) {
    const run = through(bytes, odd);
    expect([run.why, run.passed.length]).toEqual([expect.stringContaining("kubectl's own way"), 0]);
  }
});

test("links come out, for they hold no data", () => {
  const bytes = archive("-cf", "-", "d/link", "d/a", "d/same");
  const run = through(bytes, copying("out", "/d"));
  expect([run.why, run.passed.equals(bytes)]).toEqual([undefined, true]);
});

test("where nobody minds what cannot be read, all of it passes, what was held included", () => {
  for (const bytes of [
    Buffer.alloc(700, "text "),
    Buffer.from("short"),
    Buffer.concat([head("a", 0), head("../b", 0)]),
  ]) {
    const gate = new CopyGate(copying("in", "/w"), () => undefined);
    const passed: Buffer[] = [];
    for (const byte of bytes) passed.push(gate.push(Buffer.from([byte])).passed);
    passed.push(gate.end().passed);
    expect(Buffer.concat(passed).equals(bytes)).toBe(true);
  }
});

/** What an attacker would put together, of parts that fit. */
const piece = fc.oneof(
  fc
    .tuple(
      fc.constantFrom("a", "b/c", "../u", "/abs", "b/", "deny", "b/../deny", ""),
      fc.constantFrom(0, 3, 512, 1_024),
    )
    .chain(([name, size]) =>
      fc
        .tuple(fc.constantFrom("0", "\0", "5", "7", "2"), fc.constantFrom("", "b", "deny"))
        .map(([type, prefix]) =>
          Buffer.concat([head(name, size, type, { prefix }), Buffer.alloc(Math.ceil(size / 512) * 512)]),
        ),
    ),
  fc.constantFrom("deny", "../deny", "ok").map((name) => pax(record("path", name))),
  fc.constantFrom("0", "512").map((size) => pax(record("size", size))),
  fc
    .constantFrom("deny", "ok")
    .map((name) => Buffer.concat([head("././@LongLink", name.length + 1, "L"), data(`${name}\0`)])),
  fc.constant(Buffer.alloc(512)),
  // A head in a file's data, as a reader would meet it that takes that data for heads.
  fc.constantFrom("0", "5", "2", "L").map((type) => Buffer.concat([head("b/", 512, type), head("deny", 0)])),
);

test("no archive that passes makes a real tar write what was not allowed", () => {
  const target = join(folder, "out");
  fc.assert(
    fc.property(fc.array(piece, { minLength: 1, maxLength: 4 }), (pieces) => {
      const bytes = Buffer.concat([...pieces, end]);
      const run = through(bytes, copying("in", "/"), ({ path }) => path.endsWith("deny"));
      rmSync(target, { recursive: true, force: true });
      mkdirSync(target);
      const argv = ["-xmvf", "-", "--no-same-owner", "-C", target];
      const { stdout } = spawnSync("tar", argv, { input: run.passed, timeout: 30_000 });
      const judged = new Set(run.seen.map(({ path }) => path));
      for (const name of stdout.toString().split("\n").filter(Boolean)) {
        expect(judged).toContain(
          `/${name
            .split("/")
            .filter((one) => one !== "" && one !== ".")
            .join("/")}`,
        );
        expect(name).not.toMatch(/deny$/);
      }
    }),
    { numRuns: 60 },
  );
});

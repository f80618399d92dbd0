import type { Command, Operation } from "@sallyport/policy";
import { describe, expect, test } from "vitest";
import type { Permit } from "../../guard/index.ts";
import { refusal } from "../../guard/index.ts";
import { type Field, Reader } from "./messages.ts";
import { SftpGate } from "./sftp-gate.ts";
import { openFlags, sftp, sftpPacket, sftpStatus } from "./sftp-packets.ts";

/** A host whose files are named here, with what each path resolves to; `undefined`: the host cannot say. */
function gated(
  allows: (command: Command) => boolean,
  paths: Readonly<Record<string, string | undefined>> = {},
  /** With their permissions; 0: the host does not say them. */
  existing: Readonly<Record<string, number>> = {},
  /** Answers to opens come when the test lets them. */
  late: (() => void)[] | undefined = undefined,
) {
  const judged: string[] = [];
  const reached: { readonly type: number; readonly rest: Buffer }[] = [];
  const answers: Reader[] = [];
  let handles = 0;
  const gate: SftpGate = new SftpGate({
    judge: async (command) => {
      judged.push(command.text);
      return allows(command)
        ? ({ kind: "permit", number: judged.length } as Permit)
        : refusal("denied", "no");
    },
    isStillAllowed: allows,
    isDenied: (command) => !allows(command),
    toUpstream: (packet) => {
      const reader = new Reader(packet, 4);
      const type = reader.byte();
      if (type === sftp.init) return gate.fromUpstream(sftpPacket(sftp.version, 3, "copy-data", "1"));
      const id = reader.uint32();
      if (id < 0xf000_0000) reached.push({ type, rest: reader.rest });
      const isExpansion = type === sftp.extended && reader.text() === "expand-path@openssh.com";
      if (type === sftp.realpath || isExpansion) {
        const path = reader.text();
        const found = path in paths ? paths[path] : path;
        const reply =
          found === undefined
            ? sftpPacket(sftp.status, id, sftpStatus.noSuchFile, "", "")
            : sftpPacket(sftp.name, id, 1, found, found, 0);
        gate.fromUpstream(reply);
      } else if (type === sftp.open) {
        const reply = sftpPacket(sftp.handle, id, `h${handles++}`);
        if (late === undefined) gate.fromUpstream(reply);
        else late.push(() => gate.fromUpstream(reply));
      } else if (type === sftp.lstat) {
        const mode = existing[reader.text()];
        if (mode === undefined) gate.fromUpstream(sftpPacket(sftp.status, id, sftpStatus.noSuchFile, "", ""));
        else gate.fromUpstream(sftpPacket(sftp.attrs, id, ...(mode === 0 ? [0] : [4, mode])));
      }
      // A close is answered late: what is sent meanwhile must not go by the old handle.
      else if (type !== sftp.close) gate.fromUpstream(sftpPacket(sftp.status, id, 0, "", ""));
    },
    toClient: (packet) => {
      if (packet.length > 0) answers.push(new Reader(packet, 4));
    },
    dropped: () => undefined,
    transferred: () => undefined,
    nowMs: () => 0,
  });
  const send = async (type: number, ...fields: readonly Field[]) => {
    await gate.fromClient(sftpPacket(type, ...fields));
    const answer = answers.at(-1);
    const kind = answer?.byte();
    answer?.uint32();
    return kind === sftp.status ? (answer?.uint32() ?? -1) : `answer ${kind}`;
  };
  return { gate, send, judged, reached, begin: () => send(sftp.init, 3) };
}

const puts = (command: Command) => command.parts.every(({ words }) => words[0] === "sftp.put");
const zero = { raw: Buffer.alloc(8) };

test.each([
  ["create", openFlags.create],
  ["truncate", openFlags.truncate],
  ["append", openFlags.append],
])(
  "whoever may only put files reads none by opening with the flag to %s and without that to write",
  async (_, flags) => {
    const { send, reached, begin } = gated(puts);
    await begin();
    expect(await send(sftp.open, 1, "/drop/secret", flags, 0)).toBe(sftpStatus.permissionDenied);
    expect(reached).toEqual([]);
  },
);

test("a handle that is open for writing alone neither reads nor is copied from", async () => {
  const { send, begin } = gated(puts);
  await begin();
  expect(await send(sftp.open, 1, "/drop/a", openFlags.write, 0)).toBe(`answer ${sftp.handle}`);
  expect(await send(sftp.open, 2, "/drop/b", openFlags.write, 0)).toBe(`answer ${sftp.handle}`);
  expect(await send(sftp.read, 3, "h0", zero, 100)).toBe(sftpStatus.permissionDenied);
  expect(await send(sftp.extended, 4, "copy-data", "h0", zero, zero, "h1", zero)).toBe(
    sftpStatus.permissionDenied,
  );
});

test("a handle that is being closed is none any more, because the host may give it to another file", async () => {
  const { gate, send, reached, begin } = gated(() => true);
  await begin();
  await send(sftp.open, 1, "/w/a", openFlags.write, 0);
  const before = reached.length;
  await gate.fromClient(sftpPacket(sftp.close, 2, "h0"));
  expect(await send(sftp.fsetstat, 3, "h0", 0)).toBe(sftpStatus.failure);
  expect(reached.length).toBe(before + 1);
});

test("what does not exist where one may not look is answered like what does", async () => {
  const { send, begin } = gated((command) => command.text.includes("/public"), {
    "/secret/none/file": undefined,
    "/secret/none": undefined,
    "/public/none/file": undefined,
    "/public/none": undefined,
  });
  await begin();
  expect(await send(sftp.stat, 1, "/secret/file")).toBe(sftpStatus.permissionDenied);
  expect(await send(sftp.stat, 2, "/secret/none/file")).toBe(sftpStatus.permissionDenied);
  expect(await send(sftp.open, 3, "/secret/none/file", 1, 0)).toBe(sftpStatus.permissionDenied);
  expect(await send(sftp.stat, 4, "/public/none/file")).toBe(sftpStatus.noSuchFile);
});

test("realpath tells nobody where links lead that they may not look at", async () => {
  const paths = { "/public/link": "/secret/place", ".": "/home/u" };
  const { send, begin } = gated((command) => command.text.includes("/public"), paths);
  await begin();
  expect(await send(sftp.realpath, 1, ".")).toBe(`answer ${sftp.name}`);
  expect(await send(sftp.realpath, 2, "/public/a")).toBe(`answer ${sftp.name}`);
  expect(await send(sftp.realpath, 3, "/public/link")).toBe(sftpStatus.permissionDenied);
  expect(await send(sftp.realpath, 4, "/secret")).toBe(sftpStatus.permissionDenied);
});

test("expanding a path tells no more of where it leads than realpath", async () => {
  const paths = {
    "~root/.ssh": "/root/.ssh",
    "~/public/link": "/secret/place",
    "~none/x": undefined,
    "~": "/home/u",
  };
  const { send, reached, begin } = gated((command) => command.text.includes("/public"), paths);
  await begin();
  const expand = (id: number, path: string) => send(sftp.extended, id, "expand-path@openssh.com", path);
  expect(await expand(1, "~")).toBe(`answer ${sftp.name}`);
  expect(await expand(2, "~/public/a")).toBe(sftpStatus.permissionDenied);
  expect(await expand(3, "~/public/link")).toBe(sftpStatus.permissionDenied);
  expect(await expand(4, "~root/.ssh")).toBe(sftpStatus.permissionDenied);
  expect(await expand(5, "~none/x")).toBe(sftpStatus.permissionDenied);
  expect(await expand(6, "/secret")).toBe(sftpStatus.permissionDenied);
  expect(await expand(7, "/public/a")).toBe(`answer ${sftp.name}`);
  // The host is asked for the path that was judged, and for no other.
  expect(reached.map(({ type }) => type)).toEqual([sftp.extended, sftp.realpath]);
});

test("a link that the host cannot resolve yet is not opened under its own name", async () => {
  const paths = { "/public/dangling": undefined };
  const { send, reached, begin } = gated(() => true, paths, { "/public/dangling": 0 });
  await begin();
  expect(await send(sftp.open, 1, "/public/dangling", openFlags.write | openFlags.create, 0)).toBe(
    sftpStatus.noSuchFile,
  );
  expect(reached).toEqual([]);
});

test("an approval that is taken back closes what it let be open, and nothing else", async () => {
  const { gate, send, begin } = gated(() => true);
  await begin();
  await send(sftp.open, 1, "/a", openFlags.write, 0);
  await send(sftp.open, 2, "/b", openFlags.write, 0);
  expect(gate.withdraw(1)).toBe(true);
  expect(gate.withdraw(9)).toBe(false);
  expect(await send(sftp.write, 3, "h0", zero, "x")).toBe(sftpStatus.permissionDenied);
  expect(await send(sftp.write, 4, "h1", zero, "x")).toBe(0);
});

test.each([
  ["lsetstat@openssh.com", ["/other/f", 0]],
  ["posix-rename@openssh.com", ["/other/f", "/public/f"]],
  ["posix-rename@openssh.com", ["/public/f", "/other/f"]],
  ["hardlink@openssh.com", ["/other/f", "/public/f"]],
  ["statvfs@openssh.com", ["/other/f"]],
] as const)("%s is judged by each of its paths (%j)", async (name, fields) => {
  const { send, reached, begin } = gated((command) => !command.text.includes("/other"));
  await begin();
  expect(await send(sftp.extended, 1, name, ...fields)).toBe(sftpStatus.permissionDenied);
  expect(reached).toEqual([]);
});

test.each(["vendor-id", "check-file", "md5-hash", "space-available", "text-seek", "check-file-name", ""])(
  "the extension %j, which is not read here, is refused",
  async (name) => {
    const { send, reached, begin } = gated(() => true);
    await begin();
    expect(await send(sftp.extended, 1, name, "/etc/shadow")).toBe(sftpStatus.unsupported);
    expect(reached).toEqual([]);
  },
);

test.each([
  ["an approval that is taken back", "withdraw"],
  ["a policy that changes", "policyChanged"],
  ["an hour that has come", "timePassed"],
] as const)("%s while the host still opens a file closes it, too", async (_, how) => {
  const late: (() => void)[] = [];
  let allowed = true;
  const { gate, send, begin } = gated(() => allowed, {}, {}, late);
  await begin();
  await send(sftp.open, 1, "/a", openFlags.read, 0);
  if (how === "withdraw") expect(gate.withdraw(1)).toBe(true);
  else {
    allowed = false;
    gate[how]();
  }
  for (const answer of late) answer();
  expect(await send(sftp.read, 2, "h0", zero, 100)).toBe(sftpStatus.permissionDenied);
});

test("attributes of an open file are judged as those of its path; its size is what writing it changes", async () => {
  const { send, reached, begin } = gated(puts);
  await begin();
  await send(sftp.open, 1, "/drop/a", openFlags.write, 0);
  const before = reached.length;
  // Permissions; owner; times; a size and permissions.
  for (const [index, flags] of [4, 2, 8, 5, 0x8000_0000].entries()) {
    const fields = [flags, ...Array(8).fill(0o4777)];
    expect(await send(sftp.fsetstat, 10 + index, "h0", ...fields), String(flags)).toBe(
      sftpStatus.permissionDenied,
    );
  }
  expect(reached.length).toBe(before);
  expect(await send(sftp.fsetstat, 20, "h0", 1, zero)).toBe(0);
});

test.each([
  ["rename", sftp.rename, []],
  ["posix-rename", sftp.extended, ["posix-rename@openssh.com"]],
  ["hardlink", sftp.extended, ["hardlink@openssh.com"]],
] as const)(
  "what may not be read where it is gets no name (%s) under which it may be",
  async (_, type, name) => {
    const isRead = (command: Command) => command.parts.some(({ operation }) => operation === "read");
    const { send, reached, begin } = gated(
      (command) =>
        !(isRead(command) && command.text.includes("/secret")) && !command.text.includes("sftp.get /drop"),
    );
    await begin();
    expect(await send(type, 1, ...name, "/secret/a", "/public/a")).toBe(sftpStatus.permissionDenied);
    expect(reached).toEqual([]);
    expect(await send(type, 2, ...name, "/secret/a", "/secret/b")).toBe(0);
    expect(await send(type, 3, ...name, "/public/a", "/public/b")).toBe(0);
    // Whoever reads nothing, as in a folder to drop files in, may still rename what is there.
    expect(await send(type, 4, ...name, "/drop/a.part", "/drop/a")).toBe(0);
  },
);

describe.each([
  ["rename", sftp.rename, []],
  ["posix-rename", sftp.extended, ["posix-rename@openssh.com"]],
] as const)("a folder that is renamed (%s) takes along what is in it", (_, type, name) => {
  const folder = 0o040_755;
  const existing = {
    "/web": folder,
    "/new": folder,
    "/said-nothing": 0,
    "/only/listed": folder,
    "/f": 0o100_644,
  };
  /** Whether a command is about the path, or about a folder that it may be in. */
  const concerns = (command: Command, path: string, operation: Operation) =>
    command.parts.some(
      (part) =>
        part.operation === operation &&
        part.objects.some(
          (object) => object.name === path || (object.isTree === true && path.startsWith(`${object.name}/`)),
        ),
    );

  test("away from a rule that denies writing to something in it, or to where one does", async () => {
    const { send, reached, begin } = gated(
      (command) =>
        !concerns(command, "/web/conf/key", "write") && !concerns(command, "/said-nothing/x", "write"),
      {},
      existing,
    );
    await begin();
    expect(await send(type, 1, ...name, "/web", "/elsewhere")).toBe(sftpStatus.permissionDenied);
    expect(await send(type, 2, ...name, "/new", "/web")).toBe(sftpStatus.permissionDenied);
    expect(await send(type, 3, ...name, "/new", "/web/conf")).toBe(sftpStatus.permissionDenied);
    // What the host says nothing about, or does not know, may be a folder.
    expect(await send(type, 4, ...name, "/said-nothing", "/elsewhere")).toBe(sftpStatus.permissionDenied);
    expect(await send(type, 5, ...name, "/unknown", "/web")).toBe(sftpStatus.permissionDenied);
    expect(reached).toEqual([]);
    expect(await send(type, 6, ...name, "/new", "/newer")).toBe(0);
    expect(await send(type, 7, ...name, "/f", "/web")).toBe(0);
  });

  test("and nothing in it may be read there that may not be read where it is", async () => {
    const { send, reached, begin } = gated(
      (command) =>
        !concerns(command, "/web/conf/key", "read") &&
        // A rule that lets a folder be listed, and nothing in it be read.
        !command.text.startsWith("sftp.get /only/listed/"),
      {},
      existing,
    );
    await begin();
    expect(await send(type, 1, ...name, "/web", "/elsewhere")).toBe(sftpStatus.permissionDenied);
    expect(await send(type, 2, ...name, "/only/listed", "/elsewhere")).toBe(sftpStatus.permissionDenied);
    expect(reached).toEqual([]);
    expect(await send(type, 3, ...name, "/new", "/elsewhere")).toBe(0);
  });
});

test("what waits when the channel ends is not judged, and asks the host nothing more", async () => {
  const judged: string[] = [];
  let asked = 0;
  const gate: SftpGate = new SftpGate({
    judge: async (command) => {
      judged.push(command.text);
      return { kind: "permit", number: judged.length } as Permit;
    },
    isStillAllowed: () => true,
    isDenied: () => false,
    // A host that has gone, and answers nothing.
    toUpstream: () => {
      asked += 1;
    },
    toClient: () => undefined,
    dropped: () => undefined,
    transferred: () => undefined,
    nowMs: () => 0,
  });
  const paths = ["/a", "/b", "/c"];
  const packets = paths.map((path, index) => sftpPacket(sftp.open, index + 1, path, openFlags.read, 0));
  const pending = gate.fromClient(Buffer.concat([sftpPacket(sftp.init, 3), ...packets]));
  expect(asked).toBe(2);
  gate.end();
  await pending;
  expect([asked, judged]).toEqual([2, []]);
});

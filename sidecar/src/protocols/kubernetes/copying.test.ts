import { expect, test } from "vitest";
import { commandOf, noFacts } from "./command.ts";
import { copyOf, copyTargetOf } from "./copying.ts";
import { type ApiRequest, readRequest } from "./request.ts";

const kubectls = { isKubectls: true, isTail: false };

test.each([
  ["tar cf - /data/x", { ...kubectls, direction: "out", place: "/data/x" }],
  ["tar cf - //data/./x/", { ...kubectls, direction: "out", place: "/data/x" }],
  ["tar cf - data/x", { ...kubectls, direction: "out", place: undefined }],
  ["tar cf - /data/../etc", { ...kubectls, direction: "out", place: undefined }],
  ["tar -xmf - -C /data", { ...kubectls, direction: "in", place: "/data" }],
  ["tar xmf - -C /", { ...kubectls, direction: "in", place: "/" }],
  ["tar -xmf -", { ...kubectls, direction: "in", place: undefined }],
  ["tar -xmf - -C data", { ...kubectls, direction: "in", place: undefined }],
  [
    "tar --no-same-permissions --no-same-owner -xmf - -C /data",
    { ...kubectls, direction: "in", place: "/data" },
  ],
])("K19: %s is what kubectl runs", (line, expected) => {
  expect(copyOf(line.split(" "))).toEqual(expected);
});

test.each([
  ["tar cf - /data/x | tail -c+0", "/data/x", false],
  ["tar cf - '/data/a b' | tail -c+1", "/data/a b", false],
  ["tar cf - '/data/it'\\''s' | tail -c+1", "/data/it's", false],
  ["tar cf - /data/x | tail -c+513", "/data/x", true],
])("K19: with retries it is a shell that runs %s", (text, place, isTail) => {
  expect(copyOf(["sh", "-c", text])).toEqual({ direction: "out", isKubectls: true, place, isTail });
});

test.each([
  [["sh", "-c", "tar cf - /data/x;id | tail -c+0"]],
  [["sh", "-c", "tar cf - $HOME | tail -c+0"]],
  [["sh", "-c", "tar cf - '/a'x'/b' | tail -c+0"]],
  [["sh", "-c", "tar cf - --to-command=id | tail -c+0"]],
  [["sh", "-x", "-c", "tar cf - /x | tail -c+0"]],
  [["cat", "cf", "-"]],
  [["tar", "cf", "-", "--to-command=id"]],
])("K19: %j is no copy of kubectl's", (argv) => {
  expect(copyOf(argv)?.isKubectls ?? false).toBe(false);
});

test.each([
  ["/tmp/tar cf - /etc", "out"],
  ["tar czf - /etc", "out"],
  ["tar cf - --transform=s/shadow/x/ /etc/shadow", "out"],
  ["tar -xmf - -C / --strip-components=1", "in"],
  ["tar xzf - -C /", "in"],
])("K19: %s is listed, and no rule takes it for kubectl's", (line, direction) => {
  expect(copyOf(line.split(" "))).toEqual({ direction, isKubectls: false, place: undefined, isTail: false });
});

test("K19: a copy has the words and paths of a transfer, beside those of the exec that it is", () => {
  const read = (argv: readonly string[], file?: { readonly path: string; readonly size: number }) => {
    const query = argv.map((word) => `command=${encodeURIComponent(word)}`).join("&");
    const request = readRequest("POST", `/api/v1/namespaces/a/pods/p/exec?${query}`) as ApiRequest;
    const moved = file === undefined ? {} : { file: { ...file, direction: "in" as const } };
    const { parts, facts, text } = commandOf(request, { ...noFacts, ...moved });
    const names = parts[0]?.objects.map(({ name, direct }) => `${direct ? "" : "~"}${name}`);
    return [parts[0]?.words.at(-1), names, facts?.file, facts?.fileSize, text];
  };
  const exec = "create:pods/exec";
  expect(read(["tar", "cf", "-", "/etc/x"]).slice(0, 4)).toEqual(["cp.get", [exec, "~/etc/x"], "", 0]);
  expect(read(["tar", "-xmf", "-", "-C", "/etc"]).slice(0, 4)).toEqual(["cp.put", [exec, "~/etc/"], "", 0]);
  expect(read(["tar", "-xmf", "-", "-C", "/"])[1]).toEqual([exec, "~/"]);
  expect(read(["tar", "-xmf", "-"])[1]).toEqual([exec]);
  expect(read(["test", "-d", "/etc"]).slice(0, 2)).toEqual(["cp.stat", [exec, "~/etc"]]);
  expect(read(["tar", "czf", "-", "/etc"]).slice(0, 2)).toEqual(["pods/exec", [exec]]);
  expect(read(["tar", "-xmf", "-", "-C", "/etc"], { path: "/etc/a b", size: 7 })).toEqual([
    "cp.put",
    [exec, "~/etc/a b"],
    "/etc/a b",
    7,
    'create pods/exec a/p -- tar -xmf - -C /etc (file "/etc/a b", 7 bytes)',
  ]);
  expect(copyTargetOf(["test", "-f", "/etc"])).toBeUndefined();
});

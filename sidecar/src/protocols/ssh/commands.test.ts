import { expect, test } from "vitest";
import { plainWords } from "../shell-words.ts";
import { execCommand, lexicalPath } from "./commands.ts";
import { destinationOf } from "./forwarding.ts";
import { encoded, Reader } from "./messages.ts";
import { mayBeSet, terminalOf } from "./terminal-request.ts";

test.each([
  ["ls -l /srv", ["ls", "-l", "/srv"]],
  ["cat 'a b' \"c d\"", ["cat", "a b", "c d"]],
  ["cat a\\ b", ["cat", "a b"]],
  ["cat ''", ["cat", ""]],
  ["  id  ", ["id"]],
  ["git-upload-pack 'a'\\''b'", ["git-upload-pack", "a'b"]],
  ["grep 'a\\.b' x", ["grep", "a\\.b", "x"]],
  ["dd if=x", ["dd", "if=x"]],
])("%s is read as any shell would", (line, words) => {
  expect(plainWords(line)).toEqual(words);
});

test.each([
  "id; rm x",
  "id && rm x",
  "id | sh",
  "id > x",
  "id $(rm x)",
  "id `rm x`",
  'id "$(rm x)"',
  "id $IFS",
  "id\nrm x",
  "id\rrm x",
  "A=1 id",
  "ls *",
  "ls ?",
  "ls [a]",
  "ls {a,b}",
  "ls ~/x",
  "dd if=~/x",
  "ls a:~/x",
  "if true",
  "! id",
  "id #x",
  "id 'open",
  'id "open',
  "id \\",
  "id &",
  "",
  "''",
  "id\u0000x",
  // fish reads other words here, and runs `id`.
  "ls 'a\\' 'b;id;\\'",
  "ls 'a\\\\b'",
  "cat \\x2fetc\\x2fshadow",
  // csh's history, and its end of a line within quotes.
  "ls 'a!#'",
  "ls \\!x",
  "ls 'a\nid\n'",
  'ls "a\nid"',
  // zsh's path of a program.
  "cat =ls",
  // In a locale of GBK or Big5 the backslash is a part of the letter, and `;` ends the command.
  "ls 中\\;rm",
  "id;",
  "id\n",
])("%j is left to the shell, and no program's name covers it", (line) => {
  expect(plainWords(line)).toBeUndefined();
  const asked = execCommand(line);
  expect(asked.argv).toBeUndefined();
  expect(asked.parts[0]).toMatchObject({ operation: "execute", enforcement: "heuristic" });
  expect(asked.parts[0]?.objects[0]?.name).toBe("(shell line)");
});

test.each([
  ["scp -t /srv/up", "write", "scp.put", ["/srv/up"]],
  ["scp -r -p -f /srv/a /srv/b", "read", "scp.get", ["/srv/a", "/srv/b"]],
  ["scp -f /srv/../etc/shadow", "read", "scp.get", ["/etc/shadow"]],
  ["rsync --server --sender -vlogDtpre.iLsfxCIvu . /srv/", "read", "rsync.get", ["/srv"]],
  ["rsync --server -logDtpre.iLsfxCIvu --delete . /srv/", "write", "rsync.put", ["/srv"]],
  ["git-upload-pack '/srv/a.git'", "read", "git.fetch", ["/srv/a.git"]],
  ["git-receive-pack '/srv/a.git'", "write", "git.push", ["/srv/a.git"]],
  ["git receive-pack /srv/a.git", "write", "git.push", ["/srv/a.git"]],
])("%s moves files", (line, operation, word, paths) => {
  const [part] = execCommand(line).parts;
  // What the path of a command line leads to is the host's to say.
  expect(part).toMatchObject({ operation, words: [word], enforcement: "heuristic" });
  expect(part?.objects.filter(({ direct }) => direct).map(({ name }) => name)).toEqual(paths);
});

test.each([
  ["scp -f /srv/a", false],
  ["scp -p -f /srv/a", false],
  ["scp -r -p -f /srv/a", true],
  ["scp -pr -f -- /srv/a", true],
  ["scp -t /srv/a", true],
  ["scp -d -t /srv/a", true],
  ["rsync --server --sender -lptgoDe.iLsfxCIvu . /srv/a", false],
  ["rsync --server --sender -e.LsfxCIvur . /srv/a", false],
  ["rsync --server --sender -logDtpre.iLsfxCIvu . /srv/a", true],
  ["rsync --server --sender -de.LsfxCIvu . /srv/a/", true],
  ["rsync --server --sender -l --recursive . /srv/a", true],
  ["rsync --server -e.LsfxCIvu . /srv/a", true],
  ["git-upload-pack /srv/a", false],
])("%s moves what is below its path: %j", (line, isTree) => {
  const [path] = execCommand(line).parts[0]?.objects ?? [];
  expect(path?.name).toBe("/srv/a");
  expect(path?.isTree ?? false).toBe(isTree);
});

test.each(["/srv/a", "/srv/a.git", "/srv/a/.git", "/srv/a.git/.git", "/srv/./a//"])(
  "whoever names git %s names what git may find there",
  (path) => {
    for (const program of ["git-upload-pack", "git-receive-pack", "git-upload-archive"]) {
      const objects = execCommand(`${program} '${path}'`).parts[0]?.objects ?? [];
      expect(objects.map(({ name }) => name).sort()).toEqual([
        "/srv/a",
        "/srv/a.git",
        "/srv/a.git/.git",
        "/srv/a/.git",
      ]);
      // What is named must be allowed; the others are for rules that deny.
      expect(objects.filter(({ direct }) => direct).length).toBe(1);
    }
  },
);

test.each([
  "scp -S /tmp/evil -f x",
  "scp -o ProxyCommand=x -f x",
  "scp -t -f x",
  "scp a b",
  "rsync --server --sender --rsh=evil . x",
  "rsync --server --sender -e evil . x",
  "rsync --server --sender --log-file=/etc/cron.d/x . x",
  "rsync --server --sender --remove-source-files . x",
  "rsync --server --sender --files-from=/etc/shadow . x",
  "rsync --server --sender -T . /srv/a secret",
  "rsync --server --sender -lf . /srv/a",
  "rsync --server --sender -vM . x",
  "rsync --daemon",
  "git-upload-pack --upload-pack=evil x",
  "git-upload-pack -x",
  "git -c core.sshCommand=evil upload-pack x",
  "git upload-pack-evil x",
  "/tmp/scp -f x",
])("%s runs a program, and is judged as that", (line) => {
  expect(execCommand(line).parts[0]).toMatchObject({ operation: "execute", words: ["exec"] });
});

test.each([
  ["/a/./b//c/../d", "/a/b/d"],
  ["/../..", "/"],
  ["../a", "../a"],
  ["a/../..", ".."],
  ["", "."],
])("%s is the path %s", (path, plain) => {
  expect(lexicalPath(path)).toBe(plain);
});

test("what loads code cannot be set, even where the resource lists it", () => {
  for (const name of ["LANG", "LC_ALL", "TERM", "GIT_PROTOCOL"]) expect(mayBeSet(name, "C", [])).toBe(true);
  for (const name of [
    "LD_PRELOAD",
    "BASH_ENV",
    "PROMPT_COMMAND",
    "GIT_SSH_COMMAND",
    "PATH",
    "BASH_FUNC_ls%%",
    "A=B",
    "ENV",
  ]) {
    expect(mayBeSet(name, "x", [name])).toBe(false);
  }
  expect(mayBeSet("MINE", "/x", [])).toBe(false);
  expect(mayBeSet("MINE", "/x", ["MINE"])).toBe(true);
});

test.each([
  ["LANG", "../../tmp/x"],
  ["LANGUAGE", "../../../srv/up/x"],
  ["LC_ALL", "/tmp/evil"],
  ["LC_TEST", "a\u001b[2J"],
  ["LANG", "a\nb"],
  ["TZ", "/etc/shadow"],
  ["TZ", ":/etc/shadow"],
  ["TZ", "../../etc/shadow"],
  ["TZ", "../doc/x"],
  ["TERM", "../x"],
  ["LANG", "x".repeat(300)],
])("%s=%j names a file or hides something, and is refused", (name, value) => {
  expect(mayBeSet(name, value, [name])).toBe(false);
});

test("values that people use are let through", () => {
  for (const [name, value] of [
    ["LANG", "de_DE.UTF-8@euro"],
    ["TZ", "America/Argentina/Buenos_Aires"],
    ["TZ", "CET-1CEST,M3.5.0,M10.5.0/3"],
    ["GIT_PROTOCOL", "version=2"],
  ] as const) {
    expect(mayBeSet(name, value, []), value).toBe(true);
  }
});

test.each([
  ["xterm-256color", true],
  ["", true],
  ["../../tmp/x", false],
  ["x\u001b[2J", false],
])("a terminal of type %j: %s", (term, isFit) => {
  const reader = new Reader(encoded(term, 80, 24, 0, 0, ""));
  expect(terminalOf(reader) !== undefined).toBe(isFit);
});

test("a destination is judged by its address, and what is near must be named by itself", () => {
  const at = (host: string, port: number, address: string, offered: readonly string[]) =>
    destinationOf({ host, port, addresses: [address] }, offered, { port: 22, address: "10.0.0.9" });
  expect(at("db.internal", 5432, "10.0.0.5", ["db.internal:5432"])).toEqual({
    name: "db.internal:5432",
    alias: "10.0.0.5:5432",
    address: "10.0.0.5",
  });
  expect(at("anything", 5432, "10.0.0.5", ["10.0.*:5432"])?.name).toBe("10.0.0.5:5432");
  // A name that has come to lead to the host itself, or to the cloud's metadata, is another thing.
  expect(at("db.internal", 5432, "127.0.0.1", ["db.internal:5432"])).toBeUndefined();
  expect(at("db.internal", 80, "169.254.169.254", ["db.internal:80", "*:80"])).toBeUndefined();
  expect(at("localhost", 8080, "127.0.0.1", ["*"])).toBeUndefined();
  expect(at("localhost", 8080, "127.0.0.1", ["localhost:8080"])?.address).toBe("127.0.0.1");
  expect(at("127.0.0.1", 22, "127.0.0.1", ["127.0.0.1:22"])).toBeUndefined();
  expect(at("x", 80, "fd00:ec2::254", ["*"])).toBeUndefined();
  expect(at("x", 80, "100.100.100.200", ["*:80"])).toBeUndefined();
  // The host itself under the address by which the gateway reaches it.
  expect(at("10.0.0.9", 22, "10.0.0.9", ["10.0.0.*:22", "10.0.0.9:22"])).toBeUndefined();
  expect(at("web.internal", 22, "10.0.0.9", ["web.internal:22"])).toBeUndefined();
  expect(at("10.0.0.9", 80, "10.0.0.9", ["10.0.0.*:80"])?.name).toBe("10.0.0.9:80");
  expect(at("x", 80, "::1", ["*"])).toBeUndefined();
  expect(at("x", 80, "0.0.0.0", ["*"])).toBeUndefined();
});

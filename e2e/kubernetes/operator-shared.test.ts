/** `kubectl apply` of a ProtectedResource and an AccessPolicy is all that a user does: psql works through the Service. */
import { expect, test } from "vitest";
import { createAuthority } from "../targets/certificates.ts";
import { accessPolicy, condition, gatewayAddresses, systemNamespace, withoutOperators } from "./installed.ts";
import { livePsql } from "./live-psql.ts";
import { database, databasePassword } from "./objects.ts";
import { connection, openOrders } from "./orders.ts";

const { scenario, issuer, psql, readers, resource, through, live } = openOrders("operator-shared");
const { namespace } = scenario;

/** The pods of a resource's gateways, by the part of their objects that a query names. */
async function ofPods(resourceName: string, query: string): Promise<readonly string[]> {
  const flags = ["-l", `sallyport.dev/gateway=${resourceName}`, "-o", `jsonpath={.items[*].${query}}`];
  return (await scenario.kubectl("get", "pods", ...flags)).split(" ").filter(Boolean);
}

test("an allowed statement runs, a denied one is refused with 42501", async () => {
  expect(await psql("SELECT item FROM orders")).toEqual({
    code: 0,
    stdout: "tea\n",
    stderr: "",
  });
  const refused = await psql("DELETE FROM orders");
  expect(refused.stderr).toContain("42501");
  expect((await psql("SELECT 1", through("mallory"))).code).not.toBe(0);
});

test("the database is reached from nowhere but the gateway", async () => {
  const direct = `host=orders user=postgres password=${databasePassword} dbname=postgres connect_timeout=3`;
  expect((await psql("SELECT 1", direct)).stderr).toContain("timeout expired");
});

test("nobody steps into the gateway's pods or the database's, by exec, attach, port-forward or a proxy", async () => {
  const { kubectl } = scenario;
  const [name = ""] = await ofPods("orders", "metadata.name");
  const pods = [
    ["orders-0", "postgres", 5432],
    [name, "sallyport-gateway", 9464],
  ] as const;
  for (const [pod, container, port] of pods) {
    const path = `/api/v1/namespaces/${namespace}/pods/${pod}:${port}/proxy/metrics`;
    const ways = [
      ["exec", pod, "-c", container, "--", "true"],
      ["attach", pod, "-c", container],
      ["port-forward", pod, `:${port}`],
      ["get", "--raw", path],
    ];
    for (const way of ways) {
      const { code, stdout, stderr } = await kubectl.try(undefined, ...way);
      expect([way[0], code !== 0, stdout]).toEqual([way[0], true, ""]);
      expect(stderr).toMatch(/closed here|holds a gateway/);
    }
  }
  const service = `/api/v1/namespaces/${namespace}/services/orders-gateway:5432/proxy/`;
  expect((await kubectl.try(undefined, "get", "--raw", service)).stderr).toContain("closed here");
});

test("the gateway's own account may do what every account may, and nothing else", async () => {
  const rights = (account: string) =>
    scenario.kubectl("auth", "can-i", "--list", `--as=system:serviceaccount:${namespace}:${account}`);
  await scenario.apply({ apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "nobody" } });
  const own = await rights("orders-gateway");
  expect(own).toContain("selfsubjectreviews.authentication.k8s.io");
  expect(own).toBe(await rights("nobody"));
});

interface Session {
  readonly metadata: { readonly name: string };
  readonly spec: { readonly sessionId: string };
  readonly status?: unknown;
}

test("a refusal gives the session an object, and deleting that ends the connection at whichever gateway", async () => {
  const addresses = await gatewayAddresses(scenario, "orders");
  expect(addresses).toHaveLength(2);
  for (const address of addresses) {
    const session = live(through("ana", address));
    expect(await session.ask("DELETE FROM orders")).toContain("42501");
    const refused = performance.now();
    // The server is told whose connection it is: `user/session`, and then what the client calls itself.
    const [told = ""] = (await session.ask("SELECT current_setting('application_name')")).split(" ");
    const sessionId = told.slice(told.indexOf("/") + 1);
    const found = await scenario.eventually("the Session", async () => {
      const { items } = await scenario.kubectl.json<{ readonly items: readonly Session[] }>("sessions");
      // Its status is written a moment after it.
      return items.find(({ spec, status }) => spec.sessionId === sessionId && status !== undefined);
    });
    console.log(
      `a Session ${(performance.now() - refused).toFixed(0)} ms after the refusal, as kubectl sees it`,
    );
    const subject = { user: "operator-shared:ana", kind: "Human" };
    expect(found).toMatchObject({ spec: { resource: "orders", subject }, status: { state: "Active" } });
    await scenario.kubectl("delete", "session", found.metadata.name);
    const said = await scenario.eventually("the connection to be closed", () =>
      session.ask("SELECT 'still here'").then(
        () => undefined,
        (error: Error) => error.message,
      ),
    );
    expect(said).toContain("psql ended with");
    expect(said).toContain("57P01");
  }
});

test("B3: Ctrl-C of psql works at the gateway that has not its session, and nobody else reaches the way between them", async () => {
  const addresses = await gatewayAddresses(scenario, "orders");
  expect(addresses).toHaveLength(2);
  await scenario.apply(readers("Admin"));
  for (const address of addresses) {
    await scenario.eventually("leave to sleep", async () => {
      const { code } = await psql("SELECT pg_sleep(0)", through("ana", address));
      return code === 0 || undefined;
    });
  }
  for (const [index, way] of [addresses, addresses.toReversed()].entries()) {
    const [own = "", other = ""] = way;
    const port = String(6000 + index);
    // A balancer that leads its first connection to one gateway and every later one to the other.
    const lead = `[ -e /tmp/led-${port} ] && exec nc ${other} 5432; : > /tmp/led-${port}; exec nc ${own} 5432`;
    const balance = `printf '%s' '${lead}' > /tmp/lead-${port}; nc -ll -p ${port} -e sh /tmp/lead-${port} </dev/null >/dev/null 2>&1 &`;
    expect((await scenario.exec("client", "sh", "-c", balance)).code).toBe(0);
    const sleep = `SELECT pg_sleep(100 + ${index})`;
    const asked = psql(sleep, `${through("ana", "127.0.0.1")} port=${port}`);
    await scenario.eventually("the statement to run", async () => {
      const running = `SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '${sleep}'`;
      return (await psql(running)).stdout.trim() === "1" || undefined;
    });
    const interrupt = "kill -INT $(/bin/busybox pidof psql)";
    expect((await scenario.exec("client", "sh", "-c", interrupt)).code).toBe(0);
    expect((await asked).stderr).toContain("57014");
  }
  await scenario.apply(readers("ReadOnly"));
  for (const address of addresses)
    expect((await scenario.exec("client", "nc", "-w", "3", address, "9465")).code).not.toBe(0);
});

test("a CA that does not match is a condition and an event, and the right one is enough", async () => {
  const [authority, another] = [await createAuthority(), await createAuthority()];
  const host = `sealed.${namespace}.svc`;
  const issued = await authority.issue({ commonName: host, dnsNames: [host, "sealed"], usage: "server" });
  const secret = (name: string, stringData: object) => ({
    ...{ apiVersion: "v1", kind: "Secret", metadata: { name } },
    stringData,
  });
  const sealed = (ca: string) =>
    resource(
      {
        endpoint: { serviceRef: { name: "sealed", port: 5432 } },
        tls: { upstream: { mode: "verify-full", caRef: { name: ca } } },
        credentials: [{ name: "main", secretRef: { name: "sealed-credential" } }],
        placement: { mode: "Shared", replicas: 1 },
      },
      "sealed",
    );
  await scenario.apply(
    secret("sealed-tls", { "tls.crt": issued.certPem, "tls.key": issued.keyPem }),
    secret("wrong-ca", { "ca.crt": another.caPem }),
    secret("right-ca", { "ca.crt": authority.caPem }),
    ...database("sealed", "", { tls: "sealed-tls" }),
    sealed("wrong-ca"),
    accessPolicy("sealed", {
      resources: { names: ["sealed"] },
      subjects: [{ user: "operator-shared:ana" }],
      profile: "ReadOnly",
    }),
  );
  await scenario.ready("statefulset/sealed", "deployment/sealed-gateway");
  const token = issuer.token({ user: "ana", claims: { aud: `sallyport:${namespace}/sealed` } });
  const ask = () => psql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", at);
  const at = connection(`sealed-gateway.${namespace}.svc`, token);
  await scenario.eventually("a login that fails", async () => {
    const { code, stderr } = await ask();
    expect(code).toBe(2);
    return stderr.includes("cannot be reached") || undefined;
  });
  await condition(
    scenario,
    "protectedresource/sealed",
    "CredentialsResolved",
    "False",
    "UpstreamCertificate",
  );
  await scenario.eventually("the event", async () => {
    const flags = ["get", "events.events.k8s.io", "-o", "jsonpath={range .items[*]}{.reason} {end}"];
    return (await scenario.kubectl(...flags)).includes("UpstreamCertificate") || undefined;
  });
  // No hot loop: clients that go on trying change nothing, once the first of them is told of.
  const status = () => scenario.kubectl("get", "protectedresource/sealed", "-o", "jsonpath={.status}");
  let told = await status();
  await scenario.eventually("a status that stays", async () => {
    const before = told;
    for (let at = 0; at < 3; at += 1) expect((await ask()).code).toBe(2);
    told = await status();
    return told === before || undefined;
  });
  await scenario.apply(sealed("right-ca"));
  await scenario.eventually("a login", async () => (await ask()).stdout === "t\n" || undefined, {
    ms: 60_000,
  });
  await condition(scenario, "protectedresource/sealed", "Ready", "True");
  await scenario.kubectl("delete", "protectedresource", "sealed", "--timeout=30s");
}, 240_000);

test("a changed policy counts within seconds, for everybody", async () => {
  await scenario.apply(readers("ReadWrite"));
  await scenario.eventually("the new policy", async () => {
    const { code } = await psql("INSERT INTO orders VALUES (2, 'milk')");
    return code === 0 || undefined;
  });
});

test("a missing secret is a condition, and making it is enough", async () => {
  await scenario.apply(
    resource(
      { credentials: [{ name: "main", secretRef: { name: "late-login" } }], placement: { replicas: 1 } },
      "late",
    ),
  );
  await condition(scenario, "protectedresource/late", "CredentialsResolved", "False", "SecretMissing");
  const before = await ofPods("late", "metadata.uid");
  await scenario.apply({
    ...{ apiVersion: "v1", kind: "Secret", metadata: { name: "late-login" } },
    stringData: { username: "postgres", password: databasePassword },
  });
  // The kubelet looks at mounted secrets once a minute.
  await condition(scenario, "protectedresource/late", "Ready", "True", undefined, 180_000);
  expect(await ofPods("late", "metadata.uid")).toEqual(before);
  expect(await ofPods("late", "status.containerStatuses[*].restartCount")).toEqual(["0"]);
}, 300_000);

test("while the operator is down sessions go on, new ones come in, and the policy stays", async () => {
  // Exec fails closed meanwhile; the break-glass group is not asked about.
  const rescuer = await scenario.cluster.user("rescuer", ["sallyport:break-glass", "system:masters"]);
  const exec = (pod: string, ...command: readonly string[]) =>
    rescuer.try(undefined, "-n", namespace, "exec", pod, "--", ...command);
  const session = livePsql({ ...scenario, exec }, "client", "through-it", through());
  const goesOn = async () => {
    expect(await session.ask("SELECT item FROM orders WHERE id = 1")).toBe("tea");
    expect(await session.ask("DROP TABLE orders")).toContain("42501");
  };
  const backend = await session.ask("SELECT pg_backend_pid()");
  await goesOn();
  await withoutOperators(scenario.cluster, async () => {
    await goesOn();
    const ask = (sql: string) =>
      exec("client", "psql", through(), "-X", "-At", "-v", "VERBOSITY=verbose", "-c", sql);
    expect(await ask("SELECT item FROM orders WHERE id = 1")).toEqual({
      code: 0,
      stdout: "tea\n",
      stderr: "",
    });
    expect((await ask("DROP TABLE orders")).stderr).toContain("42501");
  });
  await goesOn();
  expect(await session.ask("SELECT pg_backend_pid()")).toBe(backend);
  await session.close();
});

interface Made {
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly uid: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly ownerReferences?: readonly { readonly uid: string }[];
  };
}

/** What the cluster has of whatever kind: of this namespace, of the system's, and of none. */
async function everything(): Promise<readonly Made[]> {
  const list = ["api-resources", "--verbs=list", "-o", "name"];
  // Events are what happened, and go by themselves.
  const kinds = (await scenario.kubectl(...list))
    .trim()
    .split("\n")
    .filter((kind) => !/^events\b/.test(kind));
  const all = await scenario.cluster.kubectl.json<{ readonly items: readonly Made[] }>(kinds.join(","), "-A");
  const ours: readonly (string | undefined)[] = [namespace, systemNamespace, undefined];
  return all.items.filter(({ metadata }) => ours.includes(metadata.namespace));
}

test("deleting the resource removes everything that was made for it, of whatever kind", async () => {
  const before = await everything();
  const isLabelled = ({ metadata }: Made) => {
    const labels = metadata.labels ?? {};
    return labels["sallyport.dev/resource"] === "orders" || labels["sallyport.dev/gateway"] === "orders";
  };
  const resourceItself = before.find(
    ({ kind, metadata }) => kind === "ProtectedResource" && metadata.name === "orders",
  );
  const made = new Set(before.filter(isLabelled).map(({ metadata }) => metadata.uid));
  made.add(resourceItself?.metadata.uid ?? "");
  // What belongs to what was made: replica sets, pods, endpoint slices, sessions.
  for (let size = 0; size < made.size; ) {
    size = made.size;
    for (const { metadata } of before)
      if (metadata.ownerReferences?.some(({ uid }) => made.has(uid))) made.add(metadata.uid);
  }
  const kindsMade = new Set(before.filter(({ metadata }) => made.has(metadata.uid)).map(({ kind }) => kind));
  console.log(`made for it: ${[...kindsMade].sort().join(", ")}`);
  for (const kind of [
    "Deployment",
    "ReplicaSet",
    "Pod",
    "Service",
    "EndpointSlice",
    "NetworkPolicy",
    "Session",
  ])
    expect(kindsMade).toContain(kind);

  await scenario.kubectl("delete", "protectedresource", "orders", "--timeout=30s");
  await scenario.eventually("nothing to be left", async () => {
    const left = (await everything()).filter((one) => made.has(one.metadata.uid) || isLabelled(one));
    return left.length === 0 || undefined;
  });
});

/** `kubectl apply` of a ProtectedResource and an AccessPolicy is all that a user does: psql works through the Service. */
import { expect, test } from "vitest";
import { createAuthority } from "../targets/certificates.ts";
import { accessPolicy, condition, gatewayAddresses, withoutOperators } from "./installed.ts";
import { database, databasePassword } from "./objects.ts";
import { connection, openOrders } from "./orders.ts";

const { scenario, issuer, psql, readers, resource, through, live } = openOrders("operator-shared");
const { namespace } = scenario;

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

test("nobody steps into the gateway's pods or the database's", async () => {
  for (const target of ["deployment/orders-gateway", "orders-0"]) {
    const result = await scenario.exec(target, "true");
    expect(result.code).not.toBe(0);
    expect(result.stderr).toMatch(/closed here|holds a gateway/);
  }
});

interface Session {
  readonly metadata: { readonly name: string };
  readonly spec: { readonly sessionId: string };
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
      return items.find(({ spec }) => spec.sessionId === sessionId);
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
  const pods = ["get", "pods", "-l", "sallyport.dev/gateway=late", "-o", "jsonpath={.items[*].metadata.uid}"];
  const before = await scenario.kubectl(...pods);
  await scenario.apply({
    ...{ apiVersion: "v1", kind: "Secret", metadata: { name: "late-login" } },
    stringData: { username: "postgres", password: databasePassword },
  });
  // The kubelet looks at mounted secrets once a minute.
  await condition(scenario, "protectedresource/late", "Ready", "True", undefined, 180_000);
  expect(await scenario.kubectl(...pods)).toBe(before);
}, 300_000);

test("while the operator is down sessions go on, and the policy stays", async () => {
  await withoutOperators(scenario.cluster, async () => {
    // Exec fails closed meanwhile; the break-glass group is not asked about.
    const rescuer = await scenario.cluster.user("rescuer", ["sallyport:break-glass", "system:masters"]);
    const ask = (sql: string) => {
      const argv = ["psql", through(), "-X", "-At", "-v", "VERBOSITY=verbose", "-c", sql];
      return rescuer.try(undefined, "-n", namespace, "exec", "client", "--", ...argv);
    };
    expect(await ask("SELECT item FROM orders WHERE id = 1")).toEqual({
      code: 0,
      stdout: "tea\n",
      stderr: "",
    });
    expect((await ask("DROP TABLE orders")).stderr).toContain("42501");
  });
});

test("deleting the resource removes everything that was made for it", async () => {
  await scenario.kubectl("delete", "protectedresource", "orders", "--timeout=30s");
  await scenario.eventually("nothing to be left", async () => {
    const left = await scenario.kubectl(
      ...[
        "get",
        "deploy,svc,pdb,hpa,networkpolicy,sa,cm,pods",
        "-l",
        "sallyport.dev/resource=orders",
        "-o",
        "name",
      ],
    );
    return left.trim() === "" || undefined;
  });
});

/** The operator on a real API server: what it makes of resources and policies, and what it tells of them. */
import { createPrivateKey, createPublicKey, X509Certificate } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "node:tls";
import { isDeepStrictEqual } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import type { ApiServer } from "../cluster/api-server.ts";
import { run } from "../cluster/kubectl.ts";
import { waitFor } from "../cluster/processes.ts";
import { createAuthority } from "../targets/certificates.ts";
import { databaseService, oktaProvider, ordersResource, type SpecChange } from "../targets/manifests.ts";
import {
  startApiServerWithKinds,
  startOperator,
  systemNamespace,
  type TestOperator,
} from "../targets/operator.ts";
import { goModule } from "./go-program.ts";

interface Condition {
  readonly type: string;
  readonly status: string;
  readonly reason: string;
  readonly message: string;
  readonly lastTransitionTime: string;
}
interface Observed {
  readonly metadata: { readonly generation: number; readonly resourceVersion: string };
  readonly spec: Record<string, never>;
  readonly status?: {
    readonly observedGeneration?: number;
    readonly conditions?: readonly Condition[];
    readonly acceptedGeneration?: number;
    readonly policies?: readonly string[];
    readonly rules?: readonly { readonly rule: string }[];
    readonly address?: string;
  };
}

const root = join(import.meta.dirname, "../..");
let api: ApiServer;
let running: TestOperator;
const namespace = "shop";

beforeAll(async () => {
  api = await startApiServerWithKinds();
  await api.kubectl.apply([
    { apiVersion: "v1", kind: "Namespace", metadata: { name: namespace } },
    { apiVersion: "v1", kind: "Namespace", metadata: { name: "other" } },
    databaseService("orders-db", namespace),
    databaseService("secret-db", "other"),
    oktaProvider,
  ]);
  running = await startOperator(api);
});
afterAll(async () => {
  await running?.stop();
  await api?.close();
});

const resource = (name: string, change: SpecChange = {}) => ordersResource(namespace, change, name);

function policy(name: string, spec: object = {}) {
  return {
    apiVersion: "sallyport.dev/v1alpha1",
    kind: "AccessPolicy",
    metadata: { name, namespace },
    spec: {
      resources: { names: ["orders"] },
      subjects: [{ group: "okta:analysts" }],
      profile: "ReadOnly",
      ...spec,
    },
  };
}

const read = (kind: string, name: string, inNamespace = namespace) =>
  api.kubectl.json<Observed>(kind, name, "-n", inNamespace);

async function condition(
  kind: string,
  name: string,
  type: string,
  reason: string,
  inNamespace = namespace,
): Promise<Condition> {
  let last = "";
  try {
    return await waitFor(`${kind}/${name} to have ${type} ${reason}`, async () => {
      const { status, metadata } = await read(kind, name, inNamespace);
      last = JSON.stringify(status?.conditions);
      const found = status?.conditions?.find((one) => one.type === type && one.reason === reason);
      return status?.observedGeneration === metadata.generation ? found : undefined;
    });
  } catch (error) {
    throw new Error(last, { cause: error });
  }
}

async function event(reason: string): Promise<void> {
  await waitFor(`an event ${reason}`, async () => {
    const flags = ["get", "events.events.k8s.io", "-n", namespace, "-o"];
    const reasons = await api.kubectl(...flags, "jsonpath={range .items[*]}{.reason} {end}");
    return reasons.split(" ").includes(reason) || undefined;
  });
}

describe("a Shared resource", () => {
  test("gets its objects, and says where clients connect", async () => {
    await api.kubectl.apply([resource("orders"), policy("analysts")]);
    await condition("protectedresource", "orders", "Ready", "Progressing");
    const made = await api.kubectl(
      ...["get", "deploy,svc,pdb,networkpolicy,sa,cm", "-n", namespace],
      ...["-l", "sallyport.dev/resource=orders", "-o", "name"],
    );
    expect(made.trim().split("\n").sort()).toEqual([
      "configmap/orders-gateway-ca",
      "deployment.apps/orders-gateway",
      "networkpolicy.networking.k8s.io/orders-gateway",
      "networkpolicy.networking.k8s.io/orders-server",
      "poddisruptionbudget.policy/orders-gateway",
      "service/orders-gateway",
      "serviceaccount/orders-gateway",
    ]);
    // The resource may be looked at before its policy is heard of.
    const status = await waitFor("the policy to be told of", async () => {
      const found = (await read("protectedresource", "orders")).status;
      return found?.policies?.length === 1 ? found : undefined;
    });
    expect(status?.address).toBe("orders-gateway.shop.svc:5432");
    expect(status?.policies).toEqual(["shop/analysts"]);
    expect(status?.rules?.map(({ rule }) => rule)).toContain("profile/ReadOnly");
  });

  test("is ready once a gateway is, and not before it is heard from", async () => {
    await api.kubectl(
      ...["patch", "deployment", "orders-gateway", "-n", namespace, "--subresource=status", "--type=merge"],
      ...["-p", JSON.stringify({ status: { replicas: 2, readyReplicas: 2, updatedReplicas: 2 } })],
    );
    await condition("protectedresource", "orders", "Programmed", "Programmed");
    const { status } = await read("protectedresource", "orders");
    expect(status?.conditions?.find(({ type }) => type === "CredentialsResolved")?.status).toBe("Unknown");
    expect(status?.conditions?.find(({ type }) => type === "Reconciling")?.status).toBe("True");
  });

  test("O27 in the steady state costs no call and no write", async () => {
    const before = await read("protectedresource", "orders");
    const costs: number[] = [];
    // Some calls go by the clock alone: one may fall into a look, and not into each of several.
    for (let at = 0; at < 5; at += 1) {
      const [calls, looks] = [await callsOf(running), await reconcilesOf(running)];
      await api.kubectl("annotate", "svc", "orders-gateway", "-n", namespace, "--overwrite", `touched=${at}`);
      await waitFor("another look", async () => (await reconcilesOf(running)) > looks || undefined);
      costs.push((await callsOf(running)) - calls);
    }
    expect((await read("protectedresource", "orders")).metadata.resourceVersion).toBe(
      before.metadata.resourceVersion,
    );
    expect(costs.toSorted()[2]).toBe(0);
  });

  test.each([
    ["gone", "protectedresource", "orders", { op: "remove", path: "/status" }],
    ["gone", "accesspolicy", "analysts", { op: "remove", path: "/status" }],
    ["gone", "identityprovider", "okta", { op: "remove", path: "/status" }],
    [
      "forged",
      "accesspolicy",
      "analysts",
      { op: "replace", path: "/status/conditions/0/reason", value: "Fine" },
    ],
  ])("O2 a status that is %s comes back with all that it said: %s", async (_, kind, name, operation) => {
    const before = await read(kind, name);
    await api.kubectl(
      ...["patch", kind, name, "-n", namespace, "--subresource=status", "--type=json"],
      ...["-p", JSON.stringify([operation])],
    );
    const said = ({ status }: Observed) => ({
      ...status,
      conditions: status?.conditions?.map(({ lastTransitionTime: _, ...rest }) => rest),
    });
    await waitFor(`the status of ${kind}/${name}`, async () => {
      const now = await read(kind, name);
      return isDeepStrictEqual(said(now), said(before)) || undefined;
    });
  });

  test("O22 puts back what somebody changed or removed, and drops what is no longer asked for", async () => {
    await api.kubectl("delete", "networkpolicy", "orders-server", "-n", namespace);
    await api.kubectl(
      ...["patch", "svc", "orders-gateway", "-n", namespace, "--type=merge"],
      ...["-p", JSON.stringify({ spec: { selector: { "sallyport.dev/gateway": "somebody-else" } } })],
    );
    await waitFor("both to be as they were", async () => {
      const found = await api.kubectl.try(
        undefined,
        "get",
        "networkpolicy",
        "orders-server",
        "-n",
        namespace,
      );
      const selector = await api.kubectl(
        ...["get", "svc", "orders-gateway", "-n", namespace, "-o", "jsonpath={.spec.selector}"],
      );
      return (found.code === 0 && selector.includes('"orders"')) || undefined;
    });
    await api.kubectl.apply([resource("orders", { bypassProtection: { networkPolicy: "Off" } })]);
    await waitFor("the policy to be gone", async () => {
      const { code } = await api.kubectl.try(
        undefined,
        "get",
        "networkpolicy",
        "orders-server",
        "-n",
        namespace,
      );
      return code !== 0 || undefined;
    });
    await condition("protectedresource", "orders", "BypassProtected", "Off");
    await api.kubectl.apply([resource("orders")]);
    await condition("protectedresource", "orders", "BypassProtected", "ExecOpen");
  });

  test("O21 leaves replicas to an autoscaler", async () => {
    const autoscaling = { minReplicas: 2, maxReplicas: 4 };
    await api.kubectl.apply([resource("scaled", { placement: { autoscaling }, listen: { port: 6001 } })]);
    await waitFor("the autoscaler", async () => {
      const { code } = await api.kubectl.try(undefined, "get", "hpa", "scaled-gateway", "-n", namespace);
      return code === 0 || undefined;
    });
    await waitFor("the deployment", async () => {
      const { code } = await api.kubectl.try(undefined, "get", "deploy", "scaled-gateway", "-n", namespace);
      return code === 0 || undefined;
    });
    await api.kubectl("scale", "deploy", "scaled-gateway", "-n", namespace, "--replicas=4");
    await api.kubectl("annotate", "protectedresource", "scaled", "-n", namespace, "touched=1");
    const owners = await api.kubectl(
      ...["get", "deploy", "scaled-gateway", "-n", namespace, "-o", "yaml", "--show-managed-fields"],
    );
    const ours = owners
      .split("- apiVersion: apps/v1")
      .find((part) => part.includes("sallyport-protected-resource"));
    expect(ours).not.toContain("f:replicas");

    // What the autoscaler says of itself is told where its user looks.
    await condition("protectedresource", "scaled", "Autoscaling", "NotLookedYet");
    const blind = {
      type: "ScalingActive",
      status: "False",
      reason: "FailedGetResourceMetric",
      message: "none",
    };
    const status = { desiredReplicas: 4, currentMetrics: null, conditions: [blind] };
    await api.kubectl(
      ...["patch", "hpa", "scaled-gateway", "-n", namespace, "--subresource=status", "--type=merge"],
      ...["-p", JSON.stringify({ status })],
    );
    const told = await condition("protectedresource", "scaled", "Autoscaling", "FailedGetResourceMetric");
    expect(told).toMatchObject({ status: "False", message: "The autoscaler scales nothing: none" });
  });
});

describe("a Deployment", () => {
  interface Found {
    readonly spec: {
      readonly replicas: number;
      readonly template: {
        readonly metadata: { readonly annotations: Readonly<Record<string, string>> };
        readonly spec: { readonly nodeSelector?: object; readonly tolerations?: readonly object[] };
      };
    };
  }
  interface Claimed {
    readonly metadata: {
      readonly managedFields: readonly {
        readonly manager: string;
        readonly fieldsV1: Readonly<Record<string, object>>;
      }[];
    };
  }
  const name = "changing";
  const found = () => api.kubectl.json<Found>("deploy", `${name}-gateway`, "-n", namespace);
  const place = (placement: object) =>
    api.kubectl.apply([resource(name, { placement, listen: { port: 6020 } })]);
  const becomes = (what: string, holds: (spec: Found["spec"]) => boolean) =>
    waitFor(what, async () => {
      const { code } = await api.kubectl.try(undefined, "get", "deploy", `${name}-gateway`, "-n", namespace);
      return (code === 0 && holds((await found()).spec)) || undefined;
    });

  test("O22 loses what the resource no longer says of its pods", async () => {
    const annotations = { "example.com/team": "shop", "example.com/cost": "7" };
    const tolerations = [{ key: "example.com/databases", operator: "Exists" }];
    await place({ podTemplate: { annotations, tolerations, nodeSelector: { disk: "fast" } } });
    await becomes("the pods' template", ({ template }) => template.spec.nodeSelector !== undefined);
    await place({ podTemplate: { annotations: { "example.com/team": "shop" } } });
    await becomes(
      "the template without it",
      ({ template }) =>
        template.spec.nodeSelector === undefined &&
        template.spec.tolerations === undefined &&
        template.metadata.annotations["example.com/cost"] === undefined &&
        template.metadata.annotations["example.com/team"] === "shop",
    );
  });

  test("O21 that gets an autoscaler keeps its replicas, through later changes too", async () => {
    await place({ replicas: 3 });
    await becomes("three replicas", ({ replicas }) => replicas === 3);
    const seen = new Set<number>();
    for (const note of ["one", "two"]) {
      const podTemplate = { annotations: { "example.com/note": note } };
      await place({ autoscaling: { minReplicas: 3, maxReplicas: 5 }, podTemplate });
      await becomes(`the template of ${note}`, ({ template, replicas }) => {
        seen.add(replicas);
        return template.metadata.annotations["example.com/note"] === note;
      });
    }
    expect([...seen]).toEqual([3]);
    // What the autoscaler says counts from then on.
    await api.kubectl("scale", "deploy", `${name}-gateway`, "-n", namespace, "--replicas=5");
    await place({ autoscaling: { minReplicas: 3, maxReplicas: 5 } });
    await becomes(
      "the last template",
      ({ template }) => !("example.com/note" in template.metadata.annotations),
    );
    expect((await found()).spec.replicas).toBe(5);
    // Who claims the number writes it, and might write an old one.
    const shown = await api.kubectl.json<Claimed>(
      ...["deploy", `${name}-gateway`, "-n", namespace, "--show-managed-fields"],
    );
    const claims = shown.metadata.managedFields.filter(
      ({ fieldsV1 }) => "f:replicas" in (fieldsV1["f:spec"] ?? {}),
    );
    expect(claims.map(({ manager }) => manager)).toEqual(["kubectl"]);
  });
});

describe("bad input is a condition with a reason", () => {
  const cases: readonly (readonly [string, SpecChange, string])[] = [
    ["protocol", { protocol: "telnet" }, "UnsupportedProtocol"],
    ["option", { options: { databse: "shop" } }, "UnknownOption"],
    ["service", { endpoint: { serviceRef: { name: "nowhere", port: 5432 } } }, "ServiceNotFound"],
    ["port", { endpoint: { serviceRef: { name: "orders-db", port: 1 } } }, "PortNotFound"],
    ["provider", { identity: { providers: ["nobody"] } }, "ProviderNotFound"],
    ["tenant", { endpoint: { host: "secret-db.other.svc", port: 5432 } }, "NotGranted"],
    ["tenant-short", { endpoint: { host: "secret-db.other", port: 5432 } }, "NotGranted"],
    ["claims", { listen: { serviceName: "orders-gateway" } }, "Conflict"],
  ];
  test.each(cases)("%s", async (name, spec, reason) => {
    await api.kubectl.apply([resource(name, spec)]);
    const { status } = await condition("protectedresource", name, "Accepted", reason);
    expect(status).toBe("False");
    const all = (await read("protectedresource", name)).status?.conditions ?? [];
    expect(all.find(({ type }) => type === "Stalled")?.status).toBe("True");
    await event(reason);
    const { code } = await api.kubectl.try(undefined, "get", "deploy", `${name}-gateway`, "-n", namespace);
    expect(code).not.toBe(0);
  });

  test("O19 is no hot loop: a look at all of it costs no call, no write and no retry", async () => {
    const versions = () =>
      Promise.all(
        cases.map(async ([name]) => (await read("protectedresource", name)).metadata.resourceVersion),
      );
    const [before, retried] = [await versions(), await retriesOf(running)];
    const costs: number[] = [];
    for (let at = 0; at < 5; at += 1) {
      const [calls, looks] = [await callsOf(running), await reconcilesOf(running)];
      // Whatever concerns the whole namespace has every resource of it looked at.
      await api.kubectl("label", "namespace", namespace, "--overwrite", `touched=${at}`);
      await waitFor(
        "a look at each",
        async () => (await reconcilesOf(running)) >= looks + cases.length || undefined,
      );
      costs.push((await callsOf(running)) - calls);
    }
    expect(costs.toSorted((a, b) => a - b)[2]).toBe(0);
    expect([await versions(), await retriesOf(running)]).toEqual([before, retried]);
  });

  test("O25 an object that somebody else made is left alone", async () => {
    await api.kubectl.apply([
      {
        apiVersion: "v1",
        kind: "ConfigMap",
        metadata: { name: "taken-gateway-ca", namespace },
        data: { "ca.crt": "theirs" },
      },
      resource("taken"),
    ]);
    await condition("protectedresource", "taken", "Programmed", "Conflict");
    const data = await api.kubectl(
      ...["get", "cm", "taken-gateway-ca", "-n", namespace, "-o", "jsonpath={.data.ca\\.crt}"],
    );
    expect(data).toBe("theirs");
    await api.kubectl("delete", "cm", "taken-gateway-ca", "-n", namespace);
    await api.kubectl("annotate", "protectedresource", "taken", "-n", namespace, "touched=1");
    await api.kubectl("label", "protectedresource", "taken", "-n", namespace, "touched=1");
    await condition("protectedresource", "taken", "Programmed", "Progressing");
  });

  test("O12 a grant in the other namespace lets a resource reach its Service, and that one only", async () => {
    await api.kubectl.apply([
      {
        apiVersion: "sallyport.dev/v1alpha1",
        kind: "ResourceGrant",
        metadata: { name: "shop", namespace: "other" },
        spec: { from: [{ namespace, names: ["tenant"] }], to: [{ serviceName: "secret-db", ports: [5432] }] },
      },
    ]);
    await condition("protectedresource", "tenant", "Accepted", "Accepted");
    await condition("protectedresource", "tenant-short", "Accepted", "NotGranted");
    await condition("resourcegrant", "shop", "Accepted", "Accepted", "other");
  });

  test("a grant of a Service that is not there says so, and stops saying so once it is", async () => {
    await api.kubectl.apply([
      {
        apiVersion: "sallyport.dev/v1alpha1",
        kind: "ResourceGrant",
        metadata: { name: "early", namespace },
        spec: { from: [{ namespace: "other" }], to: [{ serviceName: "coming" }] },
      },
    ]);
    await condition("resourcegrant", "early", "Accepted", "ServiceNotFound");
    await api.kubectl.apply([databaseService("coming", namespace)]);
    await condition("resourcegrant", "early", "Accepted", "Accepted");
  });
});

describe("a policy", () => {
  test("that is broken by an edit keeps its last accepted generation, also after a restart", async () => {
    const rules = [{ name: "no-drops", match: { commands: ["DROP TABLE"] }, action: "Deny" }];
    await api.kubectl.apply([policy("deny-drops", { profile: "None", rules })]);
    await condition("accesspolicy", "deny-drops", "Ready", "InForce");
    const broken = [{ name: "no-drops", match: { cel: "command.(" }, action: "Deny" }];
    await api.kubectl.apply([policy("deny-drops", { profile: "None", rules: broken })]);
    const { message } = await condition("accesspolicy", "deny-drops", "Accepted", "InvalidCel");
    expect(message).toContain("spec.rules[0].match.cel");
    expect(message).toContain("Generation 1 stays in force");

    await running.stop();
    running = await startOperator(api);
    await api.kubectl("label", "accesspolicy", "deny-drops", "-n", namespace, "touched=1");
    await condition("accesspolicy", "deny-drops", "Ready", "Outdated");
    const { status } = await read("accesspolicy", "deny-drops");
    expect(status?.acceptedGeneration).toBe(1);
    const orders = await waitFor("the rule to count", async () => {
      const { status } = await read("protectedresource", "orders");
      return status?.rules?.some(({ rule }) => rule === "no-drops") ? status : undefined;
    });
    expect(orders.policies).toContain("shop/deny-drops");
  });

  test("that was never accepted says that what it names is denied", async () => {
    await api.kubectl.apply([
      policy("broken", { rules: [{ name: "x", match: { cel: "(" }, action: "Deny" }] }),
    ]);
    await condition("accesspolicy", "broken", "Ready", "PolicyInvalid");
  });

  test("that selects nothing says so, and stops saying so once it does", async () => {
    await api.kubectl.apply([policy("early", { resources: { names: ["late"] } })]);
    await condition("accesspolicy", "early", "Ready", "SelectsNothing");
    await event("SelectsNothing");
    // O19: whatever happens to resources, it is looked at, and told of once.
    const version = async () => (await read("accesspolicy", "early")).metadata.resourceVersion;
    const [before, retried] = [await version(), await retriesOf(running, "access-policy")];
    for (let at = 0; at < 3; at += 1) {
      const looks = await reconcilesOf(running, "access-policy");
      await api.kubectl("label", "protectedresource", "orders", "-n", namespace, "--overwrite", `look=${at}`);
      await waitFor(
        "a look at policies",
        async () => (await reconcilesOf(running, "access-policy")) > looks || undefined,
      );
    }
    expect([await version(), await retriesOf(running, "access-policy")]).toEqual([before, retried]);
    await api.kubectl.apply([resource("late", { listen: { port: 6002 } })]);
    await condition("accesspolicy", "early", "Ready", "InForce");
  });

  test("of the cluster speaks of the namespaces that it selects", async () => {
    await api.kubectl.apply([
      {
        apiVersion: "sallyport.dev/v1alpha1",
        kind: "ClusterAccessPolicy",
        metadata: { name: "floor" },
        spec: {
          namespaceSelector: { matchLabels: { stage: "production" } },
          resources: { selector: {} },
          subjects: [{ kind: "Human" }],
          profile: "None",
          rules: [{ name: "no-privilege", match: { operations: ["privilege"] }, action: "Deny" }],
        },
      },
    ]);
    await condition("clusteraccesspolicy", "floor", "Ready", "SelectsNothing");
    await api.kubectl("label", "namespace", namespace, "stage=production");
    await condition("clusteraccesspolicy", "floor", "Ready", "InForce");
    await waitFor("the floor in the resource's status", async () => {
      const { status } = await read("protectedresource", "orders");
      return status?.policies?.includes("floor") || undefined;
    });
    const kept = await api.kubectl("get", "controllerrevisions", "-n", systemNamespace, "-o", "name");
    expect(kept).toContain("floor-cluster-policy-1");
  });
});

test("the recorders' keys are made once, in Secrets that nobody changes", async () => {
  const secret = async (name: string) =>
    JSON.parse(await api.kubectl("get", "secret", name, "-n", systemNamespace, "-o", "json")) as {
      readonly immutable?: boolean;
      readonly data: Readonly<Record<string, string>>;
    };
  const signing = await secret("sallyport-recorder-signing");
  expect(signing.immutable).toBe(true);
  const pem = (key: string) => Buffer.from(signing.data[key] ?? "", "base64").toString();
  const derived = createPublicKey(createPrivateKey(pem("recorder.key.pem")));
  expect(derived.asymmetricKeyType).toBe("ed25519");
  expect(derived.export({ type: "spki", format: "pem" })).toBe(pem("recorder.pub.pem"));
  expect((await secret("sallyport-recorder-wrapping")).immutable).toBe(true);
  const before = signing.data["recorder.key.pem"];
  await running.stop();
  running = await startOperator(api);
  await waitFor("the operator to be ready", () => running.operator.notReady() === undefined || undefined);
  expect((await secret("sallyport-recorder-signing")).data["recorder.key.pem"]).toBe(before);
});

test("what the cluster requires is done, whatever the resource says, and no longer once it is not required", async () => {
  const bypassProtection = { networkPolicy: "Off", exec: "Off" };
  await api.kubectl.apply([resource("lax", { bypassProtection, listen: { port: 6010 } })]);
  await condition("protectedresource", "lax", "BypassProtected", "Off");
  const requires = { bypassProtection: { networkPolicy: "Enforce", exec: "Enforce" } };
  const floor = {
    apiVersion: "sallyport.dev/v1alpha1",
    kind: "ClusterAccessPolicy",
    metadata: { name: "least" },
    spec: { resources: { names: ["lax"] }, subjects: [{ kind: "Human" }], requires },
  };
  await api.kubectl.apply([floor]);
  await condition("protectedresource", "lax", "BypassProtected", "ExecOpen");
  await api.kubectl("get", "networkpolicy", "lax-server", "-n", namespace);
  const { spec } = await read("protectedresource", "lax");
  expect(spec).toMatchObject({ bypassProtection });
  await api.kubectl("delete", "clusteraccesspolicy", "least");
  await condition("protectedresource", "lax", "BypassProtected", "Off");
});

test("providers of one prefix: the elder keeps it", async () => {
  const twin = {
    apiVersion: "sallyport.dev/v1alpha1",
    kind: "IdentityProvider",
    metadata: { name: "zz-twin" },
    spec: { type: "oidc", prefix: "okta:", oidc: { issuer: "https://evil.example.com" } },
  };
  await api.kubectl.apply([twin]);
  await condition("identityprovider", "zz-twin", "Accepted", "PrefixTaken");
  await condition("identityprovider", "okta", "Accepted", "Accepted");
});

/** Calls but for the lease's, which go on by the clock: each of its PUTs has a GET before it. */
const callsOf = async ({ registry }: TestOperator): Promise<number> => {
  const puts = await sumOf(registry, "rest_client_requests_total", ({ method }) => method === "PUT");
  return (await sumOf(registry, "rest_client_requests_total", () => true)) - 2 * puts;
};

test("O49 with cert-manager the webhook shows the certificate of the folder, and the next one once it is there", async () => {
  const folder = await mkdtemp(join(tmpdir(), "sallyport-webhook-"));
  const authority = await createAuthority();
  const give = async () => {
    const issued = await authority.issue({ commonName: "webhook", dnsNames: ["webhook"], usage: "server" });
    await writeFile(join(folder, "tls.crt"), issued.certPem);
    await writeFile(join(folder, "tls.key"), issued.keyPem, { mode: 0o600 });
    return new X509Certificate(issued.certPem).fingerprint256;
  };
  const first = await give();
  const second = await startOperator(api, {
    SALLYPORT_POD_NAME: "operator-1",
    SALLYPORT_WEBHOOK_CERTIFICATES: "cert-manager",
    SALLYPORT_WEBHOOK_CERTIFICATE_FOLDER: folder,
  });
  try {
    const shows = (fingerprint: string) =>
      waitFor("the certificate", async () => (await shownAt(second)) === fingerprint || undefined, {
        ms: 60_000,
      });
    await shows(first);
    await shows(await give());
  } finally {
    await second.stop();
    await rm(folder, { recursive: true });
  }
});

/** The fingerprint of the certificate that an operator's webhook shows. */
function shownAt({ operator }: TestOperator): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ port: operator.webhookPort, host: "127.0.0.1", rejectUnauthorized: false });
    socket.setTimeout(5_000, () => socket.destroy());
    socket.on("error", () => undefined);
    socket.once("close", () => resolve(undefined));
    socket.once("secureConnect", () => {
      resolve(socket.getPeerX509Certificate()?.fingerprint256);
      socket.destroy();
    });
  });
}

test("the gateways' secret is made again once a pod waits for it", async () => {
  const made = ["get", "secret", "orders-gateway-key", "-n", namespace, "-o", "jsonpath={.metadata.uid}"];
  const before = await api.kubectl(...made);
  await api.kubectl("delete", "secret", "orders-gateway-key", "-n", namespace);
  await api.kubectl.apply([
    {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: "starting", namespace, labels: { "sallyport.dev/gateway": "orders" } },
      spec: {
        serviceAccountName: "orders-gateway",
        containers: [{ name: "sallyport-gateway", image: "gateway" }],
      },
    },
  ]);
  const after = await waitFor(
    "the secret",
    async () => {
      const { code, stdout } = await api.kubectl.try(undefined, ...made);
      return code === 0 ? stdout : undefined;
    },
    { ms: 60_000 },
  );
  expect(after).not.toBe(before);
  await api.kubectl("delete", "pod", "starting", "-n", namespace, "--force", "--grace-period=0");
});

describe("what the documentation tells GitOps tools to ask", () => {
  /** By the machines that Argo CD and Flux ask with; see the program's own text. */
  let ask: (...objects: readonly object[]) => Promise<readonly string[]>;
  beforeAll(async () => {
    const guide = await readFile(join(root, "docs/how-to/install-kubernetes.md"), "utf8");
    const blocks = [...guide.matchAll(/^```yaml\n(.*?)^```$/gms)].map(([, text = ""]) => parse(text));
    const lua = blocks.map(
      (block) => block["resource.customizations.health.sallyport.dev_ProtectedResource"],
    );
    const [{ current, failed }] = blocks.flatMap((block) => block.spec?.healthCheckExprs ?? []);
    const program = await goModule(join(import.meta.dirname, "clients/gitops-health"));
    ask = async (...objects) => {
      const question = { lua: lua.find((text) => text !== undefined), cel: { current, failed }, objects };
      const { code, stdout, stderr } = await run(program, [], JSON.stringify(question));
      expect(code, stderr).toBe(0);
      const answers = JSON.parse(stdout) as readonly {
        readonly lua: { readonly status: string };
        readonly cel: { readonly current: unknown; readonly failed: unknown };
      }[];
      return answers.map(({ lua: { status }, cel }) => {
        // Flux, too, has no answer for an object without a status, and asks again.
        if (typeof cel.current === "string") return `${status}, none`;
        return `${status}, ${cel.failed === true ? "Failed" : cel.current === true ? "Current" : "InProgress"}`;
      });
    };
  }, 180_000);

  test("is answered as the operator means it", async () => {
    const inForce = await read("accesspolicy", "early");
    const stalled = await read("protectedresource", "protocol");
    const starting = await read("protectedresource", "late");
    expect(await ask(inForce, stalled, starting)).toEqual([
      "Healthy, Current",
      "Degraded, Failed",
      "Progressing, InProgress",
    ]);
  });

  test("is not answered by what an earlier generation was, nor before there is any", async () => {
    const inForce = await read("accesspolicy", "early");
    const edited = {
      ...inForce,
      metadata: { ...inForce.metadata, generation: inForce.metadata.generation + 1 },
    };
    const withoutReady = {
      ...inForce,
      status: {
        ...inForce.status,
        conditions: inForce.status?.conditions?.filter(({ type }) => type !== "Ready"),
      },
    };
    const { status: _, ...fresh } = inForce;
    expect(await ask(edited, withoutReady, fresh)).toEqual([
      "Progressing, InProgress",
      "Progressing, InProgress",
      "Progressing, none",
    ]);
  });
});

const of =
  (wanted: string) =>
  ({ controller, name }: Readonly<Record<string, unknown>>) =>
    (controller ?? name) === wanted;
const reconcilesOf = ({ registry }: TestOperator, controller = "protected-resource"): Promise<number> =>
  sumOf(registry, "controller_runtime_reconcile_total", of(controller));
const retriesOf = ({ registry }: TestOperator, controller = "protected-resource"): Promise<number> =>
  sumOf(registry, "workqueue_retries_total", of(controller));

async function sumOf(
  registry: TestOperator["registry"],
  name: string,
  counts: (labels: Readonly<Record<string, unknown>>) => boolean,
): Promise<number> {
  const found = (await registry.getMetricsAsJSON()).find((metric) => metric.name === name);
  if (found === undefined) throw new Error(`no metric ${name}`);
  return found.values.filter(({ labels }) => counts(labels)).reduce((sum, { value }) => sum + value, 0);
}

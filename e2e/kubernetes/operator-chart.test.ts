/** The chart on a real API server: what it installs binds, and the operator needs no right beyond it. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parseAllDocuments } from "yaml";
import { Metrics } from "../../sidecar/src/server/metrics.ts";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { run } from "../cluster/kubectl.ts";
import { waitFor } from "../cluster/processes.ts";
import { helmProgram } from "../cluster/programs.ts";
import { databaseService } from "../targets/manifests.ts";
import { startOperator, systemNamespace, type TestOperator, testImage } from "../targets/operator.ts";

const chart = join(import.meta.dirname, "../../charts/sallyport");
const namespace = "shop";
const [repository, digest] = testImage.split("@") as [string, string];
const values = ["--set", `image.repository=${repository},image.digest=${digest}`];

interface Rendered {
  readonly kind: string;
  readonly spec: { readonly policyTypes: readonly string[]; readonly egress?: readonly unknown[] };
}

interface Monitoring {
  readonly spec?: { readonly groups?: readonly { readonly rules: readonly { readonly expr: string }[] }[] };
  readonly data?: Readonly<Record<string, string>>;
}
interface Said {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
}
/** What prom-client keeps of a metric, and does not say in its types. */
interface Named {
  readonly name: string;
  readonly labelNames?: readonly string[];
}

let api: ApiServer;
let running: TestOperator;

const helm = async (...argv: readonly string[]) => {
  const { code, stdout, stderr } = await run(await helmProgram(), [
    ...["--kubeconfig", api.kubeconfig, "--namespace", systemNamespace],
    ...argv,
  ]);
  if (code !== 0) throw new Error(`helm ${argv.join(" ")}: ${stderr}`);
  return stdout;
};

beforeAll(async () => {
  api = await startApiServer({ controllerManager: true });
  await helm("install", "sallyport", chart, "--create-namespace", ...values);
  await api.kubectl("wait", "--for=condition=Established", "crd", "--all");
  await api.kubectl.apply([
    {
      apiVersion: "v1",
      kind: "Namespace",
      metadata: { name: namespace, labels: { "sallyport.dev/protection": "enabled" } },
    },
    { apiVersion: "v1", kind: "Namespace", metadata: { name: "elsewhere" } },
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: "orders-db", namespace },
      spec: { selector: { app: "orders-db" }, ports: [{ port: 5432 }] },
    },
    {
      apiVersion: "sallyport.dev/v1alpha1",
      kind: "IdentityProvider",
      metadata: { name: "okta" },
      spec: { type: "oidc", prefix: "okta:", oidc: { issuer: "https://example.okta.com" } },
    },
  ]);
  running = await startOperator({ kubeconfig: await operatorKubeconfig() });
});
afterAll(async () => {
  await running?.stop();
  await api?.close();
});

/** The operator's own service account, with the rights of the chart and no others. */
async function operatorKubeconfig(): Promise<string> {
  const token = await api.serviceAccountToken(systemNamespace, "sallyport-operator");
  const path = join(api.folder, "operator.kubeconfig");
  const config = {
    apiVersion: "v1",
    kind: "Config",
    clusters: [
      {
        name: "c",
        cluster: { server: api.url, "certificate-authority-data": Buffer.from(api.caPem).toString("base64") },
      },
    ],
    users: [{ name: "u", user: { token } }],
    contexts: [{ name: "x", context: { cluster: "c", user: "u", namespace: systemNamespace } }],
    "current-context": "x",
  };
  await writeFile(path, JSON.stringify(config), { mode: 0o600 });
  return path;
}

function sidecarResource() {
  return {
    apiVersion: "sallyport.dev/v1alpha1",
    kind: "ProtectedResource",
    metadata: { name: "orders", namespace },
    spec: {
      protocol: "postgres",
      endpoint: { serviceRef: { name: "orders-db", port: 5432 } },
      placement: {
        mode: "Sidecar",
        podSelector: { matchExpressions: [{ key: "app", operator: "In", values: ["orders-db"] }] },
      },
      credentials: [{ name: "default", secretRef: { name: "orders-login" } }],
      identity: { providers: ["okta"] },
    },
  };
}

function pod(name: string, more: { labels?: object; spec?: object } = {}) {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace, labels: { app: "orders-db", ...more.labels } },
    spec: { containers: [{ name: "postgres", image: "postgres:18" }], ...more.spec },
  };
}

const create = (object: object, ...flags: readonly string[]) =>
  api.kubectl.try(JSON.stringify(object), "create", "-f", "-", ...flags);

/** A policy is in force some moments after it was made: the API server says so by refusing. */
async function refused(object: () => object, text: string, ...flags: readonly string[]) {
  const stderr = await waitFor(`refusal: ${text}`, async () => {
    const result = await create(object(), ...flags, "--dry-run=server");
    return result.code !== 0 && result.stderr.includes(text) ? result.stderr : undefined;
  });
  expect(stderr).toContain(text);
}

test("O49 rendering twice is identical, and the chart has no fault", async () => {
  const render = () => helm("template", "sallyport", chart, ...values);
  expect(await render()).toBe(await render());
  await helm("lint", chart, "--strict");
});

test("the next step that an installation tells is one: what it says to apply is accepted, and policy is ready", async () => {
  const notes = await helm("get", "notes", "sallyport");
  const [, told = ""] = /<<YAML\n([\s\S]*?)\n +YAML$/m.exec(notes) ?? [];
  const said = parseAllDocuments(told.replaceAll(/^ {5}/gm, ""))
    .map((one) => one.toJS() as Said)
    .map(({ metadata, ...rest }) => ({
      ...rest,
      metadata: { ...metadata, ...(metadata.namespace && { namespace: "told" }) },
    }));
  expect(said.map(({ kind }) => kind).sort()).toEqual([
    "AccessPolicy",
    "IdentityProvider",
    "ProtectedResource",
  ]);
  const names = said.map(({ kind, metadata }) => `${kind.toLowerCase()}/${metadata.name}`);
  expect(notes).toContain(`--for=condition=Ready ${names[1]} ${names[2]}`);
  await api.kubectl.apply([
    { apiVersion: "v1", kind: "Namespace", metadata: { name: "told" } },
    databaseService("orders-db", "told"),
    ...said,
  ]);
  const [, label] = /label namespace shop (\S+)/.exec(notes) ?? [];
  await api.kubectl("label", "namespace", "told", label ?? "");
  for (const [name, condition] of [
    [names[0], "Ready"],
    [names[1], "Accepted"],
    [names[2], "Ready"],
  ] as const)
    await api.kubectl("-n", "told", "wait", name ?? "", `--for=condition=${condition}`, "--timeout=30s");
  await api.kubectl("delete", "namespace", "told", "--timeout=60s");
});

test("the kustomize base is the chart with its default values", async () => {
  const base = join(chart, "../kustomize");
  const rendered = await helm("template", "sallyport", chart, "--no-hooks", "--set", "crds.enabled=false");
  expect(await readFile(join(base, "sallyport.yaml"), "utf8")).toBe(rendered);
  const built = await api.kubectl("kustomize", base);
  expect(built).toContain("name: sallyport-operator");
});

test("O69 each alert leads to a chapter that says what to do", async () => {
  const rendered = await helm(
    "template",
    "sallyport",
    chart,
    ...values,
    "--set",
    "metrics.alerts.enabled=true",
  );
  const led = [...rendered.matchAll(/runbook_url: \S+\/docs\/([\w/-]+)#(\S+)$/gm)];
  expect(led.length).toBe([...rendered.matchAll(/- alert: /g)].length);
  expect(led.length).toBeGreaterThan(0);
  for (const [, page, anchor] of led) {
    const text = await readFile(join(chart, `../../docs/${page}.md`), "utf8");
    const anchors = [...text.matchAll(/^##+ (.+)$/gm)].map(([, title = ""]) =>
      title.toLowerCase().replaceAll(" ", "-"),
    );
    expect(anchors).toContain(anchor);
  }
});

test("the alert on break-glass looks at the gateways' own counter, and gateways are asked for it", async () => {
  const rendered = await helm(
    "template",
    "sallyport",
    chart,
    ...values,
    ...["--set", "metrics.alerts.enabled=true,metrics.serviceMonitor.enabled=true"],
  );
  const [, alert = ""] =
    /- alert: SallyportBreakGlass\n([\s\S]*?)(?=\n +- alert|\n---|$)/.exec(rendered) ?? [];
  expect(alert).toContain("sum by (resource) (increase(sallyport_break_glass_total[15m])) > 0");
  expect(alert).toContain("severity: warning");
  const [monitor = ""] = /kind: PodMonitor\n[\s\S]*?(?=\n---)/.exec(rendered) ?? [];
  // By the label and the port that the operator gives every gateway, beside a server or before it.
  const container = join(chart, "../../operator/src/placement/testdata/shared.yaml");
  const placed = await readFile(container, "utf8");
  for (const name of ["sallyport.dev/gateway", "gw-admin"]) {
    expect(placed).toContain(name);
    expect(monitor).toContain(name);
  }
});

test("dashboard and alerts ask for metrics that operator and gateways have, by labels that these have", async () => {
  const flags = ["--set", "metrics.alerts.enabled=true,metrics.dashboards.enabled=true"];
  const rendered = await helm("template", "sallyport", chart, ...values, ...flags);
  const objects = parseAllDocuments(rendered).map((one) => one.toJS() as Monitoring | null);
  const rules = objects.flatMap((one) => one?.spec?.groups ?? []).flatMap((group) => group.rules);
  const boards = objects.flatMap((one) => one?.data?.["sallyport.json"] ?? []);
  const drawn = boards.flatMap((board) => [...board.matchAll(/"expr": ("(?:[^"\\]|\\.)*")/g)]);
  const asked = [
    ...rules.map(({ expr }) => expr),
    ...drawn.map(([, text = ""]) => JSON.parse(text) as string),
  ];
  expect(rules.length).toBeGreaterThan(0);
  expect(drawn.length).toBeGreaterThan(0);

  const parts = [running.registry, new Metrics().registry];
  const known = new Map<string, readonly string[]>();
  for (const { name, labelNames = [] } of parts.flatMap((each) => each.getMetricsAsArray() as Named[]))
    known.set(name, labelNames);
  const words = new Set(["sum", "by", "rate", "increase", "histogram_quantile"]);
  for (const expression of asked) {
    // What stands neither in quotes nor in brackets of time, and is no function.
    const names = expression.replaceAll(/"[^"]*"|\[\w+\]/g, "").matchAll(/\b[a-z_][a-z0-9_]*\b(?!=)/g);
    const [metric = "", ...others] = [...names]
      .map(([name]) => name)
      .filter((name) => !words.has(name))
      .toReversed();
    const labels = known.get(metric.replace(/_(bucket|sum|count)$/, "")) ?? known.get(metric);
    expect([expression, labels !== undefined]).toEqual([expression, true]);
    const ofSeries = [...(labels ?? []), ...(metric.endsWith("_bucket") ? ["le"] : [])];
    expect(others.filter((label) => !ofSeries.includes(label))).toEqual([]);
  }
});

test("metrics are open to whom the values name", async () => {
  const peers = "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.team=monitoring";
  const rendered = await helm("template", "sallyport", chart, ...values, "--set", peers);
  const [policy = ""] =
    /kind: NetworkPolicy\n[\s\S]*?component: operator[\s\S]*?(?=\n---)/.exec(rendered) ?? [];
  expect(policy).toMatch(
    /port: 9464\}\]\n +from:\n +- namespaceSelector:\n +matchLabels:\n +team: monitoring/,
  );
  expect(policy.match(/port: 9464/g)).toHaveLength(1);
});

test("O60 operator and recorder reach names, the API server and each other, and what the values name", async () => {
  const policies = async (...flags: readonly string[]) => {
    const rendered = await helm("template", "sallyport", chart, ...values, ...flags);
    return parseAllDocuments(rendered)
      .map((one) => one.toJS() as Rendered | null)
      .filter((one) => one?.kind === "NetworkPolicy")
      .map((one) => one?.spec ?? { policyTypes: [] });
  };
  const names = [
    {
      ports: [
        { protocol: "UDP", port: 53 },
        { protocol: "TCP", port: 53 },
      ],
    },
    {
      to: [
        { namespaceSelector: {}, podSelector: { matchLabels: { "k8s-app": "kube-dns" } } },
        { namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "openshift-dns" } } },
      ],
    },
  ];
  const recorders = {
    to: [
      {
        podSelector: {
          matchLabels: {
            "app.kubernetes.io/name": "sallyport",
            "app.kubernetes.io/instance": "sallyport",
            "app.kubernetes.io/component": "recorder",
          },
        },
      },
    ],
    ports: [{ protocol: "TCP", port: 7445 }],
  };
  const tcp = (...ports: readonly number[]) => ports.map((port) => ({ protocol: "TCP", port }));
  const servers = { ports: tcp(443, 6443, 8443, 16443) };
  const both = await policies();
  expect(both.map(({ policyTypes }) => policyTypes)).toEqual([
    ["Ingress", "Egress"],
    ["Ingress", "Egress"],
  ]);
  expect(both.map(({ egress }) => egress)).toEqual([
    [...names, servers, recorders],
    [...names, servers],
  ]);
  const flags =
    "networkPolicy.egress.apiServerPorts={7443},networkPolicy.egress.apiServerRanges={10.0.0.1/32}";
  const told = "approvals.notifications.secretName=hook,networkPolicy.egress.notificationPorts={8088}";
  const [named] = await policies("--set", `${flags},${told}`);
  const there = { to: [{ ipBlock: { cidr: "10.0.0.1/32" } }], ports: tcp(7443) };
  expect(named?.egress).toEqual([...names, there, recorders, { ports: tcp(8088) }]);
  const open = await policies("--set", "networkPolicy.egress.enabled=false");
  for (const { policyTypes } of open) expect(policyTypes).toEqual(["Ingress"]);
});

test("O60 an installation that would cut the control plane off from the API server is refused, and says the port", async () => {
  // A real cluster's API server writes it; ours, on the loopback, does not.
  await api.kubectl.apply([
    {
      apiVersion: "discovery.k8s.io/v1",
      kind: "EndpointSlice",
      metadata: { name: "kubernetes", namespace: "default" },
      addressType: "IPv4",
      endpoints: [{ addresses: ["192.0.2.1"] }],
      ports: [{ name: "https", port: 7443 }],
    },
  ]);
  const upgrade = (...flags: readonly string[]) =>
    helm("upgrade", "sallyport", chart, ...values, "--dry-run=server", ...flags);
  try {
    await expect(upgrade()).rejects.toThrow(
      "listens on port 7443: add it to networkPolicy.egress.apiServerPorts",
    );
    await upgrade("--set", "networkPolicy.egress.apiServerPorts={443,7443}");
    await upgrade("--set", "networkPolicy.egress.enabled=false");
  } finally {
    await api.kubectl("delete", "endpointslice", "kubernetes", "-n", "default");
  }
});

test("values that mean nothing are refused", async () => {
  await expect(helm("template", "sallyport", chart, "--set", "recorder.replica=2")).rejects.toThrow(
    /replica/,
  );
  await expect(helm("template", "sallyport", chart, "--set", "image.digest=latest")).rejects.toThrow(
    /digest/,
  );
});

test("with cert-manager the chart asks for a certificate, of the issuer that the values name", async () => {
  const flags = ["--set", "webhook.certificates=cert-manager"];
  const issuer = ["--set", "webhook.certManager.issuerRef.name=internal-ca"];
  await expect(helm("template", "sallyport", chart, ...flags)).rejects.toThrow(/issuerRef\.name/);
  const misspelt = ["--set", "webhook.certManager.issuerRef.knd=Issuer"];
  await expect(helm("template", "sallyport", chart, ...flags, ...issuer, ...misspelt)).rejects.toThrow(/knd/);
  const rendered = await helm("template", "sallyport", chart, ...flags, ...issuer);
  const [certificate = ""] = /kind: Certificate\n[\s\S]*?(?=\n---|$)/.exec(rendered) ?? [];
  expect(certificate).toMatch(/issuerRef:\n +kind: ClusterIssuer\n +name: internal-ca/);
  // The name that the API server dials, the Secret that the operator is given, and the bundle in both configurations.
  expect(certificate).toContain(`- sallyport-webhook.${systemNamespace}.svc`);
  expect(certificate).toContain("secretName: sallyport-webhook-certificate");
  expect(rendered).toContain("secret: {secretName: sallyport-webhook-certificate}");
  const asked = `cert-manager.io/inject-ca-from: ${systemNamespace}/sallyport-webhook`;
  expect(rendered.split(asked)).toHaveLength(3);
});

test("the API server finds no fault with the admission policies", async () => {
  interface Policies {
    readonly items: readonly {
      readonly metadata: { readonly name: string; readonly generation: number };
      readonly status?: {
        readonly observedGeneration?: number;
        readonly typeChecking?: { readonly expressionWarnings?: unknown };
      };
    }[];
  }
  const checked = await waitFor("the type check", async () => {
    const { items } = await api.kubectl.json<Policies>("validatingadmissionpolicies");
    const own = items.filter(({ metadata }) => metadata.name.startsWith("sallyport-"));
    return own.every(({ status, metadata }) => status?.observedGeneration === metadata.generation)
      ? own
      : undefined;
  });
  expect(checked).toHaveLength(12);
  for (const { metadata, status } of checked) {
    expect([metadata.name, status?.typeChecking?.expressionWarnings ?? []]).toEqual([metadata.name, []]);
  }
});

test("O62 an upgrade with the same values changes no object", async () => {
  const generations = () =>
    api.kubectl(
      ...[
        "get",
        "deploy,sts,mutatingwebhookconfigurations,validatingwebhookconfigurations,validatingadmissionpolicies,crd",
      ],
      ...[
        "-n",
        systemNamespace,
        "-o",
        "jsonpath={range .items[*]}{.metadata.name}={.metadata.generation} {end}",
      ],
    );
  const before = await generations();
  await helm("upgrade", "sallyport", chart, ...values);
  expect(await generations()).toBe(before);
});

describe("with the chart's rights and no others", () => {
  test("the operator leads, makes its certificates and places gateways", async () => {
    await api.kubectl.apply([
      sidecarResource(),
      {
        apiVersion: "sallyport.dev/v1alpha1",
        kind: "AccessPolicy",
        metadata: { name: "analysts", namespace },
        spec: {
          resources: { names: ["orders"] },
          subjects: [{ group: "okta:analysts" }],
          profile: "ReadOnly",
        },
      },
      {
        ...sidecarResource(),
        metadata: { name: "shared", namespace },
        spec: {
          ...sidecarResource().spec,
          placement: { mode: "Shared", autoscaling: { maxReplicas: 3 } },
          listen: { port: 7000 },
        },
      },
    ]);
    await waitFor("every object", async () => {
      const { code } = await api.kubectl.try(
        undefined,
        ...["get", "deploy/shared-gateway", "hpa/shared-gateway", "pdb/shared-gateway", "svc/orders-gateway"],
        ...[
          "networkpolicy/orders-server",
          "sa/shared-gateway",
          "controllerrevision/analysts-policy-1",
          "-n",
          namespace,
        ],
      );
      return code === 0 || undefined;
    });
    const conditions = await waitFor("status", async () => {
      const text = await api.kubectl(
        "get",
        "pres",
        "-n",
        namespace,
        "-o",
        "jsonpath={.items[*].status.conditions}",
      );
      return text.includes("Progressing") && text.includes("NoPods") ? text : undefined;
    });
    expect(conditions).not.toContain("forbidden");
    await waitFor("an event", async () => {
      const events = await api.kubectl("get", "events", "-n", namespace, "-o", "name");
      return events.includes("event/") || undefined;
    });
  });

  test("O49 the webhooks' authorities are written, and that field alone is the operator's", async () => {
    const bundle = await waitFor("the bundle", async () => {
      const text = await api.kubectl(
        ...[
          "get",
          "mutatingwebhookconfiguration",
          "sallyport",
          "-o",
          "jsonpath={.webhooks[0].clientConfig.caBundle}",
        ],
      );
      return text === "" ? undefined : text;
    });
    expect(Buffer.from(bundle, "base64").toString()).toContain("BEGIN CERTIFICATE");
    const fields = await api.kubectl(
      ...["get", "mutatingwebhookconfiguration", "sallyport", "--show-managed-fields", "-o"],
      'jsonpath={.metadata.managedFields[?(@.manager=="sallyport-certificates")].fieldsV1}',
    );
    expect(
      JSON.stringify(JSON.parse(fields))
        .match(/f:[a-zA-Z]+/g)
        ?.sort(),
    ).toEqual([...["f:caBundle", "f:clientConfig", "f:name", "f:webhooks"]]);
  });

  test("O57 it reads no Secret but its own", async () => {
    const can = async (...argv: readonly string[]) =>
      (
        await api.kubectl.try(
          undefined,
          ...["auth", "can-i", ...argv, `--as=system:serviceaccount:${systemNamespace}:sallyport-operator`],
        )
      ).stdout.trim();
    expect(await can("get", "secrets", "-n", namespace)).toBe("no");
    expect(await can("list", "secrets", "-n", systemNamespace)).toBe("no");
    expect(await can("get", "secrets/sallyport-authorities", "-n", systemNamespace)).toBe("yes");
    expect(await can("create", "pods", "-n", namespace)).toBe("no");
    expect(await can("impersonate", "users")).toBe("no");
  });

  test("it starts its own probe and no pod elsewhere, and reads which addresses are the cluster's", async () => {
    const can = async (...argv: readonly string[]) => {
      const asOperator = `--as=system:serviceaccount:${systemNamespace}:sallyport-operator`;
      return (await api.kubectl.try(undefined, "auth", "can-i", ...argv, asOperator)).stdout.trim();
    };
    expect(await can("create", "pods", "-n", systemNamespace)).toBe("yes");
    expect(await can("delete", "pods/sallyport-probe", "-n", systemNamespace)).toBe("yes");
    expect(await can("delete", "pods/sallyport-recorder-0", "-n", systemNamespace)).toBe("no");
    expect(await can("delete", "pods/sallyport-probe", "-n", namespace)).toBe("no");
    const exec = ["--subresource=exec", "-n", namespace];
    expect(await can("create", "pods/sallyport-bypass-probe", ...exec)).toBe("yes");
    for (const way of ["attach", "portforward"])
      expect(
        await can("create", "pods/sallyport-bypass-probe", `--subresource=${way}`, "-n", namespace),
      ).toBe("yes");
    for (const kind of ["pods", "services"]) {
      const proxy = ["--subresource=proxy", "-n", namespace];
      expect(await can("create", `${kind}/sallyport-bypass-probe_`, ...proxy)).toBe("yes");
      expect(await can("create", `${kind}/web`, ...proxy)).toBe("no");
    }
    expect(await can("create", "pods/web", ...exec)).toBe("no");
    expect(await can("create", "pods", ...exec)).toBe("no");
    expect(await can("list", "nodes")).toBe("yes");
    expect(await can("patch", "nodes")).toBe("no");
    expect(await can("list", "servicecidrs.networking.k8s.io")).toBe("yes");
    expect(await can("get", "endpointslices.discovery.k8s.io/kubernetes", "-n", "default")).toBe("yes");
    expect(await can("list", "endpointslices.discovery.k8s.io", "-n", "default")).toBe("no");
  });
});

describe("while the webhook is down", () => {
  test("nothing is created where gateways are injected", async () => {
    const result = await create(pod("any", { labels: { app: "other" } }), "--dry-run=server");
    expect(result.stderr).toContain("pods.sallyport.dev");
  });

  test("O42 a selected pod is refused, also when somebody takes the webhook away", async () => {
    await api.kubectl("delete", "mutatingwebhookconfiguration", "sallyport");
    await refused(() => pod("bare"), "selects this pod, and it has no gateway");
    await refused(
      () => pod("late", { spec: { initContainers: [{ name: "sallyport-gateway", image: "evil" }] } }),
      "forbidden",
    );
    const other = await create(pod("other", { labels: { app: "other" } }));
    expect(other).toMatchObject({ code: 0 });
    const relabelled = await api.kubectl.try(
      undefined,
      ...["label", "pod", "other", "-n", namespace, "app=orders-db", "--overwrite"],
    );
    expect(relabelled.stderr).toContain("selects this pod");
  });

  test("who poses as a gateway is refused", async () => {
    const token = {
      name: "t",
      projected: { sources: [{ serviceAccountToken: { audience: "control.sallyport.dev", path: "t" } }] },
    };
    const elsewhere =
      (spec: object, labels = {}) =>
      () => ({
        ...pod("x", { spec }),
        metadata: { name: "x", namespace: "elsewhere", labels },
      });
    const gateway = { name: "sallyport-gateway", image: testImage, restartPolicy: "Always" };
    const app = { name: "app", image: "app" };
    const labels = { "sallyport.dev/gateway": "orders" };
    await refused(
      elsewhere({
        volumes: [token],
        containers: [{ ...app, volumeMounts: [{ name: "t", mountPath: "/t" }] }],
      }),
      "mounted in the gateway alone",
    );
    await refused(elsewhere({ containers: [app] }, labels), "come together");
    await refused(elsewhere({ containers: [{ ...app, name: "sallyport-gateway" }] }), "come together");
    await refused(
      elsewhere({ initContainers: [{ ...gateway, image: "evil" }], containers: [app] }, labels),
      "image of this release",
    );
    await refused(
      elsewhere({ initContainers: [{ ...gateway, command: ["sh"] }], containers: [app] }, labels),
      "no other command",
    );
    await refused(
      elsewhere({ shareProcessNamespace: true, initContainers: [gateway], containers: [app] }, labels),
      "shares neither",
    );
    const upstream = {
      name: "sallyport-upstream",
      projected: { sources: [{ secret: { name: "login", optional: true } }] },
    };
    const env = [{ name: "P", valueFrom: { secretKeyRef: { name: "login", key: "password" } } }];
    await refused(
      elsewhere({ volumes: [upstream], initContainers: [gateway], containers: [{ ...app, env }] }, labels),
      "no other container's environment",
    );
    const second = { name: "again", secret: { secretName: "login" } };
    const mounting = { ...app, volumeMounts: [{ name: "again", mountPath: "/s" }] };
    await refused(
      elsewhere({ volumes: [upstream, second], initContainers: [gateway], containers: [mounting] }, labels),
      "mounted in the gateway alone",
    );
    const good = elsewhere({ volumes: [upstream], initContainers: [gateway], containers: [app] }, labels);
    expect(await create(good(), "--dry-run=server")).toMatchObject({ code: 0 });
  });

  test("nobody is handed a token of the gateways' audience", async () => {
    const result = await api.kubectl.try(
      undefined,
      ...["create", "token", "default", "-n", namespace, "--audience=control.sallyport.dev"],
    );
    expect(result.stderr).toContain("not handed out");
  });

  test("what the operator writes down is written by nobody else", async () => {
    const session = {
      apiVersion: "sallyport.dev/v1alpha1",
      kind: "Session",
      metadata: { name: "forged", namespace },
      spec: {
        sessionId: "1",
        resource: "orders",
        protocol: "postgres",
        subject: { user: "a", kind: "Human" },
        startedAt: "2026-01-01T00:00:00Z",
      },
    };
    await refused(() => session, "only the operator writes this");
    const revision = await api.kubectl.try(
      undefined,
      ...["delete", "controllerrevision", "analysts-policy-1", "-n", namespace],
    );
    expect(revision.stderr).toContain("only the operator writes this");
    const trust = await api.kubectl.try(
      undefined,
      ...[
        "patch",
        "cm",
        "orders-gateway-ca",
        "-n",
        namespace,
        "--type=merge",
        "-p",
        '{"data":{"ca.crt":"evil"}}',
      ],
    );
    expect(trust.stderr).toContain("only the operator writes this");
  });

  test("a namespace keeps its protection", async () => {
    const label = ["label", "namespace", namespace, "sallyport.dev/protection-"];
    expect((await api.kubectl.try(undefined, ...label, "--dry-run=server")).stderr).toContain("break-glass");
    const rescuer = await api.user("rescuer", ["sallyport:break-glass", "system:masters"]);
    expect(await rescuer.try(undefined, ...label, "--dry-run=server")).toMatchObject({ code: 0 });
  });
});

test("O58 people get what their roles say: edit writes resources, and no policies", async () => {
  await api.kubectl("create", "rolebinding", "dev", "-n", namespace, "--clusterrole=edit", "--user=dev");
  const can = async (...argv: readonly string[]) =>
    (await api.kubectl.try(undefined, "auth", "can-i", ...argv, "-n", namespace, "--as=dev")).stdout.trim();
  await waitFor(
    "aggregation",
    async () => (await can("create", "protectedresources")) === "yes" || undefined,
  );
  expect(await can("get", "accesspolicies")).toBe("yes");
  for (const verb of ["create", "update", "patch", "delete", "approve"]) {
    expect([verb, await can(verb, "accesspolicies")]).toEqual([verb, "no"]);
  }
  expect(await can("delete", "sessions")).toBe("no");
  expect(await can("get", "sessions", "--subresource=recording")).toBe("no");
});

test("O68 a namespace with everything in it goes, while an operator runs and while none does, and so does the chart; the kinds stay", async () => {
  await api.kubectl("delete", "namespace", namespace, "--timeout=60s");
  const labels = { "sallyport.dev/protection": "enabled" };
  await api.kubectl.apply([
    { apiVersion: "v1", kind: "Namespace", metadata: { name: "left" } },
    { ...sidecarResource(), metadata: { name: "orders", namespace: "left" } },
    { apiVersion: "v1", kind: "Namespace", metadata: { name: "unattended", labels } },
    { ...sidecarResource(), metadata: { name: "orders", namespace: "unattended" } },
  ]);
  const told = [
    "get",
    "protectedresource",
    "orders",
    "-n",
    "unattended",
    "-o",
    "jsonpath={.status.conditions}",
  ];
  await waitFor("its status", async () => (await api.kubectl(...told)) !== "" || undefined);
  // Its pods go with the chart; one that outlived its rights by 15 seconds would end with its lease lost.
  await running.stop();
  await api.kubectl("delete", "namespace", "unattended", "--timeout=60s");
  await helm("uninstall", "sallyport", "--wait", "--timeout", "60s");
  const crds = await api.kubectl("get", "crd", "-o", "name");
  expect(crds).toContain("protectedresources.sallyport.dev");
  expect(
    (
      await create({
        ...pod("free"),
        metadata: { name: "free", namespace: "left", labels: { app: "orders-db" } },
      })
    ).code,
  ).toBe(0);
  await api.kubectl("delete", "protectedresource", "orders", "-n", "left", "--timeout=30s");
  // What keeps the kinds while the chart is there is forgotten by the API server some moments after it went.
  await waitFor("the kinds to go", async () => {
    const { code, stderr } = await api.kubectl.try(undefined, "delete", "crd", "--all", "--timeout=60s");
    if (code !== 0 && !stderr.includes("sallyport-approvals-kept")) throw new Error(stderr);
    return code === 0 || undefined;
  });
}, 180_000);

test("O62 O68 the kustomize base installs without Helm, again without a difference, and goes", async () => {
  const base = join(chart, "../kustomize");
  const flags = ["--server-side", "--field-manager=flux", "-k", base];
  await api.kubectl("apply", ...flags);
  await api.kubectl("wait", "--for=condition=Established", "crd", "--all");
  for (const object of ["deployment/sallyport-operator", "statefulset/sallyport-recorder"])
    await api.kubectl("get", object, "-n", systemNamespace);
  expect(await api.kubectl.try(undefined, "diff", ...flags)).toMatchObject({ code: 0, stdout: "" });
  await waitFor(
    "all of it to go",
    async () => {
      const argv = ["delete", "-k", base, "--ignore-not-found", "--timeout=60s"];
      const { code, stderr } = await api.kubectl.try(undefined, ...argv);
      if (code !== 0 && !stderr.includes("sallyport-approvals-kept")) throw new Error(stderr);
      return code === 0 || undefined;
    },
    { ms: 120_000 },
  );
}, 240_000);

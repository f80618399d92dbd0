/** What the chart installs with its default values, read from the base for kustomize, which is the same. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { parseAllDocuments } from "yaml";

interface Container {
  readonly name: string;
  readonly env: readonly { readonly name: string; readonly value?: string }[];
  readonly resources: {
    readonly requests: Readonly<Record<string, string>>;
    readonly limits: { readonly memory: string };
  };
  readonly securityContext: object;
  readonly startupProbe: object;
  readonly livenessProbe: object;
  readonly readinessProbe: object;
  readonly volumeMounts: readonly { readonly name: string; readonly readOnly?: boolean }[];
}
interface PodSpec {
  readonly containers: readonly Container[];
  readonly volumes: readonly { readonly name: string; readonly emptyDir?: object }[];
  readonly [field: string]: unknown;
}
interface Rule {
  readonly apiGroups?: readonly string[];
  readonly resources?: readonly string[];
  readonly resourceNames?: readonly string[];
  readonly verbs: readonly string[];
  readonly nonResourceURLs?: readonly string[];
}
interface Rendered {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly automountServiceAccountToken?: boolean;
  readonly rules: readonly Rule[];
  readonly webhooks: readonly { readonly name: string; readonly rules: readonly object[] }[];
  readonly spec: {
    readonly replicas: number;
    readonly selector: { readonly matchLabels: object };
    readonly podSelector: object;
    readonly policyTypes: readonly string[];
    readonly ingress: readonly { readonly ports?: readonly object[] }[];
    readonly maxUnavailable: number;
    readonly strategy?: object;
    readonly volumeClaimTemplates?: readonly { readonly metadata: { readonly name: string } }[];
    readonly template: { readonly metadata: { readonly labels: object }; readonly spec: PodSpec };
  };
}

const base = await readFile(join(import.meta.dirname, "../../charts/kustomize/sallyport.yaml"), "utf8");
const rendered = parseAllDocuments(base).map((document) => document.toJS() as Rendered);
const all = (kind: string) => rendered.filter((one) => one.kind === kind);
const named = (kind: string, name: string) => {
  const found = all(kind).find(({ metadata }) => metadata.name === name);
  if (found === undefined) throw new Error(`there is no ${kind} ${name}`);
  return found;
};

describe.each([
  ["operator", named("Deployment", "sallyport-operator"), 2],
  ["recorder", named("StatefulSet", "sallyport-recorder"), 1],
] as const)("the %s", (name, { spec }, replicas) => {
  const pod = spec.template.spec;
  const [container] = pod.containers as readonly [Container];

  test("O35 has its replicas on several nodes, and a voluntary eviction takes one at a time", () => {
    expect(spec.replicas).toBe(replicas);
    expect(pod.topologySpreadConstraints).toEqual([
      expect.objectContaining({
        topologyKey: "kubernetes.io/hostname",
        maxSkew: 1,
        labelSelector: { matchLabels: spec.selector.matchLabels },
      }),
    ]);
    const budget = named("PodDisruptionBudget", `sallyport-${name}`).spec;
    expect(budget).toEqual({ maxUnavailable: 1, selector: spec.selector });
    expect(spec.template.metadata.labels).toMatchObject(spec.selector.matchLabels);
  });

  test("O34 is started, alive and ready by probes of its own, with time before it is killed", () => {
    const { startupProbe, livenessProbe, readinessProbe } = container;
    expect(startupProbe).toMatchObject({ failureThreshold: expect.any(Number) });
    expect(livenessProbe).toMatchObject({ failureThreshold: 6, periodSeconds: 10 });
    expect(readinessProbe).toMatchObject({ periodSeconds: expect.any(Number) });
    expect(pod.terminationGracePeriodSeconds).toBe(30);
  });

  test("O36 asks for what it needs, and its heap stays below its memory", () => {
    const { requests, limits } = container.resources;
    expect(requests).toEqual({ cpu: expect.any(String), memory: expect.any(String) });
    const options = container.env.find((one) => one.name === "NODE_OPTIONS")?.value ?? "";
    const heap = Number(/^--max-old-space-size=(\d+)$/.exec(options)?.[1]);
    const limit = Number(/^(\d+)Mi$/.exec(limits.memory)?.[1]);
    expect(heap / limit).toBeGreaterThan(0.6);
    expect(heap / limit).toBeLessThanOrEqual(0.8);
  });

  test("O60 obeys Pod Security restricted, and writes nowhere but into its volumes", () => {
    expect(pod.containers).toHaveLength(1);
    expect(pod.securityContext).toMatchObject({
      runAsNonRoot: true,
      seccompProfile: { type: "RuntimeDefault" },
    });
    expect(container.securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ["ALL"] },
    });
    for (const field of ["hostNetwork", "hostPID", "hostIPC"]) expect(pod[field]).toBeUndefined();
    for (const { name: volume, emptyDir } of pod.volumes) {
      if (emptyDir !== undefined) expect(emptyDir, volume).toEqual({ sizeLimit: expect.any(String) });
      else expect(container.volumeMounts.find((one) => one.name === volume)?.readOnly, volume).toBe(true);
    }
  });

  test("O60 nobody else gets its account's token, and it is reached by its own ports alone", () => {
    const account = named("ServiceAccount", `sallyport-${name}`);
    expect(account.automountServiceAccountToken).toBe(false);
    expect(pod).toMatchObject({ automountServiceAccountToken: true, enableServiceLinks: false });
    const policy = named("NetworkPolicy", `sallyport-${name}`).spec;
    expect(policy.podSelector).toEqual(spec.selector);
    expect(policy.policyTypes).toContain("Ingress");
    expect(policy.ingress.length).toBeGreaterThan(0);
    for (const { ports } of policy.ingress) expect(ports?.length).toBeGreaterThan(0);
  });
});

test("O34 the operator's readiness is another question than its life", () => {
  const [container] = named("Deployment", "sallyport-operator").spec.template.spec.containers;
  expect(container).toMatchObject({
    startupProbe: { httpGet: { path: "/healthz" } },
    livenessProbe: { httpGet: { path: "/healthz" } },
    readinessProbe: { httpGet: { path: "/readyz" } },
  });
});

test("O57 O66 no right is for everything, and the operator's are for no kind's definition and nobody's name", () => {
  const roles = [...all("ClusterRole"), ...all("Role")];
  expect(roles.length).toBeGreaterThan(5);
  for (const { metadata, rules } of roles) {
    for (const { apiGroups = [], resources = [], verbs, nonResourceURLs = [] } of rules)
      expect([...apiGroups, ...resources, ...verbs, ...nonResourceURLs], metadata.name).not.toContain("*");
  }
  for (const { rules } of roles.filter(({ metadata }) => metadata.name === "sallyport-operator")) {
    for (const { apiGroups = [], resources = [], resourceNames, verbs } of rules) {
      expect(apiGroups).not.toContain("apiextensions.k8s.io");
      for (const verb of ["impersonate", "bind", "escalate"]) expect(verbs).not.toContain(verb);
      // Made by whoever needs one; read by name alone.
      if (resources.includes("secrets") && resourceNames === undefined) expect(verbs).toEqual(["create"]);
    }
  }
});

test("O10 what is written into Git stays as it is there: pods alone are changed on their way", () => {
  const changing = all("MutatingWebhookConfiguration").flatMap(({ webhooks }) => webhooks);
  expect(changing.map(({ rules }) => rules)).toEqual([
    [expect.objectContaining({ resources: ["pods"], operations: ["CREATE"] })],
  ]);
  expect(all("MutatingAdmissionPolicy")).toEqual([]);
});

test("O47 recordings lie in the system's namespace alone, and nobody is given a right to claims and volumes", () => {
  const claimed = rendered.filter(({ spec }) => spec?.volumeClaimTemplates !== undefined);
  expect(claimed).toEqual([named("StatefulSet", "sallyport-recorder")]);
  expect(claimed[0]?.metadata.namespace).toBe("sallyport-system");
  expect([...all("PersistentVolumeClaim"), ...all("PersistentVolume")]).toEqual([]);
  const resources = [...all("Role"), ...all("ClusterRole")].flatMap(({ rules }) =>
    rules.flatMap((rule) => rule.resources ?? []),
  );
  expect(resources.length).toBeGreaterThan(0);
  expect(resources.filter((one) => /^persistentvolume|^\*/.test(one))).toEqual([]);
});

import type { IdentityProvider, ProtectedResourceSpec } from "@sallyport/crds";
import { describe, expect, test } from "vitest";
import { stringify } from "yaml";
import {
  childName,
  comparePod,
  hashOf,
  injectGateway,
  labelValue,
  type PlacementInput,
  type PodDocument,
  placementFault,
  placeResource,
  renderGateway,
  renderImpersonation,
} from "./index.ts";
import { testResource, testSettings } from "./testing.ts";

const server = { selector: { app: "orders-db" }, targetPort: 5432 };
const okta = {
  metadata: { name: "okta" },
  spec: { type: "oidc", prefix: "okta:", oidc: { issuer: "https://example.okta.com" } },
} as unknown as IdentityProvider;

const sidecarSpec: Partial<ProtectedResourceSpec> = {
  placement: { mode: "Sidecar", podSelector: { matchLabels: { app: "orders-db" } } },
};

const ownCluster: Partial<ProtectedResourceSpec> = {
  protocol: "kubernetes",
  endpoint: { host: "kubernetes.default.svc", port: 443 },
  credentials: [{ name: "gateway", secretRef: { name: "own" } }],
  tls: { upstream: { mode: "verify-full", caRef: { name: "own", key: "ca.crt" } } },
  options: { ownCluster: true },
};
const sshSpec: Partial<ProtectedResourceSpec> = {
  protocol: "ssh",
  endpoint: { host: "web.example.com", port: 22 },
  credentials: [{ name: "app", secretRef: { name: "web-ssh" } }],
  options: { hostKeys: ["ssh-ed25519 AAAA"], hostKeyRef: { name: "web-host", key: "id" } },
};

function inputOf(spec: Partial<ProtectedResourceSpec> = {}): PlacementInput {
  return {
    resource: testResource(spec),
    server,
    providers: [okta],
    settings: testSettings,
    controlCa: "CA\n",
  };
}

function postgresPod(extra: Partial<PodDocument["spec"]> = {}): PodDocument {
  return {
    metadata: { generateName: "orders-db-", namespace: "shop", labels: { app: "orders-db" } },
    spec: {
      initContainers: [{ name: "chown", image: "busybox" }],
      containers: [{ name: "postgres", image: "postgres:18" }],
      volumes: [{ name: "data", emptyDir: {} }],
      ...extra,
    },
  };
}

describe("what is rendered", () => {
  const cases: readonly (readonly [string, Partial<ProtectedResourceSpec>])[] = [
    ["shared", {}],
    [
      "shared-everything",
      {
        endpoint: { host: "10.1.2.3", port: 6432 },
        placement: {
          mode: "Shared",
          autoscaling: { minReplicas: 2, maxReplicas: 10, targetCPUUtilizationPercentage: 70 },
          resources: { requests: { cpu: "1" } },
          podTemplate: {
            labels: { team: "data", "sallyport.dev/gateway": "another" },
            annotations: { "sallyport.dev/rendering": "forged", note: "kept" },
            nodeSelector: { pool: "gateways" },
            priorityClassName: "high",
            tolerations: [{ key: "gateways", operator: "Exists" }],
          },
        },
        listen: { port: 15432, serviceName: "reports" },
        tls: {
          certificateRef: { name: "own" },
          upstream: { mode: "verify-ca", caRef: { name: "ca", key: "root" } },
        },
      },
    ],
    [
      "sidecar",
      {
        ...sidecarSpec,
        bypassProtection: {
          networkPolicy: "Enforce",
          exec: "Enforce",
          allowFrom: [
            { podSelector: { matchLabels: { app: "backup" } } },
            { ipBlock: { cidr: "10.20.0.0/16" } },
          ],
        },
      },
    ],
    ["kubernetes-own-cluster", ownCluster],
    ["ssh", sshSpec],
  ];
  test.each(cases)("%s is what was reviewed", async (name, spec) => {
    const input = inputOf(spec);
    const placed = placeResource(
      spec.endpoint === undefined ? input : ({ ...input, server: undefined } as never),
    );
    const text = stringify(placed, { lineWidth: 110, aliasDuplicateObjects: false });
    await expect(text).toMatchFileSnapshot(`testdata/${name}.yaml`);
  });

  test("rendering twice gives the same, whatever order the keys came in", () => {
    expect(placeResource(inputOf())).toEqual(placeResource(inputOf()));
    expect(hashOf({ a: 1, b: { c: [1], d: 2 } })).toBe(hashOf({ b: { d: 2, c: [1] }, a: 1 }));
  });

  test("a change that the gateway must be restarted for changes its hash, and no other does", () => {
    const now = placeResource(inputOf()).rendering;
    const settings = { ...testSettings, image: "registry.example.com/sallyport@sha256:22" };
    expect(placeResource({ ...inputOf(), settings }).rendering).not.toBe(now);
    expect(placeResource(inputOf({ listen: { port: 6000 } })).rendering).not.toBe(now);
    expect(placeResource(inputOf({ enforcement: "Audit" })).rendering).toBe(now);
  });

  test("O48 every container meets Pod Security restricted and mounts no token of the API server", () => {
    const { container, volumes } = renderGateway(testResource(), testSettings, server);
    expect(container.securityContext).toMatchObject({
      allowPrivilegeEscalation: false,
      capabilities: { drop: ["ALL"] },
      readOnlyRootFilesystem: true,
      runAsNonRoot: true,
      seccompProfile: { type: "RuntimeDefault" },
    });
    const tokens = JSON.stringify(volumes).match(/"audience":"[^"]*"/g);
    expect(tokens).toEqual(['"audience":"control.sallyport.dev"']);
  });

  test("without network protection no policy selects the server's pods", () => {
    const { objects } = placeResource(inputOf({ bypassProtection: { networkPolicy: "Off", exec: "Off" } }));
    const selected = objects
      .filter(({ kind }) => kind === "NetworkPolicy")
      .map(({ spec }) => JSON.stringify(spec));
    expect(selected).toHaveLength(1);
    expect(selected[0]).toContain('"podSelector":{"matchLabels":{"sallyport.dev/gateway"');
  });

  test("the gateways of a database or a cluster reach each other on one port, and nobody else reaches them there", () => {
    const rulesFor = (spec: Partial<ProtectedResourceSpec>) =>
      placeResource(inputOf(spec))
        .objects.filter(({ kind }) => kind === "NetworkPolicy")
        .flatMap(({ spec: policy }) => {
          const { ingress = [], egress = [] } = policy as { ingress?: object[]; egress?: object[] };
          return [...ingress, ...egress].filter((rule) => JSON.stringify(rule).includes('"port":9465'));
        });
    const ports = [{ protocol: "TCP", port: 9465 }];
    const gateways = [{ podSelector: { matchLabels: { "sallyport.dev/gateway": "orders" } } }];
    expect(rulesFor({})).toEqual([
      { from: gateways, ports },
      { to: gateways, ports },
    ]);
    expect(rulesFor(ownCluster)).toEqual(rulesFor({}));
    expect(rulesFor(sidecarSpec)).toEqual([{ from: gateways, ports }]);
    expect(rulesFor(sshSpec)).toEqual([]);
  });
});

describe("names", () => {
  const long = "a".repeat(80);
  test.each([
    ["orders", "orders-gateway"],
    ["a.b", expect.stringMatching(/^a-b-[0-9a-f]{8}-gateway$/)],
    ["1st", expect.stringMatching(/^r-1st-[0-9a-f]{8}-gateway$/)],
    [long, expect.stringMatching(/^a{46}-[0-9a-f]{8}-gateway$/)],
  ])("%s gives a DNS label", (owner, wanted) => {
    const name = childName(owner, "gateway");
    expect(name).toEqual(wanted);
    expect(name).toMatch(/^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$/);
  });
  test("O23 names that are cut or altered stay apart", () => {
    expect(childName(`${long}x`, "gateway")).not.toBe(childName(`${long}y`, "gateway"));
    expect(childName("a.b", "gateway")).not.toBe(childName("a-b", "gateway"));
    expect(labelValue(`${long}x`)).not.toBe(labelValue(`${long}y`));
    expect(labelValue(long).length).toBeLessThanOrEqual(63);
  });
});

describe("injection", () => {
  const resource = testResource(sidecarSpec);

  test("O44 puts the gateway first and leaves the pod's own containers as they are", () => {
    const pod = patched(postgresPod());
    expect(pod.spec.initContainers?.map(({ name }) => name)).toEqual(["sallyport-gateway", "chown"]);
    expect(pod.spec.initContainers?.[0]).toMatchObject({ restartPolicy: "Always" });
    expect(pod.spec.containers).toEqual(postgresPod().spec.containers);
    expect(pod.metadata.labels).toEqual({ app: "orders-db", "sallyport.dev/gateway": "orders" });
    const mounting = [...(pod.spec.initContainers ?? []), ...pod.spec.containers].filter((container) =>
      JSON.stringify(container).includes("sallyport-identity"),
    );
    expect(mounting.map(({ name }) => name)).toEqual(["sallyport-gateway"]);
  });

  test("works on a pod that has nothing but one container", () => {
    const bare: PodDocument = { metadata: {}, spec: { containers: [{ name: "postgres", image: "p" }] } };
    expect(patched(bare).spec.initContainers).toHaveLength(1);
  });

  test("O43 done twice changes nothing, and repairs what another injector moved", () => {
    const once = patched(postgresPod());
    expect(injectGateway(once, resource, testSettings, server)).toEqual({ kind: "unchanged" });
    const moved = { ...once, spec: { ...once.spec, initContainers: once.spec.initContainers!.toReversed() } };
    expect(patched(moved).spec.initContainers?.map(({ name }) => name)).toEqual([
      "sallyport-gateway",
      "chown",
    ]);
  });

  test.each([
    ["the host's network", { hostNetwork: true }],
    ["shared processes", { shareProcessNamespace: true }],
    ["a container that took the name", { containers: [{ name: "sallyport-gateway", image: "evil" }] }],
  ])("refuses a pod with %s", (_name, spec) => {
    expect(injectGateway(postgresPod(spec), resource, testSettings, server).kind).toBe("refused");
  });

  test("replaces what somebody else wrote under the gateway's name", () => {
    const forged = postgresPod({
      initContainers: [{ name: "sallyport-gateway", image: "evil", restartPolicy: "Always" }],
      volumes: [{ name: "sallyport-upstream", emptyDir: {} }],
    });
    const pod = patched(forged);
    expect(pod.spec.initContainers?.[0]?.image).toBe(testSettings.image);
    expect(pod.spec.volumes?.[0]).toHaveProperty("projected");
  });

  function patched(pod: PodDocument): PodDocument {
    const injection = injectGateway(pod, resource, testSettings, server);
    if (injection.kind !== "patch") throw new Error(injection.kind);
    return injection.patch.reduce<PodDocument>(
      (document, operation) => applyOperation(document, operation),
      structuredClone(pod),
    );
  }
});

describe("a pod that asks for the control stream", () => {
  const resource = testResource(sidecarSpec);
  const injected = (change: (spec: Record<string, unknown>) => void = () => undefined): PodDocument => {
    const injection = injectGateway(postgresPod(), resource, testSettings, server);
    if (injection.kind !== "patch") throw new Error(injection.kind);
    const pod = injection.patch.reduce<PodDocument>(applyOperation, structuredClone(postgresPod()));
    change(pod.spec as unknown as Record<string, unknown>);
    return pod;
  };
  const gateway = (spec: Record<string, unknown>) =>
    (spec.initContainers as Record<string, unknown>[])[0] as Record<string, unknown>;
  const application = (spec: Record<string, unknown>) =>
    (spec.containers as Record<string, unknown>[])[0] as Record<string, unknown>;
  const compare = (pod: PodDocument) => comparePod(pod, resource, testSettings, server).kind;

  test("is current as it was injected, and drifted with an accepted older image", () => {
    expect(compare(injected())).toBe("current");
    expect(
      compare(
        injected((spec) => {
          gateway(spec).image = testSettings.acceptedImages[0];
        }),
      ),
    ).toBe("drifted");
  });

  test("is drifted, and no stranger, with fewer mounts and what the API server and other injectors add", () => {
    const pod = injected((spec) => {
      const mounts = gateway(spec).volumeMounts as { name: string }[];
      gateway(spec).volumeMounts = [
        ...mounts.filter(({ name }) => name !== "sallyport-key"),
        { name: "kube-api-access-x", mountPath: "/var/run/secrets/kubernetes.io/serviceaccount" },
        { name: "sallyport-more", mountPath: "/var/run/secrets/sallyport/more" },
      ];
    });
    expect(compare(pod)).toBe("drifted");
  });

  const attacks: readonly (readonly [string, (spec: Record<string, unknown>) => void])[] = [
    [
      "an image of its own",
      (spec) => {
        gateway(spec).image = "evil";
      },
    ],
    [
      "a command of its own",
      (spec) => {
        gateway(spec).command = ["sh"];
      },
    ],
    [
      "other arguments",
      (spec) => {
        gateway(spec).args = ["version"];
      },
    ],
    [
      "NODE_OPTIONS",
      (spec) => {
        (gateway(spec).env as unknown[]).push({ name: "NODE_OPTIONS", value: "-r x" });
      },
    ],
    [
      "a hook",
      (spec) => {
        gateway(spec).lifecycle = { postStart: { exec: { command: ["sh"] } } };
      },
    ],
    [
      "a probe that runs a program",
      (spec) => {
        gateway(spec).livenessProbe = { exec: { command: ["sh"] } };
      },
    ],
    [
      "something over its program",
      (spec) => {
        (spec.volumes as unknown[]).push({ name: "mine", configMap: { name: "mine" } });
        (gateway(spec).volumeMounts as unknown[]).push({ name: "mine", mountPath: "/opt/sallyport" });
      },
    ],
    [
      "its own volume over its program",
      (spec) => {
        (gateway(spec).volumeMounts as unknown[]).push({
          name: "sallyport-tmp",
          mountPath: "/opt/sallyport",
        });
      },
    ],
    [
      "state that other pods read",
      (spec) => {
        spec.volumes = (spec.volumes as { name: string }[]).map((volume) =>
          volume.name === "sallyport-state"
            ? { name: volume.name, persistentVolumeClaim: { claimName: "mine" } }
            : volume,
        );
      },
    ],
    [
      "more rights",
      (spec) => {
        gateway(spec).securityContext = { privileged: true };
      },
    ],
    [
      "a capability",
      (spec) => {
        const context = gateway(spec).securityContext as Record<string, unknown>;
        gateway(spec).securityContext = { ...context, capabilities: { drop: ["ALL"], add: ["SYS_PTRACE"] } };
      },
    ],
    [
      "the host's processes",
      (spec) => {
        spec.hostPID = true;
      },
    ],
    [
      "shared processes",
      (spec) => {
        spec.shareProcessNamespace = true;
      },
    ],
    [
      "a debugging container",
      (spec) => {
        spec.ephemeralContainers = [{ name: "debug", image: "x" }];
      },
    ],
    [
      "the token in another container",
      (spec) => {
        application(spec).volumeMounts = [{ name: "sallyport-identity" }];
      },
    ],
    [
      "its own volume with the audience",
      (spec) => {
        (spec.volumes as unknown[]).push({
          name: "mine",
          projected: { sources: [{ serviceAccountToken: { audience: "control.sallyport.dev", path: "t" } }] },
        });
        application(spec).volumeMounts = [{ name: "mine" }];
      },
    ],
    [
      "the credential in the application's environment",
      (spec) => {
        application(spec).env = [
          { name: "P", valueFrom: { secretKeyRef: { name: "orders-db-login", key: "p" } } },
        ];
      },
    ],
    [
      "the credential in envFrom",
      (spec) => {
        application(spec).envFrom = [{ secretRef: { name: "orders-db-login" } }];
      },
    ],
    [
      "something before the gateway",
      (spec) => {
        (spec.initContainers as unknown[]).unshift({ name: "first", image: "x" });
      },
    ],
  ];
  test.each(attacks)("is refused with %s", (_name, attack) => {
    expect(compare(injected(attack))).toBe("foreign");
  });

  test("is refused for a resource that it was not injected for", () => {
    const other = testResource(sidecarSpec, { name: "customers" });
    expect(comparePod(injected(), other, testSettings, server).kind).toBe("foreign");
  });
});

type Json = Record<string, unknown> | unknown[];

function applyOperation(
  document: PodDocument,
  { op, path, value }: { op: string; path: string; value?: unknown },
) {
  const keys = path
    .slice(1)
    .split("/")
    .map((key) => key.replaceAll("~1", "/").replaceAll("~0", "~"));
  const last = keys.pop() ?? "";
  const parent = keys.reduce<Json>(
    (at, key) => (at as Record<string, Json>)[key] as Json,
    document as unknown as Json,
  );
  if (Array.isArray(parent)) {
    const at = last === "-" ? parent.length : Number(last);
    parent.splice(at, op === "add" ? 0 : 1, ...(op === "remove" ? [] : [value]));
  } else {
    parent[last] = value;
  }
  return document;
}

describe("a gateway before an API server", () => {
  const inAccess = (spec: Partial<ProtectedResourceSpec>) => testResource(spec, { namespace: "access" });
  const faultOf = (spec: Partial<ProtectedResourceSpec>, namespace = "access") =>
    placementFault(testResource(spec, { namespace }), testSettings)?.reason;

  test("is refused outside the namespaces that the chart lists, whatever it names", () => {
    expect(faultOf(ownCluster)).toBeUndefined();
    expect(faultOf(ownCluster, "tenant")).toBe("NamespaceNotListed");
    expect(faultOf({ ...ownCluster, options: {} }, "tenant")).toBe("NamespaceNotListed");
    expect(faultOf({}, "tenant")).toBeUndefined();
  });

  test("sends its account's token to nowhere but the cluster's own API server", () => {
    const upstream = { mode: "verify-full", caRef: { name: "own", key: "ca.crt" } } as const;
    const other = (host: string, port: number) => ({ ...ownCluster, endpoint: { host, port } });
    expect(faultOf(other("attacker.example.com", 443))).toBe("EndpointMismatch");
    expect(faultOf(other("kubernetes.default.svc.attacker.example.com", 443))).toBe("EndpointMismatch");
    expect(faultOf(other("kubernetes.default.svc.cluster.local", 443))).toBeUndefined();
    expect(faultOf(other("kubernetes.default.svc", 8443))).toBe("EndpointMismatch");
    expect(faultOf({ ...ownCluster, endpoint: { serviceRef: { name: "api", port: 443 } } })).toBe(
      "EndpointMismatch",
    );
    expect(faultOf({ ...ownCluster, tls: { upstream: { ...upstream, mode: "require" } } })).toBe(
      "UpstreamNotVerified",
    );
    expect(faultOf({ ...ownCluster, tls: { upstream: { mode: "verify-full" } } })).toBe("CaMissing");
    expect(faultOf({ ...ownCluster, placement: { mode: "Sidecar" } })).toBe("PlacementUnsupported");
  });

  test("reaches the API server at the port behind its Service, which policies see", () => {
    const policy = (apiServerPort?: number) => {
      const { server: _, ...input } = inputOf(ownCluster);
      const { objects } = placeResource({ ...input, ...(apiServerPort && { apiServerPort }) });
      return JSON.stringify(objects.find(({ kind }) => kind === "NetworkPolicy"));
    };
    expect(policy(46_607)).toContain('"port":46607');
    expect(policy()).toContain('"port":6443');
  });

  test("fetches the cluster's own keys at that port, too", () => {
    const issuer = "https://kubernetes.default.svc.cluster.local";
    const robots = {
      metadata: { name: "robots" },
      spec: { type: "kubernetes", prefix: "k8s:", kubernetes: { issuer } },
    } as unknown as IdentityProvider;
    const input = { ...inputOf({ identity: { providers: ["robots"] } }), providers: [robots] };
    const { objects } = placeResource({ ...input, apiServerPort: 46_607 });
    const policy = objects.find(({ kind }) => kind === "NetworkPolicy");
    const { egress } = policy!.spec as { readonly egress: readonly object[] };
    expect(egress).toContainEqual({
      ports: [
        { protocol: "TCP", port: 443 },
        { protocol: "TCP", port: 46_607 },
      ],
    });
  });

  test("reads no Secret for its own cluster, and of another's only the keys that it knows", () => {
    const sources = (spec: Partial<ProtectedResourceSpec>) =>
      JSON.stringify(renderGateway(inAccess(spec), testSettings, undefined).volumes.slice(0, 2));
    expect(sources(ownCluster)).not.toContain('"secret"');
    const other = sources({ ...ownCluster, options: {} });
    expect(other).toContain('"own/kubeconfig"');
    expect(other).not.toContain('"path":"own/password","expirationSeconds"');
  });

  test("is bound to the chart's role by a name that no other resource has", () => {
    const names = [
      renderImpersonation(inAccess(ownCluster), testSettings),
      renderImpersonation(testResource(ownCluster, { namespace: "access-orders" }), testSettings),
      renderImpersonation(testResource(ownCluster, { namespace: "access", name: "two" }), testSettings),
    ].map(({ metadata }) => metadata.name);
    expect(new Set(names).size).toBe(3);
    expect(renderImpersonation(inAccess(ownCluster), testSettings)).toMatchObject({
      roleRef: { name: "sallyport-impersonator" },
      subjects: [{ kind: "ServiceAccount", name: "orders-gateway", namespace: "access" }],
    });
  });
});

test("a container that mounts any of the gateway's volumes makes the pod a stranger", () => {
  const resource = testResource(ownCluster, { namespace: "access" });
  const { container, volumes } = renderGateway(resource, testSettings, undefined);
  const pod = (mounts: readonly string[]): PodDocument => ({
    metadata: { labels: { "sallyport.dev/gateway": "orders" } },
    spec: {
      containers: [
        container,
        { name: "other", image: "busybox", volumeMounts: mounts.map((name) => ({ name, mountPath: "/x" })) },
      ],
      volumes,
    },
  });
  expect(comparePod(pod([]), resource, testSettings, undefined).kind).toBe("current");
  for (const name of ["sallyport-upstream", "sallyport-key", "sallyport-identity"]) {
    expect(comparePod(pod([name]), resource, testSettings, undefined).kind).toBe("foreign");
  }
});

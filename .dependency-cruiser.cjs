/** The import table of the project: imports point down only. Read as: `from` may import nothing but `to`. */
const workspaces = {
  crds: [],
  control: ["crds"],
  policy: ["crds"],
  sidecar: ["crds", "control", "policy"],
  operator: ["crds", "control", "policy"],
  // The API server is spoken to in one way; nothing else of the operator is a command's business.
  cli: ["crds", "policy", "sidecar", "operator/src/kube"],
  e2e: ["crds", "control", "policy", "sidecar", "operator", "cli"],
};

/** Inside the gateway: a folder and the gateway folders it may import. */
const sidecar = {
  wire: [],
  recording: ["wire"],
  identity: ["wire"],
  approval: ["wire"],
  guard: ["wire", "recording", "identity", "approval"],
  terminal: [],
  relay: ["wire", "guard"],
  protocols: ["wire", "guard", "relay", "terminal"],
  control: ["wire", "recording"],
  recorder: ["wire", "recording"],
  server: ["wire", "guard", "relay", "protocols", "recording", "identity", "approval", "control"],
};

/** Inside the operator: what talks to the API server, what loops, and what knows our kinds. */
const operator = {
  kube: [],
  certificates: ["kube"],
  placement: ["kube"],
  reconcile: ["kube"],
  resources: ["kube", "reconcile", "placement", "certificates"],
  control: ["kube", "reconcile", "placement", "certificates", "resources"],
  webhook: ["kube", "reconcile", "placement", "certificates", "resources"],
  probe: ["kube", "placement", "resources"],
  impersonation: ["kube", "placement", "resources"],
};

const only = (name, from, allowed, all) => ({
  name,
  severity: "error",
  comment: `${name}: only ${allowed.join(", ") || "nothing of ours"} may be imported`,
  // A folder's tests may build its neighbours to test against; nothing that ships may.
  from: { path: from, pathNot: ["\\.test\\.ts$", "/testing\\.ts$"] },
  to: { path: all, pathNot: [from, ...allowed] },
});

module.exports = {
  forbidden: [
    { name: "no-cycle", severity: "error", from: {}, to: { circular: true } },
    { name: "no-orphan-import", severity: "error", from: {}, to: { couldNotResolve: true } },
    {
      name: "policy-is-pure",
      severity: "error",
      comment: "policy does no I/O, reads no clock and opens no socket",
      from: { path: "^policy/src", pathNot: "\\.test\\.ts$" },
      to: { dependencyTypes: ["core"] },
    },
    {
      name: "protocols-do-no-io",
      severity: "error",
      comment: "sockets live in wire, relay and server",
      from: { path: "^sidecar/src/protocols", pathNot: "(\\.test|/testing)\\.ts$" },
      to: {
        path: "^(node:)?(net|tls|fs|fs/promises|http|https|http2|dgram)$",
        dependencyTypesNot: ["type-only"],
      },
    },
    {
      name: "gateway-without-kubernetes-client",
      severity: "error",
      from: { path: "^(sidecar|policy|crds)/src" },
      to: { path: "@kubernetes/client-node" },
    },
    ...Object.entries(workspaces).map(([from, to]) =>
      only(
        `workspace-${from}`,
        `^${from}/`,
        to.map((name) => `^${name}/`),
        "^(crds|control|policy|sidecar|operator|cli|e2e)/",
      ),
    ),
    ...Object.entries(sidecar).map(([from, to]) =>
      only(
        `sidecar-${from}`,
        `^sidecar/src/${from}/`,
        to.map((name) => `^sidecar/src/${name}/`),
        "^sidecar/src/[^/]+/",
      ),
    ),
    ...Object.entries(operator).map(([from, to]) =>
      only(
        `operator-${from}`,
        `^operator/src/${from}/`,
        to.map((name) => `^operator/src/${name}/`),
        "^operator/src/[^/]+/",
      ),
    ),
    {
      name: "kubernetes-client-in-one-place",
      severity: "error",
      comment: "only kube knows the package, for the configuration and its credentials",
      from: { path: "^operator/src", pathNot: "^operator/src/kube/" },
      to: { path: "@kubernetes/client-node" },
    },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    enhancedResolveOptions: {
      exportsFields: ["exports"],
      conditionNames: ["import", "node", "types", "default"],
      extensions: [".ts", ".js", ".mjs", ".cjs", ".json"],
    },
  },
};

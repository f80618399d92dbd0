/** A control plane for tests: the operator's real control stream over an API server that a test makes up. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gatewayUri } from "@sallyport/control";
import { lifetimes, makeAuthority, signLeaf } from "@sallyport/operator/certificates";
import {
  BundleStore,
  ControlServer,
  type ControlServerOptions,
  GatewayAuthenticator,
  type LivePod,
} from "@sallyport/operator/control";
import { createAuthority } from "./certificates.ts";

/** What the made-up API server says of a token. */
export interface TestToken {
  readonly namespace?: string;
  readonly account?: string;
  readonly pod?: string;
  readonly podUid?: string;
  readonly audiences?: readonly string[];
  readonly expiresInMs?: number;
  /** False: the API server does not accept it. */
  readonly isAccepted?: boolean;
}

/** A running control plane. */
export interface TestControlPlane {
  readonly address: string;
  readonly port: number;
  readonly server: ControlServer;
  readonly bundles: BundleStore;
  /** PEM and file of the control plane's authorities. */
  readonly caPem: string;
  readonly caFile: string;
  /** PEM of the authority that gateways' certificates are checked with. */
  readonly gatewayCaPem: string;
  readonly folder: string;
  /** The pods that there are, by `namespace/name`. */
  readonly pods: Map<string, LivePod>;
  /** How many TokenReviews were asked for. */
  readonly reviews: () => number;
  token(claims: TestToken): string;
  /** A pod that is a gateway of the resource; answers the file of its token. */
  gatewayPod(resource: string, uid: string): Promise<string>;
  /** A server's certificate of the control plane, as files `tls.crt` and `tls.key` in a folder. */
  serverFolder(): Promise<string>;
  stop(): Promise<void>;
}

/** Starts one; `change` goes over the server's options. */
export async function startControlPlane(
  change: Partial<ControlServerOptions> = {},
): Promise<TestControlPlane> {
  const folder = await mkdtemp(join(tmpdir(), "sallyport-control-"));
  const authority = await createAuthority("control plane");
  const gateways = await makeAuthority("gateways", Date.now());
  const serving = await makeAuthority("serving", Date.now());
  const issued = await authority.issue({
    commonName: "operator",
    dnsNames: ["localhost"],
    ipAddresses: ["127.0.0.1"],
    usage: "server",
  });
  const pods = new Map<string, LivePod>();
  const tokens = new Map<string, TestToken>();
  let reviews = 0;
  const client = {
    async create(
      _type: unknown,
      object: { readonly spec: { readonly token: string; readonly audiences: string[] } },
    ) {
      reviews++;
      return { ...object, status: reviewed(tokens.get(object.spec.token), object.spec.audiences) };
    },
    find: async (_type: unknown, { namespace, name }: { namespace: string; name: string }) =>
      pods.get(`${namespace}/${name}`),
  } as unknown as ConstructorParameters<typeof GatewayAuthenticator>[0]["client"];
  const bundles = change.bundles ?? new BundleStore(10);
  const server = new ControlServer({
    host: "127.0.0.1",
    port: 0,
    certificate: () => ({ certificate: issued.certPem, key: issued.keyPem }),
    authenticator: new GatewayAuthenticator({ client, isGateway }),
    bundles,
    log: { debug: ignore, info: ignore, warn: ignore, error: ignore },
    heartbeatMs: 200,
    // A machine that stalls for a second is not a gateway that is gone.
    silenceMs: 20_000,
    currentEveryMs: 200,
    async signCertificate({ purpose, publicKey, resource, podUid }) {
      const [namespace = "", name = ""] = resource.split("/");
      const isNamed = purpose !== "serving";
      const certificate = await signLeaf(isNamed ? gateways : serving, {
        commonName: name,
        publicKey,
        now: Date.now(),
        lifeMs: lifetimes.gatewayMs,
        ...(isNamed
          ? {
              usage: purpose === "peer" ? ("peer" as const) : ("client" as const),
              uri: gatewayUri({ namespace, resource: name, podUid }),
            }
          : { usage: "server" as const, names: ["localhost", "127.0.0.1"] }),
      });
      return { certificate, authorities: isNamed ? authority.caPem : serving.certificate };
    },
    ...change,
  });
  const port = await server.start();
  const caFile = join(folder, "ca.crt");
  await writeFile(caFile, authority.caPem);
  await writeFile(join(folder, "serving-ca.crt"), serving.certificate);
  let serial = 0;
  const plane: TestControlPlane = {
    address: `127.0.0.1:${port}`,
    port,
    server,
    bundles,
    caPem: authority.caPem,
    caFile,
    gatewayCaPem: gateways.certificate,
    folder,
    pods,
    reviews: () => reviews,
    token(claims) {
      const { audiences = ["control.sallyport.dev"], expiresInMs = 3_600_000 } = claims;
      const payload = { aud: audiences, exp: (Date.now() + expiresInMs) / 1000, jti: String(serial++) };
      const token = `e30.${Buffer.from(JSON.stringify(payload)).toString("base64url")}.c2ln`;
      tokens.set(token, claims);
      return token;
    },
    async gatewayPod(resource, uid) {
      const [namespace = ""] = resource.split("/");
      const name = `gateway-${uid}`;
      pods.set(`${namespace}/${name}`, {
        metadata: { namespace, name, uid, labels: { resource } },
      } as LivePod);
      const file = join(folder, `token-${uid}`);
      await writeFile(file, plane.token({ namespace, pod: name, podUid: uid }));
      return file;
    },
    async serverFolder() {
      const tls = await mkdtemp(join(folder, "tls-"));
      await writeFile(join(tls, "tls.crt"), issued.certPem);
      await writeFile(join(tls, "tls.key"), issued.keyPem);
      return tls;
    },
    async stop() {
      server.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
  return plane;
}

/** In these tests a pod's label names the resource that it was rendered for. */
function isGateway({ metadata }: LivePod) {
  const resource = metadata.labels?.resource;
  return resource === undefined
    ? ({ kind: "foreign", message: "the pod was not rendered by the operator" } as const)
    : ({ kind: "gateway", resource } as const);
}

function reviewed(claims: TestToken | undefined, asked: readonly string[]) {
  const { audiences = ["control.sallyport.dev"], namespace = "shop", account = "gateway" } = claims ?? {};
  const common = audiences.filter((audience) => asked.includes(audience));
  if (claims === undefined || claims.isAccepted === false || common.length === 0)
    return { authenticated: false };
  const { pod, podUid } = claims;
  const extra = {
    ...(pod !== undefined && { "authentication.kubernetes.io/pod-name": [pod] }),
    ...(podUid !== undefined && { "authentication.kubernetes.io/pod-uid": [podUid] }),
  };
  const username = `system:serviceaccount:${namespace}:${account}`;
  return { authenticated: true, audiences: common, user: { username, extra } };
}

const ignore = () => undefined;

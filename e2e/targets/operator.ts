/** An operator in the test's own process, against an API server without a node. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { Operator, type OperatorConfiguration, Registry, readConfiguration } from "@sallyport/operator";
import {
  type KubeClient,
  kubeClient,
  kubeconfigConnection,
  kubeMetrics,
  type Log,
  silentLog,
} from "@sallyport/operator/kube";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { freePort } from "./postgres.ts";

const crds = join(import.meta.dirname, "../../crds");

/** The namespace that the operator of tests runs in. */
export const systemNamespace = "sallyport-system";

/** The digest that gateways of tests are rendered with. */
export const testImage = `registry.example.com/sallyport@sha256:${"1".repeat(64)}`;

/** An operator that runs. */
export interface TestOperator {
  readonly operator: Operator;
  readonly configuration: OperatorConfiguration;
  readonly registry: Registry;
  readonly client: KubeClient;
  /** Ends it as SIGTERM would; throws what it ended with. */
  stop(): Promise<void>;
}

/** Starts an API server that knows our kinds and has the operator's namespace. */
export async function startApiServerWithKinds(
  options: Parameters<typeof startApiServer>[0] = {},
): Promise<ApiServer> {
  const api = await startApiServer(options);
  const kinds = readdirSync(crds)
    .filter((name) => name.endsWith(".yaml"))
    .flatMap((name) => ["-f", join(crds, name)]);
  await api.kubectl("apply", "--server-side", ...kinds);
  await api.kubectl("wait", "--for=condition=Established", ...kinds);
  await api.kubectl.apply([{ apiVersion: "v1", kind: "Namespace", metadata: { name: systemNamespace } }]);
  return api;
}

/** Starts an operator with every right. */
export async function startOperator(
  api: Pick<ApiServer, "kubeconfig">,
  environment: Readonly<Record<string, string>> = {},
  log: Log = silentLog,
): Promise<TestOperator> {
  const [webhook, control, admin] = await Promise.all([freePort(), freePort(), freePort()]);
  const configuration = readConfiguration({
    SALLYPORT_NAMESPACE: systemNamespace,
    SALLYPORT_POD_NAME: "operator-0",
    SALLYPORT_GATEWAY_IMAGE: testImage,
    SALLYPORT_WEBHOOK_PORT: String(webhook),
    SALLYPORT_CONTROL_PORT: String(control),
    SALLYPORT_ADMIN: `127.0.0.1:${admin}`,
    ...environment,
  });
  const registry = new Registry();
  const metrics = kubeMetrics(registry);
  const client = kubeClient({ connection: await kubeconfigConnection({ file: api.kubeconfig }), metrics });
  const operator = new Operator({ client, configuration, registry, metrics, log });
  const over = new AbortController();
  let failure: unknown;
  const running = operator.run(over.signal).catch((error: unknown) => {
    failure = error;
  });
  return {
    ...{ operator, configuration, registry, client },
    stop: async () => {
      over.abort();
      await running;
      client.close();
      if (failure !== undefined) throw failure;
    },
  };
}

/** Whether the condition BypassProtected tells what a pod without any right finds, where network policies are enforced. */
import { beforeAll, test } from "vitest";
import { LocalIssuer } from "../targets/tokens.ts";
import { condition, install, localProvider, protectedResource } from "./installed.ts";
import { database } from "./objects.ts";
import { openScenario } from "./scenario.ts";

const scenario = openScenario("bypass-protected", { "sallyport.dev/protection": "enabled" });
const issuer = new LocalIssuer("bypass-protected", `sallyport:${scenario.namespace}/orders`);

beforeAll(async () => {
  await install(scenario.cluster);
  await scenario.cluster.kubectl.apply([localProvider("bypass-protected", issuer, "bypass-protected")]);
  await scenario.apply(
    ...database("orders", "CREATE TABLE orders (id int);"),
    protectedResource("orders", "bypass-protected", { placement: { mode: "Shared", replicas: 1 } }),
  );
  await scenario.ready("statefulset/orders", "deployment/orders-gateway");
});

test("a server that only the gateway reaches is protected", async () => {
  await condition(scenario, "protectedresource/orders", "BypassProtected", "True", "Refused", 90_000);
});

test("a server that a pod without any right reaches is not", async () => {
  await scenario.apply(
    protectedResource("orders", "bypass-protected", {
      placement: { mode: "Shared", replicas: 1 },
      bypassProtection: { networkPolicy: "Enforce", allowFrom: [{ namespaceSelector: {} }] },
    }),
  );
  const reason = "NetworkPolicyNotEnforced";
  await condition(scenario, "protectedresource/orders", "BypassProtected", "False", reason, 90_000);
});

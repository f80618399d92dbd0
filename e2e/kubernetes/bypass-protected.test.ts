/** Whether the condition BypassProtected tells what a pod without any right finds, where network policies are enforced. */
import { test } from "vitest";
import { condition } from "./installed.ts";
import { openOrders } from "./orders.ts";

const placement = { mode: "Shared", replicas: 1 };
const { scenario, resource } = openOrders("bypass-protected", { spec: { placement } });

test("a server that only the gateway reaches is protected", async () => {
  await condition(scenario, "protectedresource/orders", "BypassProtected", "True", "Refused", 90_000);
});

test("O53 a server that a pod without any right reaches is not", async () => {
  await scenario.apply(
    resource({
      placement,
      bypassProtection: { networkPolicy: "Enforce", allowFrom: [{ namespaceSelector: {} }] },
    }),
  );
  const reason = "NetworkPolicyNotEnforced";
  await condition(scenario, "protectedresource/orders", "BypassProtected", "False", reason, 90_000);
});

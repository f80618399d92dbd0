/** A scenario two of whose tests fail. */
import { beforeAll, expect, test } from "vitest";
import { protectedResource } from "../installed.ts";
import { clientPod } from "../objects.ts";
import { openScenario } from "../scenario.ts";

const scenario = openScenario("failing-at-a-test");

beforeAll(async () => {
  const begun = performance.now();
  const speaker = clientPod("speaker");
  const { containers, ...spec } = speaker.spec as { readonly containers: readonly object[] };
  const args = ["sh", "-c", "echo words of the container; exec sleep 86400"];
  await scenario.apply(
    { ...speaker, spec: { ...spec, containers: containers.map((one) => ({ ...one, args })) } },
    {
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name: "kept" },
      stringData: { password: "words-of-the-secret" },
    },
    protectedResource("protected", "nobody"),
  );
  await scenario.ready("pod/speaker");
  console.log(`set up in ${performance.now() - begun} ms`);
});

test("passes", () => undefined);
test.each(["first", "second"])("the %s to fail", () => expect("what is").toBe("what was hoped for"));

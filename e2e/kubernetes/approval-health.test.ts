/** What the documentation tells Argo CD to make of an Approval, by the machine that Argo CD asks with. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { run } from "../cluster/kubectl.ts";
import { goModule } from "./go-program.ts";

const guide = join(import.meta.dirname, "../../docs/how-to/install-kubernetes.md");
const key = "resource.customizations.health.sallyport.dev_Approval";

test("an Approval that waits for a person is suspended, and a decided one is not", async () => {
  const text = await readFile(guide, "utf8");
  const blocks = [...text.matchAll(/^```yaml\n(.*?)^```$/gms)].map(([, block = ""]) => parse(block));
  const lua: unknown = blocks.find((block) => key in block)?.[key];
  const program = await goModule(join(import.meta.dirname, "clients/gitops-health"));
  const objects = [{}, { status: {} }, ...["Pending", "Denied"].map((phase) => ({ status: { phase } }))];
  const { code, stdout, stderr } = await run(program, [], JSON.stringify({ lua, cel: {}, objects }));
  expect(code, stderr).toBe(0);
  const answers = JSON.parse(stdout) as readonly { readonly lua: { readonly status: string } }[];
  const statuses = answers.map(({ lua: { status } }) => status);
  expect(statuses).toEqual(["Progressing", "Progressing", "Suspended", "Healthy"]);
}, 180_000);

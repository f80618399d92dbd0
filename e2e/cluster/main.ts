/** `tsx e2e/cluster/main.ts up|down|status`: a cluster by hand; tests start their own. */
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { startApiServer } from "./api-server.ts";
import { startCluster } from "./cluster.ts";
import { keptKind, stopKind } from "./kind.ts";
import { keptMark, nodeFolder, stopNode } from "./node.ts";
import { livePid, processNames, stopProcesses } from "./processes.ts";

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    "api-only": { type: "boolean", default: false },
    "controller-manager": { type: "boolean", default: false },
    folder: { type: "string" },
  },
});
const folder = values.folder ?? (values["api-only"] ? "/var/tmp/sallyport-api" : nodeFolder);

switch (positionals[0]) {
  case "up": {
    const cluster = values["api-only"]
      ? await startApiServer({ folder, controllerManager: values["controller-manager"] })
      : await startCluster();
    await writeFile(join(cluster.folder, keptMark), "");
    console.log(`export KUBECONFIG=${cluster.kubeconfig}`);
    if ("bin" in cluster) console.log(`export PATH=${cluster.bin}:$PATH`);
    // What runs goes on without us.
    process.exit(0);
    break;
  }
  case "down":
    if (folder === nodeFolder) {
      await stopNode();
      await stopKind();
    } else {
      await stopProcesses(folder, processNames(folder), 0);
      await rm(folder, { recursive: true, force: true });
    }
    break;
  case "status": {
    const names = processNames(folder);
    const kind = folder === nodeFolder ? await keptKind() : undefined;
    for (const name of names) console.log(`${name}\t${livePid(folder, name) ?? "ended"}`);
    if (kind !== undefined) console.log(`kind\t${kind}`);
    else if (names.length === 0) console.log(`nothing runs in ${folder}`);
    process.exitCode = kind === "silent" || names.some((name) => livePid(folder, name) === undefined) ? 1 : 0;
    break;
  }
  default:
    console.error("usage: main.ts up|down|status [--api-only [--controller-manager]] [--folder DIR]");
    process.exitCode = 2;
}

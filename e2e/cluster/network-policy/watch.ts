import type { IncomingMessage } from "node:http";
import { request } from "node:https";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";

/** Where the API server is and who asks. */
export interface ApiCredentials {
  readonly url: string;
  readonly ca: Buffer;
  readonly cert: Buffer;
  readonly key: Buffer;
}

interface Listed {
  readonly metadata: { readonly uid: string; readonly resourceVersion: string };
}

/**
 * Keeps the objects of one path, for ever: lists, watches, and lists again whenever the watch ends. `changed` is
 * called with all of them after each change, and for the first time when the list is complete.
 */
export async function watchObjects<T>(
  api: ApiCredentials,
  path: string,
  changed: (objects: readonly T[]) => void,
): Promise<never> {
  for (;;) {
    try {
      await listAndWatch(api, path, changed);
    } catch (error) {
      console.error(`${path}: ${error instanceof Error ? error.message : error}`);
    }
    // The rules that are in force stay; the next list brings what was missed.
    await delay(300);
  }
}

async function listAndWatch<T>(
  api: ApiCredentials,
  path: string,
  changed: (objects: readonly T[]) => void,
): Promise<void> {
  const answer = await ask(api, path);
  let text = "";
  for await (const chunk of answer.setEncoding("utf8")) text += chunk;
  const list = JSON.parse(text) as { metadata: { resourceVersion: string }; items: (T & Listed)[] };
  const objects = new Map(list.items.map((item) => [item.metadata.uid, item]));
  changed([...objects.values()]);
  const query = `watch=1&timeoutSeconds=300&resourceVersion=${list.metadata.resourceVersion}`;
  for await (const line of createInterface({ input: await ask(api, `${path}?${query}`) })) {
    const event = JSON.parse(line) as { type: string; object: T & Listed };
    if (event.type === "ERROR") return;
    if (event.type === "DELETED") objects.delete(event.object.metadata.uid);
    else objects.set(event.object.metadata.uid, event.object);
    changed([...objects.values()]);
  }
}

function ask({ url, ca, cert, key }: ApiCredentials, path: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const asked = request(`${url}${path}`, { ca, cert, key, agent: false }, (answer) => {
      if (answer.statusCode === 200) return resolve(answer);
      answer.resume();
      reject(new Error(`the API server answered ${answer.statusCode}`));
    });
    asked.once("error", reject);
    asked.end();
  });
}

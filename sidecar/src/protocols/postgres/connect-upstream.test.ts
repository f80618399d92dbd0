/** Logging in at a server: who the session is there, before its client says a word. */
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { expect, test } from "vitest";
import { connectUpstream } from "./connect-upstream.ts";
import { backend, frame } from "./frames.ts";
import { server as said } from "./testing.ts";

const loggedIn = Buffer.concat([frame(backend.authentication, Buffer.alloc(4)), said.ready("I")]);

/** Logs in at a server that answers one query with a row; resolves to that query too. */
async function logIn(answer: readonly string[], role?: string) {
  const asked: string[] = [];
  const listener = createServer((link) => {
    link.once("data", () => {
      link.write(loggedIn);
      link.once("data", (query: Buffer) => {
        asked.push(query.toString("utf8", 5, query.length - 1));
        link.write(Buffer.concat([said.dataRow(...answer), said.complete("SELECT 1"), said.ready("I")]));
      });
    });
  });
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  try {
    const session = await connectUpstream({
      target: { host: "127.0.0.1", port: (listener.address() as AddressInfo).port, tls: { mode: "disable" } },
      account: { name: "main", username: "account", ...(role === undefined ? {} : { role }) },
      database: "shop",
      settings: new Map(),
      applicationName: "test",
      signal: AbortSignal.timeout(10_000),
    });
    session.socket.destroy();
    return { session, asked };
  } finally {
    listener.close();
  }
}

test("a session knows its search_path, who it runs as and who logged in", async () => {
  const { session } = await logIn(["shop, public", "boss", "account"]);
  expect(session.searchPath).toBe("shop, public");
  expect(session.roles).toEqual({ current: "boss", session: "account" });
});

test("a role of the credential is asked for after what resets it", async () => {
  const { asked, session } = await logIn(["public", "clerk", "account"], "clerk");
  expect(asked).toEqual([expect.stringMatching(/^RESET SESSION AUTHORIZATION; SELECT .*current_user/)]);
  expect(session.roles.current).toBe("clerk");
});

test("a server that does not hold the session to the role of the credential lets nobody in", async () => {
  await expect(logIn(["public", "account", "account"], "clerk")).rejects.toMatchObject({
    code: "upstreamLoginFailed",
    message: expect.stringContaining("does not hold the session to the role"),
  });
});

test.each([[[]], [["public"]], [["public", "account"]]])(
  "a server that does not say who it is: %j",
  async (answer) => {
    await expect(logIn(answer)).rejects.toMatchObject({ code: "upstreamProtocol" });
  },
);

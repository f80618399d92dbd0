import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { expect, test } from "vitest";
import { SideConnection } from "./side-connection.ts";
import { server as said } from "./testing.ts";

/** Asks the same thing three times, and another once; resolves to the letters and names of what was sent each time. */
async function sent(keepsStatements: boolean): Promise<readonly string[]> {
  const asked: string[] = [];
  const links: Socket[] = [];
  const listener = createServer((link) => {
    links.push(link);
    link.on("data", (bytes: Buffer) => {
      asked.push(bytes.toString("latin1"));
      link.write(said.ready("I"));
    });
  });
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const socket = connect((listener.address() as AddressInfo).port, "127.0.0.1");
  await once(socket, "connect");
  const connection = new SideConnection(socket);
  connection.keepsStatements = keepsStatements;
  try {
    for (const sql of ["SELECT $1", "SELECT $1", "SELECT 2", "SELECT $1"]) await connection.query(sql, ["x"]);
    await connection.query("SELECT 3");
    return asked.map((text) => {
      const name = text.slice(5, text.indexOf("\0", 5));
      // Bind: the portal, which has no name, and then the statement.
      return text[0] === "B" ? `B ${text.slice(6, text.indexOf("\0", 6))}` : `${text[0]} ${name}`;
    });
  } finally {
    connection.close();
    for (const link of links) link.destroy();
    listener.close();
  }
}

test("a query with parameters is prepared once, and others are not taken for it", async () => {
  expect(await sent(true)).toEqual(["P s0", "B s0", "P s1", "B s0", "Q SELECT 3"]);
});

test("where others may prepare as well, nothing is kept", async () => {
  expect(await sent(false)).toEqual(["P ", "P ", "P ", "P ", "Q SELECT 3"]);
});

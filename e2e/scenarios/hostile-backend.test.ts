/**
 * A database server that has turned against its users cannot bring the gateway down, disturb other sessions, or get at
 * the account that the gateway logs in with. The server here is scripted; its catalog comes from a real PostgreSQL.
 */
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";
import { frame, int32s, query, startup, WireClient } from "../targets/wire-client.ts";

const account = { username: "injected_account", password: "injected_password" };

let real: PostgresServer;
let hostile: Server;
let gateway: Gateway;
/** What the hostile server does to a user's login; undefined: lets everybody in. */
let loginAnswer: ((startupPacket: Buffer) => Buffer) | undefined;
/** What it answers catalog queries with; undefined: the truth. */
let catalogAnswer: Buffer | undefined;
const sockets = new Set<Socket>();

beforeAll(async () => {
  real = await startPostgres({
    database: "shop",
    initSql: `CREATE ROLE ${account.username} LOGIN PASSWORD '${account.password}'`,
  });
  hostile = createServer((socket) => {
    keep(socket);
    socket.once("data", (packet: Buffer) => serve(socket, packet));
  });
  await new Promise<void>((resolve) => hostile.listen(0, "127.0.0.1", resolve));
  const { port } = hostile.address() as AddressInfo;
  gateway = await startGateway({
    server: { ...real, host: "127.0.0.1", port, caPem: "", database: "shop" } as PostgresServer,
    account,
    policies: `
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: all}
spec: {resources: {names: [shop]}, subjects: [{user: "local:ann"}], profile: Admin}
`,
  });
});
afterAll(async () => {
  await gateway?.stop();
  for (const socket of sockets) socket.destroy();
  hostile?.close();
  await real?.stop();
});

function keep(socket: Socket): void {
  sockets.add(socket);
  socket.on("error", () => socket.destroy()).once("close", () => sockets.delete(socket));
}

function serve(socket: Socket, packet: Buffer): void {
  if (packet.includes("sallyport catalog\0")) {
    serveCatalog(socket, packet);
    return;
  }
  socket.write(loginAnswer?.(packet) ?? loggedIn);
  socket.on("data", (chunk: Buffer) => {
    const asked = /attack (\d+)/.exec(chunk.toString("latin1"));
    // Who the session is, and where it looks for names: asked by the gateway before its client can.
    const isAskedWho = chunk.includes("session_user");
    const refused = /sallyport_refused_\w+/.exec(chunk.toString("latin1"))?.[0];
    if (refused !== undefined)
      socket.write(Buffer.concat([frame("E", `SERROR\0VERROR\0C42703\0M${refused}\0\0`), ready]));
    else if (isAskedWho)
      socket.write(Buffer.concat([rowOf("public", account.username, account.username), ready]));
    else if (asked === null)
      socket.write(Buffer.concat([described, row("fine"), frame("C", "SELECT 1\0"), ready]));
    else socket.write(attacks[Number(asked[1])]?.[1] ?? ready);
  });
}

function serveCatalog(socket: Socket, packet: Buffer): void {
  const upstream = connect(real.port, "127.0.0.1");
  keep(upstream);
  upstream.write(packet);
  upstream.on("data", (chunk: Buffer) => socket.write(chunk));
  socket.on("data", (chunk: Buffer) => {
    if (chunk[0] === 0x51 && catalogAnswer !== undefined) socket.write(catalogAnswer);
    else upstream.write(chunk);
  });
  socket.once("close", () => upstream.destroy());
  upstream.once("close", () => socket.destroy());
}

const parameters = Object.entries({
  server_version: "18.4",
  server_encoding: "UTF8",
  client_encoding: "UTF8",
  standard_conforming_strings: "on",
  search_path: '"$user", public',
});
const ready = frame("Z", "I");
const loggedIn = Buffer.concat([
  frame("R", int32s(0)),
  ...parameters.map(([name, value]) => frame("S", `${name}\0${value}\0`)),
  ...[frame("K", int32s(1, 1)), ready],
]);
const described = frame("T", Buffer.from([0, 1]), "a\0", Buffer.alloc(18));
const rowOf = (...values: readonly string[]) =>
  frame("D", Buffer.from([0, values.length]), ...values.flatMap((value) => [int32s(value.length), value]));
const row = (value: string) => rowOf(value);
const head = (type: string, length: number) => Buffer.concat([Buffer.from(type), int32s(length)]);

/** Each is what the server answers a statement with. */
const attacks: readonly (readonly [string, Buffer])[] = [
  ["a negative length", head("D", -1)],
  ["an error without end", head("E", 0x7fffffff)],
  ["a request for the password", frame("R", int32s(3))],
  ["a request for SASL", frame("R", int32s(10), "SCRAM-SHA-256\0\0")],
  ["another cancel key", frame("K", int32s(7, 7))],
  ["rows of nobody", row("stray")],
  ["COPY that nobody asked for", frame("G", Buffer.from([0, 0, 0]))],
  ["COPY out that nobody asked for", frame("H", Buffer.from([0, 0, 0]))],
  ["two ReadyForQuery", Buffer.concat([described, frame("C", "SELECT 0\0"), ready, ready])],
  ["answers of the extended protocol", Buffer.concat([frame("1"), frame("2"), frame("n")])],
  ["a tag without end", frame("C", "SELECT 1")],
  ["a parameter that is not UTF-8", frame("S", Buffer.from("a\0\xff\xfe\0", "latin1"))],
  ["another way to read literals", frame("S", "standard_conforming_strings\0off\0")],
  ["another encoding", frame("S", "client_encoding\0SJIS\0")],
  ["nothing that is a message", Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n")],
];

const logIn = (): Promise<WireClient> => gateway.connectWire({ user: "ann" });

async function isFine(client: WireClient): Promise<boolean> {
  client.send(query("SELECT 'honest'"));
  return (await client.until("Z")).some(({ type, body }) => type === "D" && body.includes("fine"));
}

test("an attack on one session ends that session with a clear error, and no other", async () => {
  const bystander = await logIn();
  for (const [index, [name]] of attacks.entries()) {
    const victim = await logIn();
    victim.send(query(`SELECT 'attack ${index}'`));
    const seen = await victim.untilClosed();
    const fatal = seen.at(-1)?.fields;
    expect(fatal, name).toMatchObject({ S: "FATAL" });
    expect(["08P01", "0A000"], name).toContain(fatal?.C);
    expect(Buffer.concat(seen.map(({ body }) => body)).includes("injected_"), name).toBe(false);
    expect(await isFine(bystander), name).toBe(true);
  }
  bystander.close();
});

test("a server that echoes what it was sent at login shows the client nothing of it", async () => {
  loginAnswer = (packet) =>
    Buffer.concat([
      frame("N", "SNOTICE\0VNOTICE\0C00000\0M", packet, "\0\0"),
      frame("E", "SFATAL\0VFATAL\0C28P01\0M", packet.toString("latin1").replaceAll("\0", " "), "\0\0"),
    ]);
  try {
    const client = await WireClient.connect(gateway.port);
    await client.startTls(gateway.caPem);
    client.send(startup({ user: "shop", database: "shop" }));
    await client.until("R");
    client.send(frame("p", `${await gateway.token({ user: "ann" })}\0`));
    const seen = await client.untilClosed();
    expect(seen.at(-1)?.fields).toMatchObject({ S: "FATAL", C: "08006" });
    expect(Buffer.concat(seen.map(({ body }) => body)).includes("injected_")).toBe(false);
    expect(gateway.logs()).not.toContain(account.password);
  } finally {
    loginAnswer = undefined;
  }
});

test("login answers without end or sense are refused, and the next login works", async () => {
  const answers = [
    Buffer.concat(Array.from({ length: 20_000 }, () => frame("S", "a\0b\0"))),
    Buffer.concat(Array.from({ length: 20_000 }, () => frame("N", "SNOTICE\0\0"))),
    ...[
      head("R", -4),
      head("R", 0x7fffffff),
      frame("R", int32s(12), "v=forged"),
      frame("R", int32s(99)),
      ready,
    ],
    Buffer.concat([frame("R", int32s(0)), frame("R", int32s(0))]),
    Buffer.concat([frame("R", int32s(0)), frame("K", Buffer.alloc(2))]),
    Buffer.concat([frame("R", int32s(0)), frame("D", "x")]),
    Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n"),
  ];
  for (const answer of answers) {
    loginAnswer = () => answer;
    await expect(logIn()).rejects.toThrow(/0800[46]|08P01/);
  }
  loginAnswer = undefined;
  const client = await logIn();
  expect(await isFine(client)).toBe(true);
  client.close();
});

test("a catalog of nonsense refuses statements, leaves the process alone, and is read again", async () => {
  const client = await logIn();
  const nonsense = [
    Buffer.concat([frame("T", Buffer.from([0xff, 0xff]), "fingerprint\0"), ready]),
    Buffer.concat([described, frame("D", Buffer.from([0, 9])), ready]),
    Buffer.concat([described, frame("D", Buffer.from([0, 1]), int32s(0x7fffffff)), ready]),
    ...[head("D", -1), frame("T"), frame("D")],
  ];
  try {
    for (const answer of nonsense) {
      catalogAnswer = answer;
      await expect
        .poll(
          async () => {
            client.send(query(`SELECT * FROM public.no_such_table`));
            return (await client.until("Z")).find(({ type }) => type === "E")?.fields.C;
          },
          // An answer without end is given up after five seconds, and a statement may have to wait for two readings.
          { timeout: 45_000 },
        )
        .toBe("57P03");
    }
  } finally {
    catalogAnswer = undefined;
  }
  // Whoever runs the gateway is told, and not each time.
  const told = gateway.logs().match(/"msg":"the catalog could not be read"/g) ?? [];
  expect(told.length).toBeGreaterThan(0);
  expect(told.length).toBeLessThan(nonsense.length);
  await expect.poll(() => isFine(client), { timeout: 15_000 }).toBe(true);
  client.close();
});

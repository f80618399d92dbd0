/**
 * Why somebody does something, said over SSH: OpenSSH's own programs send it as a variable, which reaches the gateway and
 * never the host. What rules with `reasonRequired` and break-glass make of it is the same as in PostgreSQL.
 */
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { describeWith } from "../drivers/test-with.ts";
import { freePort } from "../targets/free-port.ts";
import { type OpenSshServer, startOpenSsh } from "../targets/openssh.ts";
import { policyDocument } from "../targets/policies.ts";
import { recordedText } from "../targets/recorded.ts";
import { type RunOptions, type SshGateway, startSshGateway } from "../targets/ssh-gateway.ts";
import { until } from "../targets/until.ts";

// Both would let it through: that it stays away is the gateway's doing alone.
const found = await startOpenSsh(["AcceptEnv SALLYPORT_REASON"]);
const server = found as OpenSshServer;
const options = { environment: ["SALLYPORT_REASON"] };

const asks = (name: string, match: string, more: string) =>
  `  - {name: ${name}, match: ${match}, action: RequireApproval, approval: {required: 1, timeout: 1s, ${more}}}\n`;
const glass = 'breakGlass: {group: "local:oncall"}';
const rulesFor = (user: string) =>
  policyDocument(
    "web",
    user,
    [
      "  profile: Admin\n  rules:\n",
      asks("touch", "{commands: [exec], objects: [touch]}", glass),
      asks("put", "{commands: [sftp.put]}", glass),
      asks("tunnel", "{commands: [forward.local]}", glass),
      asks("make", "{commands: [exec], objects: [mkdir]}", "reasonRequired: true"),
    ].join(""),
  );

let gateway: SshGateway;
let echo: { readonly port: number; readonly close: () => void };

const send = ["-o", "SendEnv=SALLYPORT_REASON"];
const because = (reason: string | undefined, more: RunOptions = {}): RunOptions => ({
  user: { user: "dora", groups: ["oncall"] },
  ...(reason !== undefined && { environment: { SALLYPORT_REASON: reason } }),
  ...more,
});
const file = (name: string) => join(server.folder, name);
const touch = (name: string, options: RunOptions) => gateway.ssh(send, ["touch", file(name)], options);

const recorded = () => recordedText(gateway.recordingDir);

async function glassBroken(): Promise<number> {
  const metrics = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
  return Number(
    /^sallyport_break_glass_total\{[^}]*resource="default\/web"[^}]*\} (\d+)/m.exec(metrics)?.[1],
  );
}

describeWith("a reason given over SSH", found, () => {
  beforeAll(async () => {
    const listener = createServer((socket) => socket.on("error", () => undefined).end("reached\n"));
    await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
    echo = { port: (listener.address() as { port: number }).port, close: () => listener.close() };
    gateway = await startSshGateway({
      server,
      policies: rulesFor("dora") + rulesFor("dan"),
      options: { ...options, forwarding: { local: [`127.0.0.1:${echo.port}`] } },
      args: ["--approvers", "dora=local:leads,dan=local:leads"],
    });
  });
  afterAll(async () => {
    echo?.close();
    await gateway?.stop();
    await server.stop();
  });

  test("that a rule wants and nobody gave is asked for, with how to give it", async () => {
    const refused = await gateway.ssh([], ["mkdir", file("made")], because(undefined));
    expect(refused).toMatchObject({ code: 126, stdout: "" });
    expect(refused.stderr).toContain("a reason is required");
    expect(refused.stderr).toContain('Say why first: SALLYPORT_REASON="..." ssh -o SendEnv=SALLYPORT_REASON');
    const asked = await gateway.ssh(send, ["mkdir", file("made")], because("ticket 12"));
    expect(asked.stderr).toContain("held for approval");
    expect(asked.code).toBe(126);
    expect(existsSync(file("made"))).toBe(false);
  });

  test("lets break-glass pass for its group, is recorded and counted, and the host never sees it", async () => {
    const before = await glassBroken();
    expect(await touch("passed", because("INC-42: disk full"))).toMatchObject({ code: 0, stderr: "" });
    expect(existsSync(file("passed"))).toBe(true);
    expect(await glassBroken()).toBe(before + 1);
    const text = await until(async () => {
      const all = await recorded();
      return all.includes("breakGlass") ? all : undefined;
    });
    expect(text).toMatch(/"name":"breakGlass".*"reason":"INC-42: disk full"/);
    const seen = await gateway.ssh(send, ["printenv", "SALLYPORT_REASON"], because("INC-42"));
    expect(seen).toMatchObject({ code: 1, stdout: "" });
  });

  test("opens nothing for others, nor for its group while none is given", async () => {
    const outsider = await touch("others", because("me too", { user: { user: "dan" } }));
    expect(outsider).toMatchObject({ code: 126 });
    expect(outsider.stderr).toContain("held for approval");
    expect(await touch("none", because(undefined))).toMatchObject({ code: 126 });
    for (const name of ["others", "none"]) expect(existsSync(file(name))).toBe(false);
  });

  test.each([
    ["", "empty"],
    [" \u200b\u202e\u00ad\n\t ", "invisible"],
  ])("of %j is none", async (reason, name) => {
    expect(await touch(name, because(reason))).toMatchObject({ code: 126 });
    expect(existsSync(file(name))).toBe(false);
  });

  test("counts as one harmless line of 1,024 characters at most", async () => {
    const done = await touch("long", because(`INC-43\r\nforged\u001b[2J\u2028line ${"x".repeat(5_000)}`));
    expect(done).toMatchObject({ code: 0, stderr: "" });
    const text = await until(async () => {
      const all = await recorded();
      return all.includes("INC-43") ? all : undefined;
    });
    const [, reason = ""] = /"reason":"(INC-43[^"]*)"/.exec(text) ?? [];
    expect(reason).toMatch(/^INC-43 forged \[2J line x+$/);
    expect(reason.length).toBeGreaterThan(1_000);
    expect(reason.length).toBeLessThanOrEqual(1_024);
  });

  test("counts for what sftp asks for in its channel", async () => {
    await writeFile(join(gateway.home, "up"), "up\n");
    const put = (to: string, options: RunOptions) =>
      gateway.run(
        "sftp",
        [...gateway.options, ...send, "-o", "BatchMode=no", "-b", "-", gateway.destination],
        { ...options, input: `put ${join(gateway.home, "up")} ${file(to)}\n` },
      );
    expect((await put("unsaid", because(undefined))).code).not.toBe(0);
    expect(existsSync(file("unsaid"))).toBe(false);
    expect(await put("said", because("INC-44"))).toMatchObject({ code: 0 });
    expect(existsSync(file("said"))).toBe(true);
  });

  test("counts for what is forwarded beside the session that gave it; a connection without one gives none", async () => {
    const target = `127.0.0.1:${echo.port}`;
    const alone = await gateway.ssh([...send, "-W", target], [], because("INC-45"));
    expect(alone.stdout).toBe("");
    expect(alone.code).not.toBe(0);
    const port = await freePort();
    const flags = [...send, "-L", `127.0.0.1:${port}:${target}`, "-o", "ExitOnForwardFailure=yes"];
    const args = [...gateway.options, ...flags, gateway.destination, "echo up; cat"];
    const child = gateway.start("ssh", args, because("INC-45"));
    const ended = new Promise((resolve) => child.once("close", resolve));
    let printed = "";
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      printed += text;
    });
    try {
      await until(() => printed.includes("up"));
      const through = await fetchText(port);
      expect(through).toBe("reached\n");
    } finally {
      child.kill("SIGKILL");
      await ended;
    }
  });

  test("is sent by the stanza that `sallyport login` writes", async () => {
    const folder = join(gateway.home, "login");
    const { user = { user: "dora" }, ...more } = because("INC-46");
    expect(await gateway.login(folder, user)).toMatchObject({ code: 0 });
    const done = await gateway.run("ssh", ["-F", join(folder, "config"), "web", "touch", file("by")], more);
    expect(done).toMatchObject({ code: 0, stderr: "" });
    expect(existsSync(file("by"))).toBe(true);
  });
});

/** What a service says to whoever connects. */
function fetchText(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1");
    let text = "";
    socket.setTimeout(20_000, () => socket.destroy(new Error("nothing was said")));
    socket.setEncoding("utf8").on("data", (piece: string) => {
      text += piece;
    });
    socket.once("error", reject).once("close", () => resolve(text));
  });
}

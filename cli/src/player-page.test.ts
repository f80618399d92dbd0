import { request } from "node:http";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type PlayerPage, servePlayerPage } from "./player-page.ts";

let page: PlayerPage;

beforeAll(async () => {
  const header = '{"version":2,"width":80,"height":24}';
  page = await servePlayerPage(
    [header, '[0,"o","out"]', '[1,"e","error"]'],
    "0198 <script>alert(1)</script>",
  );
});
afterAll(() => page.close());

/** Status, headers and body, as whoever asks under another name would get them. */
function ask(url: string, headers: Readonly<Record<string, string>> = {}, method = "GET") {
  return new Promise<{ status: number; policy: string; body: string }>((resolve, reject) => {
    const sent = request(url, { headers, method, agent: false }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (text: string) => {
        body += text;
      });
      const policy = String(response.headers["content-security-policy"]);
      response.on("end", () => resolve({ status: response.statusCode ?? 0, policy, body }));
    });
    sent.on("error", reject);
    sent.end();
  });
}

test("the page plays the session with files of its own, and may load nothing from elsewhere", async () => {
  const { status, policy, body } = await ask(page.url);
  expect(status).toBe(200);
  expect(policy).toContain("default-src 'none'");
  expect(body).not.toContain("<script>alert");
  expect(body).not.toMatch(/https?:/);
  for (const [, name = ""] of body.matchAll(/(?:src|href)="([^"]+)"/g)) {
    expect([name, (await ask(`${page.url}${name}`)).status]).toEqual([name, 200]);
  }
  expect((await ask(`${page.url}session.cast`)).body.split("\n").slice(1)).toEqual([
    '[0,"o","out"]',
    '[1,"o","error"]',
  ]);
});

test("nobody reads the session who does not know its path, or reaches it by another name", async () => {
  const { origin } = new URL(page.url);
  for (const url of [
    `${origin}/`,
    `${origin}/session.cast`,
    `${page.url}../session.cast`,
    `${page.url}start.js/x`,
  ])
    expect((await ask(url)).status).toBe(404);
  expect((await ask(`${page.url}session.cast`, { host: "evil.example" })).status).toBe(404);
  expect((await ask(page.url, {}, "POST")).status).toBe(404);
});

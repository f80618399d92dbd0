/**
 * A recorded terminal in a browser: one page on the loopback, under a path that nobody can guess, with everything
 * that it needs. It loads nothing from elsewhere, and what was recorded is handed to a player that draws characters.
 */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import { join } from "node:path";

/** A page that is served until it is closed. */
export interface PlayerPage {
  readonly url: string;
  close(): Promise<void>;
}

/** Files of the player's package that the page needs. */
export const playerFiles = ["asciinema-player.min.js", "asciinema-player.css"] as const;

/** Serves the page of one asciicast, given as its lines. */
export async function servePlayerPage(lines: readonly string[], title: string): Promise<PlayerPage> {
  const secret = randomBytes(16).toString("hex");
  const files = new Map<string, readonly [type: string, content: string | Buffer]>([
    ["", ["text/html; charset=utf-8", pageOf(title)]],
    ["start.js", ["text/javascript; charset=utf-8", start]],
    ["session.cast", ["application/x-asciicast", lines.map(playable).join("\n")]],
  ]);
  for (const name of playerFiles) {
    const type = name.endsWith(".css") ? "text/css; charset=utf-8" : "text/javascript; charset=utf-8";
    files.set(name, [type, await readFile(playerFile(name))]);
  }
  const server = createServer((request, response) => answer(request, response));
  const answer = (request: IncomingMessage, response: ServerResponse) => {
    const { port } = server.address() as AddressInfo;
    const [type, content] = files.get(nameIn(request.url ?? "", secret) ?? "-") ?? [];
    // A name that somebody else points at this machine is not ours: no other page reads from here.
    const isOurs = [`127.0.0.1:${port}`, `localhost:${port}`].includes(request.headers.host ?? "");
    if (!isOurs || request.method !== "GET" || type === undefined) {
      response.writeHead(404, headers).end();
      return;
    }
    response.writeHead(200, { ...headers, "content-type": type }).end(content);
  };
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/${secret}/`,
    close: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}

/** The player is WebAssembly, and lays its screen out with styles of its own. */
const headers = {
  "content-security-policy":
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; " +
    "connect-src 'self'; font-src 'self' data:; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
  "cache-control": "no-store",
};

function nameIn(url: string, secret: string): string | undefined {
  return url.startsWith(`/${secret}/`) ? url.slice(secret.length + 2) : undefined;
}

/** Players show standard output alone: standard error is shown with it, as a terminal would. */
function playable(line: string): string {
  const event: unknown = JSON.parse(line);
  return Array.isArray(event) && event[1] === "e" ? JSON.stringify([event[0], "o", event[2]]) : line;
}

/** Beside this file in an image, else where the package is installed. */
function playerFile(name: string): string {
  const beside = join(import.meta.dirname, name);
  if (existsSync(beside)) return beside;
  return createRequire(import.meta.url).resolve(`asciinema-player/dist/bundle/${name}`);
}

function pageOf(title: string): string {
  const text = title.replaceAll(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>${text}</title>
<link rel="stylesheet" href="asciinema-player.css">
<body>
<h1>${text}</h1>
<div id="player"></div>
<script src="asciinema-player.min.js"></script>
<script src="start.js"></script>
</body>
</html>
`;
}

const start = `AsciinemaPlayer.create("session.cast", document.getElementById("player"), { fit: "width" });
`;

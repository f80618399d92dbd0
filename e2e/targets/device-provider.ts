/** A real OpenID Connect provider on the loopback that gives device codes, and a person who confirms them in a browser. */
import { generateKeyPairSync } from "node:crypto";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { Provider } from "oidc-provider";

/** A provider that runs. */
export interface DeviceProvider {
  readonly issuer: string;
  /** Of the public client that the gateway is. */
  readonly clientId: string;
  /** Opens the page of a code, logs in and says yes to everything. */
  confirm(url: string, user: string): Promise<void>;
  stop(): Promise<void>;
}

/** Starts one whose access tokens are for that audience. */
export async function startDeviceProvider(audience: string): Promise<DeviceProvider> {
  let answer: RequestListener = () => undefined;
  const server = createServer((incoming, response) => answer(incoming, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const clientId = "ssh";
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const key = { ...privateKey.export({ format: "jwk" }), kid: "k1", alg: "ES256", use: "sig" };
  const resourceServer = {
    scope: "openid",
    audience,
    accessTokenFormat: "jwt" as const,
    accessTokenTTL: 600,
    jwt: { sign: { alg: "ES256" as const } },
  };
  const provider = new Provider(issuer, {
    jwks: { keys: [key] } as never,
    clients: [
      {
        client_id: clientId,
        token_endpoint_auth_method: "none",
        id_token_signed_response_alg: "ES256",
        application_type: "native",
        grant_types: ["urn:ietf:params:oauth:grant-type:device_code"],
        redirect_uris: [],
        response_types: [],
      },
    ],
    findAccount: (_context, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
    features: {
      deviceFlow: { enabled: true },
      devInteractions: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => "urn:sallyport:web",
        useGrantedResource: () => true,
        getResourceServerInfo: () => resourceServer,
      },
    },
  });
  answer = provider.callback();
  return {
    issuer,
    clientId,
    confirm: async (url, user) => {
      const browser = new Browser();
      let page = await browser.open(new URL(url));
      for (let form = formIn(page); form !== undefined; form = formIn(page)) {
        for (const [name, value] of [
          ["login", user],
          ["password", "any"],
        ] as const)
          if (form.fields.has(name)) form.fields.set(name, value);
        page = await browser.open(new URL(form.action, page.url), form.fields);
      }
      if (page.status !== 200) throw new Error(`the provider answered ${page.status}\n${page.html}`);
    },
    stop: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

interface Page {
  readonly url: URL;
  readonly status: number;
  readonly html: string;
}

/** Keeps cookies and follows redirects, a bounded number of them. */
class Browser {
  readonly #cookies = new Map<string, string>();
  #requests = 0;

  async open(url: URL, form?: URLSearchParams): Promise<Page> {
    this.#requests += 1;
    if (this.#requests > 30) throw new Error("the provider leads in circles");
    const response = await fetch(url, {
      redirect: "manual",
      signal: AbortSignal.timeout(10_000),
      headers: { cookie: [...this.#cookies].map(([name, value]) => `${name}=${value}`).join("; ") },
      ...(form === undefined ? {} : { method: "POST", body: form }),
    });
    for (const line of response.headers.getSetCookie()) {
      const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
      if (value === "") this.#cookies.delete(name);
      else this.#cookies.set(name, value);
    }
    const location = response.headers.get("location");
    const html = await response.text();
    if (location !== null) return this.open(new URL(location, url));
    return { url, status: response.status, html };
  }
}

/** The first form of a page, as a browser would send it. */
function formIn({ html }: Page): { readonly action: string; readonly fields: URLSearchParams } | undefined {
  const form = /<form([^>]*)>([\s\S]*?)<\/form>/.exec(html);
  const action = /action="([^"]*)"/.exec(form?.[1] ?? "")?.[1];
  if (form === null || action === undefined) return undefined;
  const fields = new URLSearchParams();
  for (const [input] of (form[2] ?? "").matchAll(/<input[^>]*>/g)) {
    const name = /name="([^"]*)"/.exec(input)?.[1];
    if (name !== undefined) fields.set(name, /value="([^"]*)"/.exec(input)?.[1] ?? "");
  }
  if (/<button[^>]*name="confirm"/.test(html)) fields.set("confirm", "yes");
  return { action, fields };
}

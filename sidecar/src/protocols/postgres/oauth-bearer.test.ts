import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { GatewayError } from "../../wire/gateway-error.ts";
import { tokenIn } from "./oauth-bearer.ts";

const read = (text: string) => tokenIn(Buffer.from(text));

describe("the client's first message of OAUTHBEARER", () => {
  it.each([
    ["n,,\x01auth=Bearer abc.DEF-1_~+/==\x01\x01", "abc.DEF-1_~+/=="],
    ["y,,\x01auth=bearer   x\x01\x01", "x"],
    ["n,,\x01host=h\x01port=5\x01auth=Bearer x\x01\x01", "x"],
    ["n,,\x01auth=Basic eDp5\x01\x01", ""],
    ["n,,\x01auth=Bearer \x01\x01", ""],
    ["n,,\x01auth=Bearer a b\x01\x01", ""],
    ["n,,\x01auth=\x01\x01", undefined],
  ])("%j carries %j", (text, token) => {
    expect(read(text)).toBe(token);
  });

  it.each([
    "",
    "n",
    "n,,",
    "n,,\x01",
    "n,,\x01\x01",
    "n,,\x01auth=Bearer x",
    "n,,\x01auth=Bearer x\x01",
    "n,,\x01auth=Bearer x\x01\x01more",
    "n,,\x01auth=Bearer x\x01auth=Bearer y\x01\x01",
    "n,,\x01=x\x01\x01",
    "n,,\x01auth\x01\x01",
    "n,,auth=Bearer x\x01\x01",
    "n,,\x01auth=Bearer x\0\x01\x01",
    "p=tls-server-end-point,,\x01auth=Bearer x\x01\x01",
    "n,a=admin,\x01auth=Bearer x\x01\x01",
  ])("%j is refused", (text) => {
    expect(() => read(text)).toThrow(GatewayError);
  });

  it("never fails otherwise, and gives only what a token may hold", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), fc.boolean(), (bytes, isFramed) => {
        const framed = [Buffer.from("n,,\x01auth="), bytes, Buffer.from("\x01\x01")];
        try {
          const token = tokenIn(isFramed ? Buffer.concat(framed) : Buffer.from(bytes));
          expect(token ?? "").toMatch(/^[A-Za-z0-9._~+/=-]*$/);
        } catch (error) {
          expect(error).toBeInstanceOf(GatewayError);
        }
      }),
      { numRuns: 500 },
    );
  });
});

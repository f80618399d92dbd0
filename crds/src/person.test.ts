import { expect, test } from "vitest";
import { isOwner, isSameName } from "./person.ts";

test("case does not make two people of one", () => {
  expect(isSameName("Alice@Example.com", "alice@example.com")).toBe(true);
  expect(isSameName("alice@example.com", "alice@example.org")).toBe(false);
});

test.each([
  ["bob@example.com", true],
  ["okta:bob@example.com", true],
  ["Bob@example.com", true],
  ["oidc:bob@example.com", true],
  ["https://issuer.example.com#bob@example.com", true],
  ["notbob@example.com", false],
  ["bob@example.org", false],
  ["okta:", false],
])("an agent of okta:bob@example.com has the owner %s: %s", (name, expected) => {
  expect(isOwner("okta:bob@example.com", name)).toBe(expected);
});

test("an owner without a prefix is found as well", () => {
  expect(isOwner("bob@example.com", "bob@example.com")).toBe(true);
  expect(isOwner("bob@example.com", "oidc:bob@example.com")).toBe(true);
  expect(isOwner("bob@example.com", "carol@example.com")).toBe(false);
});

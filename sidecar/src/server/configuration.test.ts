import { peerNumber, peerPort } from "@sallyport/control";
import { describe, expect, it } from "vitest";
import { readConfiguration } from "./configuration.ts";

const control = {
  control: "operator:8443",
  "control-ca": "ca.crt",
  "control-token": "token",
  resource: "shop/orders",
};

describe("numbers", () => {
  it.each([
    ["SALLYPORT_POLICY_MAX_AGE", "1h"],
    ["SALLYPORT_LOCKOUT", "60m"],
    ["SALLYPORT_FAILED_LOGINS", "0x20"],
    ["SALLYPORT_PENDING_LOGINS", "1e3"],
    ["SALLYPORT_DRAIN", "-5"],
    ["SALLYPORT_DRAIN", "30.5"],
    // More than a timer holds would be over at once.
    ["SALLYPORT_DRAIN", "5000000"],
  ])("are what they look like, or keep the gateway from starting: %s=%s", (name, value) => {
    expect(() => readConfiguration({ ...control, manifests: "m" }, { [name]: value })).toThrow(name);
  });

  it("are taken in digits", () => {
    const environment = { SALLYPORT_DRAIN: "0", SALLYPORT_LOCKOUT: "600", SALLYPORT_POLICY_MAX_AGE: "60" };
    const read = readConfiguration(control, environment);
    expect(read).toMatchObject({ drainMs: 0, lockOutMs: 600_000, control: { policyMaxAgeMs: 60_000 } });
  });
});

describe("cancel requests between gateways", () => {
  it("come by the number of the pod and at the agreed port where an operator placed the gateway", () => {
    const placed = readConfiguration(
      { ...control, listen: "0.0.0.0" },
      { SALLYPORT_POD_UID: "5f3c1d2e-1", SALLYPORT_REPLICA: "7" },
    );
    expect(placed.replica).toBe(peerNumber("5f3c1d2e-1"));
    expect(placed.peerListen).toEqual({ host: "0.0.0.0", port: peerPort });
    expect(readConfiguration({ ...control, "peer-listen": "10.0.0.1:1234" }, {}).peerListen).toEqual({
      host: "10.0.0.1",
      port: 1234,
    });
  });

  it("come by a number and a file of one's own elsewhere, and by none where nothing is said", () => {
    const alone = readConfiguration({ manifests: "m", replica: "7" }, { SALLYPORT_POD_UID: "5f3c1d2e-1" });
    expect(alone).toMatchObject({ replica: 7, peers: "", peerListen: undefined });
    const flags = { manifests: "m", peers: "peers.json", "peer-listen": "127.0.0.1:9470" };
    expect(readConfiguration(flags, {})).toMatchObject({ peers: "peers.json", peerListen: { port: 9470 } });
  });

  it.each([
    ["an address without the file that holds the key", { manifests: "m", "peer-listen": "127.0.0.1:1" }],
    ["a file beside an operator, who says who the peers are", { ...control, peers: "peers.json" }],
  ])("are not set up by %s", (_, flags) => {
    expect(() => readConfiguration(flags, {})).toThrow("SALLYPORT_PEERS");
  });
});

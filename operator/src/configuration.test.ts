import { expect, it } from "vitest";
import { readConfiguration } from "./configuration.ts";

const environment = {
  ...{
    SALLYPORT_NAMESPACE: "system",
    SALLYPORT_POD_NAME: "operator-1",
    SALLYPORT_GATEWAY_IMAGE: "image@sha256:1",
  },
};

it.each([
  ["SALLYPORT_GATEWAY_DRAIN", "5m"],
  ["SALLYPORT_RECORDERS", "1.5"],
  ["SALLYPORT_GATEWAY_USER", "1e4"],
  ["SALLYPORT_CONTROL_PORT", "8443/tcp"],
])("a number that is not what it looks like keeps the operator from starting: %s=%s", (name, value) => {
  expect(() => readConfiguration({ ...environment, [name]: value })).toThrow(name);
});

it("numbers in digits are taken", () => {
  const read = readConfiguration({
    ...environment,
    SALLYPORT_RECORDERS: "0",
    SALLYPORT_GATEWAY_DRAIN: "120",
  });
  expect(read).toMatchObject({ recorders: [], settings: { drainSeconds: 120, userId: 65_532 } });
});

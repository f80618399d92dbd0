import { expect, it } from "vitest";
import { readRecorderConfiguration } from "./configuration.ts";

const folders = {
  ...{ volume: "/v", tls: "/tls", "gateway-ca": "ca.crt", "signing-key": "key.pem", "wrapping-keys": "a,b" },
};

it.each([
  ["quota", "10Gi"],
  ["quota", "0"],
  ["reserve", "256MiB"],
  ["retention-min", "30d"],
  ["retention-min", "-1"],
])("a number that is not what it looks like keeps the recorder from starting: --%s %s", (flag, value) => {
  const name = `SALLYPORT_RECORDER_${flag.toUpperCase().replace("-", "_")}`;
  expect(() => readRecorderConfiguration({ ...folders, [flag]: value }, {})).toThrow(name);
});

it("numbers in digits are taken", () => {
  const flags = { ...folders, quota: "10737418240", reserve: "0", "retention-min": "2592000" };
  expect(readRecorderConfiguration(flags, {})).toMatchObject({
    quotaBytes: 10_737_418_240,
    reserveBytes: 0,
    retentionMsMin: 2_592_000_000,
  });
});

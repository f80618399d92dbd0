/** What tests and benchmarks drive from outside. */

export { Registry } from "prom-client";
export { type OperatorConfiguration, readConfiguration } from "./configuration.ts";
export { Operator, type OperatorParts } from "./operator.ts";

/** What tests and benchmarks drive from outside. */
export { type OperatorConfiguration, readConfiguration } from "./configuration.ts";
export { Operator, type OperatorParts } from "./operator.ts";

/** An AccessPolicy for one user of the local provider, as a document of a manifest; `rest` goes on with its spec. */
export function policyDocument(resource: string, user: string, rest: string, name = user): string {
  return `---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: ${name}, namespace: default}
spec:
  resources: {names: [${resource}]}
  subjects: [{user: "local:${user}"}]
${rest.trimEnd()}
`;
}

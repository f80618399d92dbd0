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

/** Lets every human do all that can be done at the resource `shop`. */
export const everybody = `---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: everybody}
spec:
  resources: {names: [shop]}
  subjects: [{kind: Human}]
  profile: Admin
`;

/** An IdentityProvider, as a document of a manifest, whose users begin with its name. */
export const providerDocument = (name: string, spec: object): string => `---
${JSON.stringify({
  apiVersion: "sallyport.dev/v1alpha1",
  kind: "IdentityProvider",
  metadata: { name },
  spec: { prefix: `${name}:`, ...spec },
})}
`;

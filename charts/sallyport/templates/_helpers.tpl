{{- define "sallyport.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sallyport.labels" -}}
app.kubernetes.io/name: sallyport
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: sallyport
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "sallyport.selector" -}}
app.kubernetes.io/name: sallyport
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sallyport.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "sallyport.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "sallyport.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "sallyport.operatorAccount" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "sallyport.fullname" . }}-operator
{{- end -}}

{{/* Namespaces that opted in; never the cluster's own nor ours. */}}
{{- define "sallyport.protectedNamespaces" -}}
matchExpressions:
- {key: sallyport.dev/protection, operator: In, values: [enabled]}
- {key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system, {{ .Release.Namespace }}]}
{{- end -}}

{{- define "sallyport.breakGlass" -}}
(has(request.userInfo.groups) && {{ .Values.admission.breakGlassGroup | squote }} in request.userInfo.groups)
{{- end -}}

{{- define "sallyport.collectors" -}}
{{- $names := concat (list (include "sallyport.operatorAccount" .) "system:serviceaccount:kube-system:generic-garbage-collector" "system:serviceaccount:kube-system:namespace-controller") .Values.admission.collectors -}}
[{{ range $i, $name := $names }}{{ if $i }}, {{ end }}{{ $name | squote }}{{ end }}]
{{- end -}}

{{/* A rule with plain verbs as the right to do so in another's name. */}}
{{- define "sallyport.impersonatedRule" -}}
{{- $verbs := list -}}
{{- range .verbs }}{{ $verbs = append $verbs (printf "impersonate-on:user-info:%s" .) }}{{ end -}}
{{- merge (dict "verbs" $verbs) (omit . "verbs") | toJson -}}
{{- end -}}

{{- define "sallyport.everyRequest" -}}
- {apiGroups: ["*"], resources: ["*"], verbs: [get, list, watch, create, update, patch, delete, deletecollection]}
- {nonResourceURLs: ["*"], verbs: [get, head, post, put, patch, delete, options]}
{{- end -}}

{{/* What the operator needs in each namespace whose resources it serves. */}}
{{- define "sallyport.ofNamespaces" -}}
- apiGroups: [sallyport.dev]
  resources: [protectedresources, accesspolicies, resourcegrants]
  verbs: [get, list, watch]
- apiGroups: [sallyport.dev]
  resources: [protectedresources/status, accesspolicies/status, resourcegrants/status, sessions/status, approvals/status]
  verbs: [get, patch]
# Made for commands that are held; decided by people alone.
- apiGroups: [sallyport.dev]
  resources: [approvals]
  # Deleted when their retention is over.
  verbs: [get, list, watch, create, delete]
- apiGroups: [sallyport.dev]
  resources: [protectedresources/finalizers, accesspolicies/finalizers]
  verbs: [update]
- apiGroups: [sallyport.dev]
  resources: [sessions]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [pods/eviction]
  verbs: [create]
# The keys that a resource's gateways share: made, and never read.
- {apiGroups: [""], resources: [secrets], verbs: [create]}
- apiGroups: [""]
  resources: [services, configmaps, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments, controllerrevisions]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{- define "sallyport.ofDefault" -}}
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  resourceNames: [kubernetes]
  verbs: [get]
{{- end -}}

{{/* Where the webhooks are asked: where the operator knows what is protected. Policies bind everywhere. */}}
{{- define "sallyport.servedNamespaces" -}}
{{ include "sallyport.protectedNamespaces" . }}
{{- with .Values.watchNamespaces }}
- {key: kubernetes.io/metadata.name, operator: In, values: {{ toJson . }}}
{{- end }}
{{- end -}}

{{- define "sallyport.tcp" -}}
{{- range $i, $port := . }}{{ if $i }}
{{ end }}- {protocol: TCP, port: {{ $port }}}
{{- end }}
{{- end -}}

{{/* Names, and the API server: policies see the port behind its Service. */}}
{{- define "sallyport.egress" -}}
- ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
- to:
    - {namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}
    - {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: openshift-dns}}}
- ports: {{- include "sallyport.tcp" .Values.networkPolicy.egress.apiServerPorts | nindent 4 }}
  {{- with .Values.networkPolicy.egress.apiServerRanges }}
  to: {{- range . }}{{ dict "ipBlock" (dict "cidr" .) | toJson | printf "- %s" | nindent 4 }}{{ end }}
  {{- end }}
{{- end -}}

{{/* Renders nothing, and fails where a cluster is there to ask and its API server would be cut off from the control plane. */}}
{{- define "sallyport.apiServerIsOpen" -}}
{{- $open := list -}}
{{- range .Values.networkPolicy.egress.apiServerPorts }}{{ $open = append $open (int .) }}{{ end -}}
{{- range (lookup "discovery.k8s.io/v1" "EndpointSlice" "default" "kubernetes").ports -}}
{{- if not (has (int .port) $open) -}}
{{- fail (printf "the API server of this cluster listens on port %d: add it to networkPolicy.egress.apiServerPorts, or operator and recorder could not reach it" (int .port)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

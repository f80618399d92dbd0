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

{{/* One driver name, one installation a cluster: every name is fixed, and RBAC, policies and docs can say it. */}}
{{- define "driver" -}}
local-path.csi.dev
{{- end }}

{{/* Labels of every object. Selectors have fewer: they can never be changed. */}}
{{- define "labels" -}}
app.kubernetes.io/name: csi-local-path
app.kubernetes.io/part-of: csi-local-path
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "controller.selector" -}}
app.kubernetes.io/name: csi-local-path
app.kubernetes.io/component: controller
{{- end }}

{{/* All node agents, of every group. */}}
{{- define "node.selector" -}}
app.kubernetes.io/name: csi-local-path
app.kubernetes.io/component: node
{{- end }}

{{/* The reference of an image: a digest, where given, decides. Takes a dict of `image`, `root`. */}}
{{- define "image" -}}
{{- $image := .image -}}
{{- $registry := .root.Values.imageRegistry | default $image.registry -}}
{{- $name := printf "%s/%s" $registry $image.repository -}}
{{- if $image.digest -}}
{{ $name }}@{{ $image.digest }}
{{- else -}}
{{ $name }}:{{ $image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* What every container but the driver of a node gets: nothing. */}}
{{- define "container.unprivileged" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where a pod runs and with which pull secrets: what both workloads say alike. */}}
{{- define "env.identity" -}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- end }}

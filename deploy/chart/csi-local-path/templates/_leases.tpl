{{/* Leases that a controller's pod writes: its own slots, and those by which its sidecars elect their leaders. */}}
{{- define "controller.leases" -}}
{{- $driver := include "driver" . | replace "." "-" -}}
{{- $names := list "controller-0" "controller-1" $driver (printf "external-resizer-%s" $driver) -}}
{{- if .Values.snapshotter.enabled -}}
{{- $names = append $names (printf "external-snapshotter-leader-%s" $driver) -}}
{{- end -}}
{{ toJson $names }}
{{- end }}

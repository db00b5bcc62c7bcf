{{/* What Kubernetes lets nobody change of a class, as its values want it: JSON. Takes the values of one class. */}}
{{- define "class.wanted" -}}
{{- dict "parameters" (.parameters | default dict)
         "reclaimPolicy" (.reclaimPolicy | default "Delete")
         "volumeBindingMode" (.volumeBindingMode | default "WaitForFirstConsumer") | toJson -}}
{{- end }}

{{/* The same as it stays: that of the class which the cluster has already, so that no upgrade stumbles over it. */}}
{{- define "class.fixed" -}}
{{- with lookup "storage.k8s.io/v1" "StorageClass" "" .name -}}
{{- dict "parameters" (.parameters | default dict)
         "reclaimPolicy" .reclaimPolicy "volumeBindingMode" .volumeBindingMode | toJson -}}
{{- else -}}
{{- include "class.wanted" . -}}
{{- end -}}
{{- end }}

{{/*
The host's directories in which a group's pools lie, as a JSON list: `hostPaths`, or else the pools' own paths. Where a
pool must be the root of a mount, its parent: a directory that is handed to a container is a mount there in any case,
and only seen from above can it be told whether the disk is there.
Takes a dict of `pools`, `nodes`, `hostPaths`, `root`.
*/}}
{{- define "node.hostPaths" -}}
{{- $paths := list -}}
{{- $kubelet := trimSuffix "/" .root.Values.kubeletDir -}}
{{- if .hostPaths -}}
{{- $paths = .hostPaths -}}
{{- else if .nodes -}}
{{- fail "hostPaths: wanted the directories below which the pools of `nodes` lie, for example [/mnt]; a directory that one node lacks would keep the agent from starting there" -}}
{{- else -}}
{{- range .pools -}}
{{- $path := .path | clean -}}
{{- $paths = append $paths (ternary (dir $path) $path (eq true .requireMount)) -}}
{{- end -}}
{{- end -}}
{{- $plain := list -}}
{{- range $paths -}}
{{- $path := . | clean -}}
{{- if or (eq $path "/") (eq $path $kubelet) (hasPrefix (printf "%s/" $path) $kubelet) (hasPrefix (printf "%s/" $kubelet) $path) -}}
{{- fail (printf "pools: the host's directory %s would be given to the agent whole, and it is or holds the kubelet's; put the pools below another, such as /mnt" $path) -}}
{{- end -}}
{{- $plain = append $plain $path -}}
{{- end -}}
{{- toJson (uniq $plain | sortAlpha) -}}
{{- end }}

{{/* The configuration file of a group's agents. Takes the same dict. */}}
{{- define "node.config" -}}
{{- $given := dict "targetRoots" (list .root.Values.kubeletDir) "pools" .pools -}}
{{- with .nodes }}{{ $_ := set $given "nodes" . }}{{ end -}}
{{- toYaml (mergeOverwrite $given (deepCopy .root.Values.settings)) -}}
{{- end }}

{{/* A DaemonSet with its ConfigMap. Takes the same dict, and `suffix`, `group`, `groupExpression`. */}}
{{- define "node.agents" -}}
{{- $values := .root.Values -}}
{{- $config := include "node.config" . -}}
{{- $hostPaths := include "node.hostPaths" . | fromJsonArray -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: csi-local-path-node{{ .suffix }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "labels" .root | nindent 4 }}
data:
  config.yaml: |
    {{- $config | nindent 4 }}
---
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: csi-local-path-node{{ .suffix }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "labels" .root | nindent 4 }}
    app.kubernetes.io/component: node
spec:
  selector:
    matchLabels:
      {{- include "node.selector" .root | nindent 6 }}
      local-path.csi.dev/group: {{ .group }}
  updateStrategy:
    type: RollingUpdate
    rollingUpdate:
      # Two agents on one node would want the same pools and the same socket.
      maxSurge: 0
      maxUnavailable: {{ $values.node.maxUnavailable }}
  template:
    metadata:
      labels:
        {{- include "labels" .root | nindent 8 }}
        app.kubernetes.io/component: node
        local-path.csi.dev/group: {{ .group }}
        {{- with $values.node.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        kubectl.kubernetes.io/default-container: driver
        checksum/config: {{ sha256sum $config }}
        {{- with $values.node.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: csi-local-path-node
      # The one container that needs a token mounts it.
      automountServiceAccountToken: false
      enableServiceLinks: false
      priorityClassName: {{ $values.node.priorityClassName }}
      # Calls that run get 25 s to finish, then the agent ends by itself.
      terminationGracePeriodSeconds: 40
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
              - matchExpressions:
                  - {key: kubernetes.io/os, operator: In, values: [linux]}
                  {{- with .groupExpression }}
                  {{- . | nindent 18 }}
                  {{- end }}
                  {{- with $values.node.matchExpressions }}
                  {{- toYaml . | nindent 18 }}
                  {{- end }}
      {{- with $values.node.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        seccompProfile: {type: RuntimeDefault}
      containers:
        - name: driver
          image: {{ include "image" (dict "image" $values.image "root" .root) }}
          imagePullPolicy: {{ $values.imagePullPolicy }}
          args:
            - serve
            - --role=node
            - --config=/etc/csi-local-path/config.yaml
            - --listen-port=9901
            - --http-port=9902
            - --log-level={{ $values.logLevel }}
            - --log-format={{ $values.logFormat }}
          env:
            - name: CSI_ENDPOINT
              value: unix:///csi/csi.sock
            {{- include "env.identity" . | nindent 12 }}
          ports:
            - {name: tls, containerPort: 9901}
            - {name: http, containerPort: 9902}
          # None of these needs the API server or another node: a node alone must be able to start its pods.
          startupProbe:
            httpGet: {path: /healthz, port: http}
            periodSeconds: 1
            # A disk of many volumes is read first, and an agent that ends may hold it a while.
            failureThreshold: 120
          livenessProbe:
            httpGet: {path: /healthz, port: http}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          readinessProbe:
            httpGet: {path: /readyz, port: http}
            periodSeconds: 5
            timeoutSeconds: 5
          {{- with $values.node.resources }}
          resources:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          # Elsewhere than in /dev, which is the host's.
          terminationMessagePath: /run/termination-log
          securityContext:
            # Mounts that shall be seen by the host and by pods (Bidirectional) are for privileged containers alone.
            privileged: true
            readOnlyRootFilesystem: true
            runAsUser: 0
            runAsGroup: 0
          volumeMounts:
            - {name: plugin, mountPath: /csi}
            - {name: kubelet, mountPath: {{ $values.kubeletDir }}, mountPropagation: Bidirectional}
            # A loop device that is made later appears on the host alone; a container's own /dev is a copy.
            - {name: dev, mountPath: /dev}
            - {name: config, mountPath: /etc/csi-local-path, readOnly: true}
            - {name: token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
            {{- range $i, $path := $hostPaths }}
            # A disk that is mounted on the host later is seen here as well.
            - {name: pools-{{ $i }}, mountPath: {{ $path }}, mountPropagation: HostToContainer}
            {{- end }}
        - name: registrar
          image: {{ include "image" (dict "image" $values.registrar.image "root" .root) }}
          imagePullPolicy: {{ $values.imagePullPolicy }}
          args:
            - --csi-address=/csi/csi.sock
            - --kubelet-registration-path={{ $values.kubeletDir }}/plugins/{{ include "driver" .root }}/csi.sock
            # A driver that reads a disk of many volumes answers late, once.
            - --timeout=30s
            - --http-endpoint=:9907
            - --v=2
          ports:
            - {name: registrar, containerPort: 9907}
          livenessProbe:
            httpGet: {path: /healthz, port: registrar}
            initialDelaySeconds: 30
            periodSeconds: 30
            timeoutSeconds: 5
          {{- with $values.registrar.resources }}
          resources:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          securityContext:
            {{- include "container.unprivileged" . | nindent 12 }}
            # The folder of registrations and the driver's socket are root's; being their owner needs no capability.
            runAsUser: 0
            runAsGroup: 0
          volumeMounts:
            - {name: plugin, mountPath: /csi}
            - {name: registration, mountPath: /registration}
      volumes:
        - name: plugin
          # The kubelet's folder for this driver's socket: no pool, and nobody else makes it.
          hostPath: {path: {{ $values.kubeletDir }}/plugins/{{ include "driver" .root }}, type: DirectoryOrCreate}
        - name: registration
          hostPath: {path: {{ $values.kubeletDir }}/plugins_registry, type: Directory}
        - name: kubelet
          hostPath: {path: {{ $values.kubeletDir }}, type: Directory}
        - name: dev
          hostPath: {path: /dev, type: Directory}
        - name: config
          configMap: {name: csi-local-path-node{{ .suffix }}}
        - name: token
          projected:
            sources:
              - serviceAccountToken: {path: token, expirationSeconds: 3600}
              - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
              - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
        {{- range $i, $path := $hostPaths }}
        - name: pools-{{ $i }}
          # Never made here: an empty directory in the place of a disk would be taken for one.
          hostPath: {path: {{ $path }}, type: Directory}
        {{- end }}
{{- end }}

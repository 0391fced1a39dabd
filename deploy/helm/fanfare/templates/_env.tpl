{{- /* The environment: what the values say, and the chart's own where they say nothing. */}}
{{- define "fanfare.ownEnv" -}}
- name: TOKIO_WORKER_THREADS
  value: {{ .Values.workerThreads | quote }}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: POD_UID
  valueFrom:
    fieldRef:
      fieldPath: metadata.uid
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: OTEL_RESOURCE_ATTRIBUTES
  value: "k8s.namespace.name=$(POD_NAMESPACE),k8s.deployment.name={{ include "fanfare.fullname" . }},\
    k8s.pod.name=$(POD_NAME),k8s.pod.uid=$(POD_UID),\
    k8s.node.name=$(NODE_NAME),k8s.container.name=fanfare"
{{- end }}

{{- define "fanfare.env" -}}
{{- $theirs := dict }}
{{- range .Values.env }}
{{- $_ := set $theirs .name true }}
{{- end }}
{{- $env := list }}
{{- range include "fanfare.ownEnv" . | fromYamlArray }}
{{- if not (hasKey $theirs .name) }}
{{- $env = append $env . }}
{{- end }}
{{- end }}
{{- concat $env .Values.env | toYaml }}
{{- end }}

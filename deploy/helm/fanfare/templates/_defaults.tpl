{{- /* Of sections that templates look into. Helm takes a value that is null out of
values.yaml: it is as if it had been left out. Lists and maps inside of a section that is
there stay away, so that one can take them out. */}}
{{- define "fanfare.sections" -}}
env: []
workerThreads: 2
replicas: 2
terminationGracePeriodSeconds: 40
image: {pullPolicy: IfNotPresent}
autoscaling:
  enabled: true
  minReplicas: 2
  maxReplicas: 10
  targetCPUUtilization: 70
  targetInFlightCalls: 5000
podDisruptionBudget: {enabled: true, maxUnavailable: 1}
service: {type: ClusterIP}
serviceAccount: {name: ""}
networkPolicy:
  enabled: true
  callers:
    - namespaceSelector: {matchLabels: {fanfare-caller: "true"}}
    - podSelector: {matchLabels: {fanfare-caller: "true"}}
  monitoring:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}
  dns:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
    - ipBlock: {cidr: 169.254.20.10/32}
  tools:
    - namespaceSelector: {matchLabels: {fanfare-tools: "true"}}
    - podSelector: {matchLabels: {fanfare-tools: "true"}}
  collector:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}
serviceMonitor: {enabled: false, interval: 15s, scrapeTimeout: 10s}
topologySpread: {zone: ScheduleAnyway, node: ScheduleAnyway}
{{- end }}

{{- /* Puts them into the values. */}}
{{- define "fanfare.defaults" -}}
{{- range $section, $default := include "fanfare.sections" . | fromYaml }}
{{- if kindIs "invalid" (index $.Values $section) }}
{{- $_ := set $.Values $section $default }}
{{- else if kindIs "map" $default }}
{{- $values := index $.Values $section }}
{{- range $key, $value := $default }}
{{- if and (kindIs "invalid" (index $values $key)) (not (kindIs "slice" $value)) }}
{{- $_ := set $values $key $value }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

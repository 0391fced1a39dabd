{{- /* The settings, if they go with the ports and the probes of the pod. */}}
{{- define "fanfare.config" -}}
{{- $config := fromToml .Values.config }}
{{- with $config.Error }}
{{- fail (printf "config: is no TOML: %s" .) }}
{{- end }}
{{- $server := default dict $config.server }}
{{- $wrong := list }}
{{- range $key, $port := dict "listen" 50051 "admin_listen" 9464 }}
{{- $address := get $server $key | default (printf "127.0.0.1:%v" $port) | toString }}
{{- if not (has $address (list (printf "0.0.0.0:%v" $port) (printf "[::]:%v" $port))) }}
{{- $wrong = append $wrong (printf "server.%s is %q%s" $key $address (ternary "" " by default" (hasKey $server $key))) }}
{{- end }}
{{- end }}
{{- with $wrong }}
{{- fail (printf "config: %s: the pod's ports and probes lead nowhere. Under [server], set listen = \"0.0.0.0:50051\" and admin_listen = \"0.0.0.0:9464\", or both to [::]" (join " and " (sortAlpha .))) }}
{{- end }}
{{- .Values.config }}
{{- end }}

{{/* Labels of all pods that belong to Highwater here. */}}
{{- define "highwater.allPods" -}}
matchLabels: {app.kubernetes.io/name: highwater}
{{- end -}}

{{/* Those of them that are nodes of a Ray cluster. */}}
{{- define "highwater.rayPods" -}}
matchLabels: {app.kubernetes.io/name: highwater}
matchExpressions: [{key: app.kubernetes.io/component, operator: In, values: [head, worker]}]
{{- end -}}

{{/* Peers of these CIDRs, never with the link-local addresses where clouds hand out the rights of a node. */}}
{{- define "highwater.cidrs" -}}
{{- range $cidr := . }}
- ipBlock:
    cidr: {{ $cidr | quote }}
    {{- with include "highwater.except" $cidr }}
    except: [{{ . }}]
    {{- end }}
{{- end -}}
{{- end -}}

{{/* What must be left out of a CIDR. The API server refuses an exception that is not within it, hence the arithmetic:
     two networks overlap if the leading bits of the shorter prefix are equal. 43518 is 169.254 as 16 bits. */}}
{{- define "highwater.except" -}}
{{- if contains ":" . -}}
{{- if has (lower .) (list "::/0" "fc00::/7" "fd00::/8") }}"fd00:ec2::/32"{{ if eq . "::/0" }}, "fe80::/10"{{ end }}{{ end -}}
{{- else -}}
{{- $bits := int (regexFind "[0-9]+$" .) -}}
{{- if lt $bits 16 -}}
{{- $parts := splitList "." (regexFind "^[0-9.]+" .) -}}
{{- $span := 1 -}}
{{- range until (int (sub 16 $bits)) }}{{ $span = mul $span 2 }}{{ end -}}
{{- $first := add (mul 256 (int (index $parts 0))) (int (index $parts 1)) -}}
{{- if eq (div $first $span) (div 43518 $span) }}"169.254.0.0/16"{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Peers that are namespaces, by the label that Kubernetes itself puts on each. */}}
{{- define "highwater.namespaces" -}}
{{- range . }}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ . | quote }}}}
{{- end -}}
{{- end -}}

{{- define "highwater.tcp" -}}
{{- range . }}
- {protocol: TCP, port: {{ int . }}}
{{- end -}}
{{- end -}}

{{/* Namespace of the S3 server, where storageEndpoint is the name of a service of this cluster; otherwise empty. */}}
{{- define "highwater.storageNamespace" -}}
{{- with .Values.storageEndpoint -}}
{{- $host := regexReplaceAll ":[0-9]+$" (urlParse .).host "" -}}
{{- if regexMatch "^[^.]+\\.[^.]+\\.svc(\\.|$)" $host }}{{ index (splitList "." $host) 1 }}
{{- else if and (regexMatch "^[a-z0-9-]+$" $host) (ne $host "localhost") }}{{ $.Release.Namespace }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Ports of the S3 server, as a JSON list. */}}
{{- define "highwater.storagePorts" -}}
{{- $ports := .Values.networkPolicy.storage.ports -}}
{{- if not $ports -}}
{{- $ports = list 443 -}}
{{- with .Values.storageEndpoint -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- $ports = list (int ($port | default (ternary 80 443 (eq $url.scheme "http")))) -}}
{{- end -}}
{{- end -}}
{{- /* Clouds exchange an account's token for keys at an address of their own. */ -}}
{{- if .Values.workloadIdentity.enabled }}{{ $ports = append $ports 443 }}{{ end -}}
{{- toJson ($ports | uniq) -}}
{{- end -}}

{{/* Peers of the S3 server. */}}
{{- define "highwater.storagePeers" -}}
{{- $storage := .Values.networkPolicy.storage -}}
{{- $namespaces := $storage.namespaces -}}
{{- $cidrs := $storage.cidrs -}}
{{- with include "highwater.storageNamespace" . }}{{ $namespaces = append $namespaces . }}
{{- else }}{{ if not $cidrs }}{{ $cidrs = list "0.0.0.0/0" "::/0" }}{{ end }}{{ end -}}
{{- include "highwater.namespaces" ($namespaces | uniq) -}}
{{- include "highwater.cidrs" $cidrs -}}
{{- end -}}

{{- define "highwater.apiServerRule" -}}
{{- $server := .Values.networkPolicy.apiServer -}}
- to: {{- include "highwater.cidrs" ($server.cidrs | default (list "0.0.0.0/0" "::/0")) | trim | nindent 4 }}
  ports: {{- include "highwater.tcp" $server.ports | trim | nindent 4 }}
{{- end -}}

{{/*
Texts are carried, never read: whatever a value holds, it becomes one scalar of YAML and nothing else.
*/}}

{{/* Any value as YAML on one line, in ASCII: YAML would fold or refuse some characters that JSON leaves as they are. */}}
{{- define "training-job.value" -}}
{{- if kindIs "string" . -}}
{{- printf "%+q" . -}}
{{- else if kindIs "map" . -}}
{{- $map := . -}}
{ {{- range $i, $key := keys $map | sortAlpha }}{{ if $i }}, {{ end }}{{ printf "%+q" $key }}: {{ include "training-job.value" (index $map $key) }}{{ end -}} }
{{- else if kindIs "slice" . -}}
[ {{- range $i, $item := . }}{{ if $i }}, {{ end }}{{ include "training-job.value" $item }}{{ end -}} ]
{{- else -}}
{{- toRawJson . -}}
{{- end -}}
{{- end -}}

{{/* A text where Kubernetes would replace $(NAME), unless each $ is doubled: environment variables, commands. */}}
{{- define "training-job.literal" -}}
{{- include "training-job.value" (toString . | replace "$" "$$") -}}
{{- end -}}

{{/* CPUs as a quantity, rounded up to a thousandth. */}}
{{- define "training-job.milli" -}}
{{- $amount := round (mulf . 1000) 3 | ceil | int64 -}}
{{- if mod $amount 1000 -}}{{- printf "%dm" $amount -}}{{- else -}}{{- printf "%q" (div $amount 1000 | toString) -}}{{- end -}}
{{- end -}}

{{/* GiB as a quantity, rounded up to a MiB, in the form in which Kubernetes gives it back. */}}
{{- define "training-job.gib" -}}
{{- $amount := round (mulf . 1024) 6 | ceil | int64 -}}
{{- if mod $amount 1024 -}}{{- printf "%dMi" $amount -}}
{{- else if mod (div $amount 1024) 1024 -}}{{- printf "%dGi" (div $amount 1024) -}}
{{- else -}}{{- printf "%dTi" (div $amount 1048576) -}}{{- end -}}
{{- end -}}

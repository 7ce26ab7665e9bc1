{{/*
Pods that start, stop and test runs: they talk to the API server, and are no pods of a run. Their component is what the
network policies of the chart highwater let do that. Takes run, name, command and told (pairs of name and text).
*/}}
{{- define "training-job.submitPod" -}}
{{- $platform := .run.platform -}}
serviceAccountName: highwater-submit
automountServiceAccountToken: true
enableServiceLinks: false
restartPolicy: Never
securityContext:
  {{- include "training-job.podSecurity" . | nindent 2 }}
{{- with $platform.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ include "training-job.value" . }}
  {{- end }}
{{- end }}
containers:
  - name: {{ .name }}
    image: {{ include "training-job.value" .run.submitImage }}
    imagePullPolicy: {{ $platform.imagePullPolicy }}
    command:
      {{- range .command }}
      - {{ include "training-job.literal" . }}
      {{- end }}
    env:
      - { name: HOME, value: /home/highwater }
      {{- range .told }}
      - name: {{ first . }}
        value: {{ include "training-job.literal" (last .) }}
      {{- end }}
    {{- with include "training-job.credentials" .run }}
    {{- . | nindent 4 }}
    {{- end }}
    resources:
      requests: { cpu: 50m, memory: 128Mi }
      limits: { memory: 512Mi }
    securityContext:
      {{- include "training-job.containerSecurity" . | nindent 6 }}
    volumeMounts:
      - { name: tmp, mountPath: /tmp }
      - { name: home, mountPath: /home/highwater }
volumes:
  - { name: tmp, emptyDir: {} }
  - { name: home, emptyDir: {} }
{{- end -}}

{{/* Labels of such a pod; with `ours` those of an object that Helm itself makes. */}}
{{- define "training-job.submitLabels" -}}
{{- $labels := dict -}}
{{- range $key, $value := .run.platform.labels }}{{ $_ := set $labels $key $value }}{{ end -}}
{{- range $key, $value := .ours | default dict }}{{ $_ := set $labels $key $value }}{{ end -}}
{{- $_ := set $labels "app.kubernetes.io/name" "highwater" -}}
{{- $_ := set $labels "app.kubernetes.io/component" "submit" -}}
{{- $_ := set $labels "app.kubernetes.io/instance" .run.name -}}
{{- $_ := set $labels "app.kubernetes.io/part-of" "highwater" -}}
{{- include "training-job.value" $labels -}}
{{- end -}}

{{/* What the command reads where its SPEC is `-`. */}}
{{- define "training-job.told" -}}
{{- list (list "HIGHWATER_SPEC" .spec) (list "HIGHWATER_SET" .set) | toRawJson -}}
{{- end -}}

{{/*
The RayJob of a run, from what `training-job.run` gives and its submission. jobs/cluster/manifest.py makes the same.
*/}}
{{- define "training-job.rayjob" -}}
apiVersion: ray.io/v1
kind: RayJob
metadata:
  name: {{ include "training-job.value" .name }}
  namespace: {{ include "training-job.value" .namespace }}
  {{- $labels := deepCopy .labels }}
  {{- range $key, $value := .ours }}{{ $_ := set $labels $key $value }}{{ end }}
  {{- with .queue }}{{ $_ := set $labels "kueue.x-k8s.io/queue-name" . }}{{ end }}
  labels: {{ include "training-job.value" $labels }}
  annotations: {{ include "training-job.value" (set (deepCopy .platform.annotations) "highwater.io/submission" .submission) }}
spec:
  entrypoint: python -m trainers.rayjob
  entrypointNumCpus: 0.1
  submissionMode: HTTPMode
  backoffLimit: {{ int64 .platform.retries }}
  shutdownAfterJobFinishes: true
  ttlSecondsAfterFinished: {{ int64 .platform.keepClusterSeconds }}
  {{- with .deadline }}
  activeDeadlineSeconds: {{ int64 . }}
  {{- end }}
  {{- with .waiting }}
  preRunningDeadlineSeconds: {{ int64 . }}
  {{- end }}
  {{- if .queue }}
  suspend: true
  {{- end }}
  {{- with .requirements }}
  {{- $lines := list }}
  {{- range . }}{{ $lines = append $lines (printf "%q" .) }}{{ end }}
  runtimeEnvYAML: {{ include "training-job.value" (printf "{\"pip\": [%s]}" (join ", " $lines)) }}
  {{- end }}
  rayClusterSpec:
    rayVersion: 2.60.0
    authOptions: { mode: token }
    headGroupSpec:
      rayStartParams: { object-store-memory: "268435456", num-cpus: "0", dashboard-host: "0.0.0.0" }
      template:
        {{- include "training-job.head" . | nindent 8 }}
    workerGroupSpecs:
      - groupName: workers
        replicas: {{ int64 .workers }}
        minReplicas: {{ int64 .workers }}
        maxReplicas: {{ int64 .workers }}
        rayStartParams:
          object-store-memory: "268435456"
          num-cpus: {{ add (ceil .cpus | int64) 1 | quote }}
          resources: {{ include "training-job.value" (`{"highwater_rank": 1}` | quote) }}
        template:
          {{- include "training-job.worker" . | nindent 10 }}
{{- end -}}

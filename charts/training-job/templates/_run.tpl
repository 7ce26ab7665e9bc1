{{/*
All that is decided about this release, as JSON, after every check. Templates put it into shape and decide nothing.
*/}}
{{- define "training-job.run" -}}
{{- $values := .Values -}}
{{- $platform := include "training-job.platform" . | fromJson -}}
{{- $spec := include "training-job.document" . | fromJson -}}
{{- include "training-job.validate" (dict "root" . "platform" $platform "spec" $spec) -}}
{{- $storage := include "training-job.storage" (dict "values" $values "platform" $platform "spec" $spec) | fromJson -}}
{{- $labels := dict -}}
{{- range $key, $value := $platform.labels -}}{{- $_ := set $labels $key $value -}}{{- end -}}
{{- $_ := set $labels "app.kubernetes.io/name" "highwater" -}}
{{- $_ := set $labels "app.kubernetes.io/part-of" "highwater" -}}
{{- $_ := set $labels "highwater.io/run" .Release.Name -}}
{{- dict
      "name" .Release.Name
      "namespace" .Release.Namespace
      "platform" $platform
      "labels" $labels
      "ours" (dict "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version) "app.kubernetes.io/managed-by" .Release.Service)
      "workers" (int64 $values.workers)
      "cpus" (float64 $values.resources.cpusPerWorker)
      "gpus" (float64 $values.resources.gpusPerWorker)
      "memoryGib" (float64 $values.resources.memoryGib)
      "image" ($values.image | default $platform.image)
      "submitImage" ($values.submit.image | default $values.image | default $platform.image)
      "queue" ($values.queue | default $platform.queue)
      "priority" ($values.priority | default $platform.priorityClass)
      "waiting" (int64 $values.waitingSeconds)
      "deadline" (int64 $values.deadlineSeconds)
      "requirements" (get ($spec.runtime | default dict) "requirements" | default list)
      "spec" ($values.spec | default $values.recipe)
      "set" (include "training-job.set" (dict "values" $values "storage" $storage))
      "until" ($values.until | default "")
    | toRawJson -}}
{{- end -}}

{{/* The spec's text as Helm reads it, as JSON: only where the run is kept and what it needs is taken from it. */}}
{{- define "training-job.document" -}}
{{- if .Values.spec -}}
{{- /* JSON may write characters in a way that YAML does not know. */ -}}
{{- $spec := dict "Error" "no JSON" -}}
{{- if hasPrefix "{" (trim .Values.spec) }}{{ $spec = fromJson .Values.spec }}{{ end -}}
{{- if hasKey $spec "Error" }}{{ $spec = fromYaml .Values.spec }}{{ end -}}
{{- if not $spec -}}
{{- fail "spec is empty; give the text of a spec: --set-file spec=FILE" -}}
{{- end -}}
{{- if hasKey $spec "Error" -}}
{{- fail (printf "spec is not YAML with fields (%s); give the text of a spec: --set-file spec=FILE" (regexReplaceAll "\\s+" (toString $spec.Error) " ")) -}}
{{- end -}}
{{- toRawJson $spec -}}
{{- else -}}
{}
{{- end -}}
{{- end -}}

{{/*
Storage and its endpoint as far as they have to be sent, as JSON. A schedule's command finds the platform's by itself,
each time anew.
*/}}
{{- define "training-job.storage" -}}
{{- $there := dict "storage" "" "storageEndpoint" "" -}}
{{- if not .values.schedule -}}
{{- if not (hasPrefix "s3://" (lower (toString .spec.storage))) -}}{{- $_ := set $there "storage" .platform.storage -}}{{- end -}}
{{- if not .spec.storage_endpoint -}}{{- $_ := set $there "storageEndpoint" .platform.storageEndpoint -}}{{- end -}}
{{- end -}}
{{- dict
      "storage" (.values.storage | default $there.storage)
      "storageEndpoint" (.values.storageEndpoint | default $there.storageEndpoint)
    | toRawJson -}}
{{- end -}}

{{/* HIGHWATER_SET: the values' overrides, then one for each field that has a value of its own, so that both agree. */}}
{{- define "training-job.set" -}}
{{- $values := .values -}}
{{- $fields := list
      (list "workers" (int64 $values.workers))
      (list "threads" (int64 $values.threads))
      (list "resources.cpus_per_worker" (float64 $values.resources.cpusPerWorker))
      (list "resources.gpus_per_worker" (float64 $values.resources.gpusPerWorker))
      (list "resources.memory_gib" (float64 $values.resources.memoryGib))
      (list "resources.accelerator_type" $values.resources.acceleratorType)
      (list "storage" .storage.storage)
      (list "storage_endpoint" .storage.storageEndpoint)
      (list "cluster.queue" $values.queue)
      (list "cluster.priority" $values.priority)
      (list "cluster.image" $values.image)
      (list "cluster.waiting_s" (int64 $values.waitingSeconds))
      (list "cluster.deadline_s" (int64 $values.deadlineSeconds)) -}}
{{- $set := $values.set -}}
{{- range $field := $fields -}}
{{- $name := first $field -}}
{{- $value := last $field -}}
{{- if or $value (eq $name "resources.gpus_per_worker") -}}
{{- $set = append $set (printf "%s=%s" $name (include "training-job.value" $value)) -}}
{{- end -}}
{{- end -}}
{{- toRawJson $set -}}
{{- end -}}

{{/* What tells this start from the next: given, kept from the run that is there, or made up. */}}
{{- define "training-job.submission" -}}
{{- $there := include "training-job.existing" . | fromJson -}}
{{- .Values.submission | default (dig "metadata" "annotations" "highwater.io/submission" "" $there) | default (randAlphaNum 8 | lower) -}}
{{- end -}}

{{/* The RayJob of this name on the server, as JSON; an empty object where there is none. */}}
{{- define "training-job.existing" -}}
{{- if .Capabilities.APIVersions.Has "ray.io/v1/RayJob" -}}
{{- lookup "ray.io/v1" "RayJob" .Release.Namespace .Release.Name | default dict | toRawJson -}}
{{- else -}}
{}
{{- end -}}
{{- end -}}

{{/*
What the schema cannot say: each refusal is one sentence that says what is wrong and what to do. Takes root, platform
and spec (the spec's text as Helm read it).
*/}}
{{- define "training-job.validate" -}}
{{- $values := .root.Values -}}
{{- include "training-job.validate.name" .root -}}
{{- include "training-job.validate.numbers" $values -}}
{{- include "training-job.validate.texts" . -}}
{{- include "training-job.validate.spec" . -}}
{{- include "training-job.validate.set" $values -}}
{{- include "training-job.validate.place" . -}}
{{- if $values.schedule -}}
{{- include "training-job.validate.schedule" . -}}
{{- else if $values.timeZone -}}
{{- fail "timeZone belongs to a schedule, and there is none; give schedule or leave timeZone out" -}}
{{- end -}}
{{- end -}}

{{/* jobs/names.py has the same rule; a schedule adds the time to the name. */}}
{{- define "training-job.validate.name" -}}
{{- $longest := ternary 33 47 (not (empty .Values.schedule)) -}}
{{- if not (and (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" .Release.Name) (le (len .Release.Name) $longest)) -}}
{{- fail (printf "the release's name becomes the run's name, and %s cannot be one: it takes 1 to %d lowercase letters, digits and hyphens, a letter first and no hyphen last" .Release.Name $longest) -}}
{{- end -}}
{{- end -}}

{{/* Helm's --set gives a fraction as a text, of which the schema cannot say how large it may be. */}}
{{- define "training-job.validate.numbers" -}}
{{- $cpus := float64 .resources.cpusPerWorker -}}
{{- $gpus := float64 .resources.gpusPerWorker -}}
{{- $memory := float64 .resources.memoryGib -}}
{{- if or (lt $cpus 0.01) (gt $cpus 1024.0) -}}
{{- fail (printf "resources.cpusPerWorker is %v; give 0.01 to 1024" .resources.cpusPerWorker) -}}
{{- end -}}
{{- if or (gt $gpus 64.0) (and (gt $gpus 1.0) (ne $gpus (floor $gpus))) -}}
{{- fail (printf "resources.gpusPerWorker is %v; give a share of one GPU (at most 1) or a whole number of GPUs, at most 64" .resources.gpusPerWorker) -}}
{{- end -}}
{{- if or (lt $memory 0.25) (gt $memory 65536.0) -}}
{{- fail (printf "resources.memoryGib is %v; give 0.25 to 65536" .resources.memoryGib) -}}
{{- end -}}
{{- end -}}

{{/* A variable cannot hold NUL, and a character that was no UTF-8 has been lost on the way here. */}}
{{- define "training-job.validate.texts" -}}
{{- $texts := dict "spec" (.root.Values.spec | default "") -}}
{{- range $i, $text := .root.Values.set -}}{{- $_ := set $texts (printf "set[%d]" $i) $text -}}{{- end -}}
{{- range $key, $text := .platform.environment -}}{{- $_ := set $texts (printf "platform.environment.%s" $key) $text -}}{{- end -}}
{{- range $key, $text := .platform.annotations -}}{{- $_ := set $texts (printf "platform.annotations.%s" $key) $text -}}{{- end -}}
{{- range $name := list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" "AWS_SESSION_TOKEN" "RAY_AUTH_TOKEN" -}}
{{- if hasKey (default dict $.platform.environment) $name -}}
{{- fail (printf "platform.environment holds %s, which all who may read pods would see; put it into a secret and name that in platform.credentialsSecret" $name) -}}
{{- end -}}
{{- end -}}
{{- range $place, $text := $texts -}}
{{- if regexMatch "[\\x00\\x{FFFD}]" $text -}}
{{- fail (printf "%s holds a NUL or a character that is not UTF-8; take it out" $place) -}}
{{- end -}}
{{- if gt (len $text) 131000 -}}
{{- fail (printf "%s is %d bytes, and a pod takes at most 131000 in one variable; put long lists into a file in S3" $place (len $text)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "training-job.validate.spec" -}}
{{- $values := .root.Values -}}
{{- if and $values.recipe $values.spec -}}
{{- fail "recipe and spec are both given; give recipe=NAME, or the text of a spec: --set-file spec=FILE" -}}
{{- end -}}
{{- if not (or $values.recipe $values.spec) -}}
{{- fail "there is nothing to run; give recipe=NAME, such as language, or the text of a spec: --set-file spec=FILE" -}}
{{- end -}}
{{- $runtime := .spec.runtime | default dict -}}
{{- if not (kindIs "map" $runtime) -}}
{{- fail "spec: runtime is not a section of fields; give runtime.requirements or leave it out" -}}
{{- end -}}
{{- if $runtime.packages -}}
{{- fail "spec: runtime.packages are folders of your machine, which a chart cannot send; use highwater run --cluster, or build them into an image and give image" -}}
{{- end -}}
{{- $lines := $runtime.requirements | default list -}}
{{- if not (kindIs "slice" $lines) -}}
{{- fail "spec: runtime.requirements is not a list; give lines of pip, such as einops>=0.8" -}}
{{- end -}}
{{- range $lines -}}
{{- if not (and (kindIs "string" .) (regexMatch "^[ -~]+$" (toString .))) -}}
{{- fail "spec: runtime.requirements has an entry that is not a line of pip in plain characters, such as einops>=0.8; mend it" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What pods depend on has values of its own: in `set` alone, the spec and the pods would disagree. */}}
{{- define "training-job.validate.set" -}}
{{- $own := dict "workers" "workers" "threads" "threads" "storage" "storage" "storage_endpoint" "storageEndpoint" "resources" "resources" "cluster" "queue, priority, image, waitingSeconds or deadlineSeconds" -}}
{{- range $text := .set -}}
{{- $field := splitList "=" $text | first | splitList "." | first | trim -}}
{{- if hasKey $own $field -}}
{{- fail (printf "set has %s, and the chart has values for that; give %s instead" (trunc 60 $text | printf "%q") (get $own $field)) -}}
{{- end -}}
{{- if eq $field "runtime" -}}
{{- fail "set has a field of runtime, which the chart reads from a spec alone; give it there: --set-file spec=FILE" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Image and storage come from somewhere. */}}
{{- define "training-job.validate.place" -}}
{{- $values := .root.Values -}}
{{- if not (or .platform.image $values.image (and $values.schedule $values.submit.image)) -}}
{{- fail (printf "namespace %s has no ConfigMap highwater-platform that could be read; install charts/highwater there, or give platform.image and platform.storage" .root.Release.Namespace) -}}
{{- end -}}
{{- if not (or $values.schedule $values.storage .platform.storage (hasPrefix "s3://" (lower (toString .spec.storage)))) -}}
{{- fail "there is no storage that pods can share; give storage=s3://BUCKET/PREFIX, or platform.storage" -}}
{{- end -}}
{{- end -}}

{{- define "training-job.validate.schedule" -}}
{{- if .root.Values.platform -}}
{{- fail "a schedule starts runs by the command, which reads the ConfigMap highwater-platform; change that, and leave platform out" -}}
{{- end -}}
{{- if .root.Values.submission -}}
{{- fail "submission belongs to one run, and a schedule starts many; leave it out" -}}
{{- end -}}
{{- if include "training-job.existing" .root | fromJson -}}
{{- fail (printf "a schedule would remove the run %s, which exists; install the schedule under another name, or uninstall the run first" .root.Release.Name) -}}
{{- end -}}
{{- end -}}

{{/* A driver that resumed with another spec, or half of the pods with another image, would corrupt the run. */}}
{{- define "training-job.unchanged" -}}
{{- $there := include "training-job.existing" .root | fromJson -}}
{{- if and .root.Release.IsUpgrade $there -}}
{{- if ne (include "training-job.essence" $there) (include "training-job.essence" .job) -}}
{{- fail (printf "%s: a run cannot be changed while it exists; install it under another name, or uninstall it first" .root.Release.Name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What makes a RayJob the run that it is, as JSON. */}}
{{- define "training-job.essence" -}}
{{- $group := first .spec.rayClusterSpec.workerGroupSpecs -}}
{{- $worker := first $group.template.spec.containers -}}
{{- $told := dict -}}
{{- range $worker.env -}}
{{- /* The operator writes the RayJob anew, and leaves empty texts out. */ -}}
{{- if hasPrefix "HIGHWATER_" .name -}}{{- $_ := set $told .name (.value | default "") -}}{{- end -}}
{{- end -}}
{{- dict "workers" $group.replicas "image" $worker.image "resources" $worker.resources "told" $told | toRawJson -}}
{{- end -}}

{{- define "macroscope.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What selects pods; must never change between versions of the chart. Call with (list . "component"). */}}
{{- define "macroscope.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* What network policies know a pod by: labels that no one overwrites on pods that the chart does not
make itself. Call with (list . "component"). */}}
{{- define "macroscope.peer" -}}
app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "macroscope.labels" -}}
{{- $root := index . 0 -}}
{{ include "macroscope.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: macroscope
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "macroscope.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "macroscope.apiUrl" -}}
{{- if .Values.server.enabled -}}
http://{{ include "macroscope.fullname" . }}-server.{{ .Release.Namespace }}:{{ .Values.server.service.port }}/api
{{- else -}}
{{ .Values.prefect.apiUrl | trimSuffix "/" }}
{{- end -}}
{{- end -}}

{{/* From where a browser's pages may call the Prefect API: its own address, unless values say more. */}}
{{- define "macroscope.origins" -}}
{{- $port := .Values.server.service.port -}}
{{- $own := list (printf "http://127.0.0.1:%v" $port) (printf "http://localhost:%v" $port) -}}
{{- with .Values.server.ingress }}{{ if .enabled }}{{ $own = append $own (printf "%s://%s" (ternary "https" "http" .tls.enabled) .host) }}{{ end }}{{ end -}}
{{- with .Values.server.gateway }}{{ if .enabled }}{{ $own = append $own (printf "%s://%s" (ternary "https" "http" .tls) .host) }}{{ end }}{{ end -}}
{{- join "," (concat $own (.Values.server.corsOrigins | default list) | uniq) -}}
{{- end -}}

{{/* extraEnv. Behind a proxy pods would ask it for each other and for the Kubernetes API too, unless told not to:
where extraEnv names a proxy and no NO_PROXY, one is added. */}}
{{- define "macroscope.extraEnv" -}}
{{- $given := .Values.extraEnv | default list -}}
{{- $proxy := false -}}
{{- $told := false -}}
{{- range $given -}}
{{- if regexMatch "(?i)^(https?|all)_proxy$" .name }}{{ $proxy = true }}{{ end -}}
{{- if regexMatch "(?i)^no_proxy$" .name }}{{ $told = true }}{{ end -}}
{{- end -}}
{{- if and $proxy (not $told) -}}
{{- $name := include "macroscope.fullname" . -}}
{{- $own := list "localhost" "127.0.0.1" "$(KUBERNETES_SERVICE_HOST)" ".svc" ".cluster.local" (printf "%s-server.%s" $name .Release.Namespace) (printf "%s-samples" $name) -}}
{{- $given = append $given (dict "name" "NO_PROXY" "value" (join "," $own)) -}}
{{- end -}}
{{- toYaml $given -}}
{{- end -}}

{{/* Environment of everything that talks to the Prefect API. */}}
{{- define "macroscope.prefectEnv" -}}
- name: PREFECT_API_URL
  value: {{ include "macroscope.apiUrl" . | quote }}
- name: PREFECT_LOGGING_LEVEL
  value: {{ .Values.prefect.loggingLevel | quote }}
{{- include "macroscope.prefectSecretEnv" . }}
{{- with include "macroscope.extraEnv" . | fromYamlArray }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Key of the auth string ("user:password") of the Prefect API; empty where it has none. */}}
{{- define "macroscope.authKey" -}}
{{- if .Values.prefect.authStringKey -}}
{{ .Values.prefect.authStringKey }}
{{- else if and .Values.server.enabled .Values.server.auth.generate -}}
auth-string
{{- end -}}
{{- end -}}

{{/* The Secret that holds it. */}}
{{- define "macroscope.authSecret" -}}
{{- if .Values.prefect.authStringKey -}}
{{ .Values.prefect.existingSecret }}
{{- else -}}
{{ include "macroscope.fullname" . }}-prefect
{{- end -}}
{{- end -}}

{{/* The password that the chart makes, in base64: what is there already, else another one. It is kept in
.Release, which all templates share, so that all of them get the same. */}}
{{- define "macroscope.generatedPassword" -}}
{{- if not (hasKey .Release "macroscopePassword") -}}
{{- $kept := (lookup "v1" "Secret" .Release.Namespace (include "macroscope.authSecret" .) | default dict).data | default dict -}}
{{- $_ := set .Release "macroscopePassword" (index $kept "auth-string" | default (printf "macroscope:%s" (randAlphaNum 32) | b64enc)) -}}
{{- end -}}
{{ .Release.macroscopePassword }}
{{- end -}}

{{/* What a key of a Secret holds in the cluster; nothing where there is none, or no cluster is asked.
Call with (list . "secret" "key"). */}}
{{- define "macroscope.secretValue" -}}
{{- $secret := lookup "v1" "Secret" (index . 0).Release.Namespace (index . 1) | default dict -}}
{{- index ($secret.data | default dict) (index . 2) | default "" -}}
{{- end -}}

{{/* Digest of the password of the Prefect API; empty where it has none, or it is not known. */}}
{{- define "macroscope.passwordDigest" -}}
{{- if .Values.prefect.authStringKey -}}
{{- with include "macroscope.secretValue" (list . .Values.prefect.existingSecret .Values.prefect.authStringKey) }}{{ sha256sum . | trunc 16 }}{{ end -}}
{{- else if include "macroscope.authKey" . -}}
{{- include "macroscope.generatedPassword" . | sha256sum | trunc 16 -}}
{{- end -}}
{{- end -}}

{{/* Digest of all that the Secrets hold that the values name; empty where none is known. */}}
{{- define "macroscope.secretsDigest" -}}
{{- $v := .Values -}}
{{- $found := include "macroscope.passwordDigest" . -}}
{{- range list
  (list $v.prefect.existingSecret $v.prefect.apiKeyKey)
  (list $v.server.database.existingSecret $v.server.database.key)
  (list $v.server.redis.existingSecret $v.server.redis.key)
  (list $v.storage.bucket.existingSecret $v.storage.bucket.accessKeyKey)
  (list $v.storage.bucket.existingSecret $v.storage.bucket.secretKeyKey) -}}
{{- if and (index . 0) (index . 1) }}{{ $found = print $found (include "macroscope.secretValue" (prepend . $)) }}{{ end -}}
{{- end -}}
{{- with $found }}{{ sha256sum . | trunc 16 }}{{ end -}}
{{- end -}}

{{- define "macroscope.prefectSecretEnv" -}}
{{- with .Values.prefect.apiKeyKey }}
- name: PREFECT_API_KEY
  valueFrom: {secretKeyRef: {name: {{ $.Values.prefect.existingSecret | quote }}, key: {{ . | quote }}}}
{{- end }}
{{- with include "macroscope.authKey" . }}
- name: PREFECT_API_AUTH_STRING
  valueFrom: {secretKeyRef: {name: {{ include "macroscope.authSecret" $ | quote }}, key: {{ . | quote }}}}
{{- end }}
{{- end -}}

{{/* Environment of everything that runs Prefect's server: its API, its services, the migration. */}}
{{- define "macroscope.serverEnv" -}}
- {name: PREFECT_SERVER_ANALYTICS_ENABLED, value: "false"}
- {name: PREFECT_LOGGING_LEVEL, value: {{ .Values.prefect.loggingLevel | quote }}}
{{- with .Values.server.database }}
{{- if .existingSecret }}
- name: PREFECT_SERVER_DATABASE_CONNECTION_URL
  valueFrom: {secretKeyRef: {name: {{ .existingSecret | quote }}, key: {{ .key | quote }}}}
{{- /* as long as Prefect's clients wait for an answer. By default a connection has 5 s and a statement 10:
on a busy node services end in tracebacks, and whoever asks is answered 500 */}}
- {name: PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT, value: "60"}
- {name: PREFECT_SERVER_DATABASE_TIMEOUT, value: "60"}
{{- else }}
{{- /* ":memory:" (which names nothing here) makes Prefect open the file once: with more connections it
answers 503, "database is locked", to flows that start together */}}
- {name: PREFECT_SERVER_DATABASE_CONNECTION_URL, value: "sqlite+aiosqlite:///file:/var/lib/prefect/prefect.db?once=:memory:&uri=true"}
{{- end }}
{{- end }}
{{- with .Values.server.redis }}
{{- if .existingSecret }}
- {name: PREFECT_SERVER_DATABASE_MIGRATE_ON_START, value: "false"}
- {name: PREFECT_SERVER_REGISTER_BLOCKS_ON_START, value: "false"}
- {name: PREFECT_SERVER_EVENTS_MESSAGING_BROKER, value: prefect_redis.messaging}
- {name: PREFECT_SERVER_EVENTS_MESSAGING_CACHE, value: prefect_redis.messaging}
- {name: PREFECT_SERVER_EVENTS_CAUSAL_ORDERING, value: prefect_redis.ordering}
- {name: PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE, value: prefect_redis.lease_storage}
- {name: PREFECT_SERVER_WORKER_CHANNEL_CLEANUP_QUEUE_STORAGE, value: prefect_redis.cleanup_queue}
{{- range $variable := list "PREFECT_REDIS_MESSAGING_URL" "PREFECT_REDIS_WORKER_CLEANUP_QUEUE_URL" "PREFECT_SERVER_DOCKET_URL" }}
- name: {{ $variable }}
  valueFrom: {secretKeyRef: {name: {{ $.Values.server.redis.existingSecret | quote }}, key: {{ $.Values.server.redis.key | quote }}}}
{{- end }}
{{- else }}
{{- /* in memory, as by default, a restarted server would count the slots of before for ever */}}
- {name: PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE, value: prefect.server.concurrency.lease_storage.filesystem}
- {name: PREFECT_HOME, value: /var/lib/prefect/home}
{{- end }}
{{- end }}
{{- with include "macroscope.authKey" . }}
{{- /* the second is for commands that are run in these pods */}}
{{- range $variable := list "PREFECT_SERVER_API_AUTH_STRING" "PREFECT_API_AUTH_STRING" }}
- name: {{ $variable }}
  valueFrom: {secretKeyRef: {name: {{ include "macroscope.authSecret" $ | quote }}, key: {{ include "macroscope.authKey" $ | quote }}}}
{{- end }}
{{- end }}
{{- with include "macroscope.extraEnv" . | fromYamlArray }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Environment of everything that reads or writes the store. */}}
{{- define "macroscope.storeEnv" -}}
{{- $bucket := .Values.storage.bucket -}}
{{- $secret := $bucket.existingSecret -}}
{{- if $bucket.accessKey }}{{ $secret = printf "%s-bucket" (include "macroscope.fullname" .) }}{{ end -}}
{{- if and (eq .Values.storage.type "bucket") $secret -}}
- name: EM_DEST_KEY
  valueFrom: {secretKeyRef: {name: {{ $secret | quote }}, key: {{ ternary "access-key" $bucket.accessKeyKey (ne $bucket.accessKey "") | quote }}}}
- name: EM_DEST_SECRET
  valueFrom: {secretKeyRef: {name: {{ $secret | quote }}, key: {{ ternary "secret-key" $bucket.secretKeyKey (ne $bucket.accessKey "") | quote }}}}
{{- end }}
{{- end -}}

{{/* Whether there may be temporary Dask clusters; empty where not. Who may not grant rights on them, or has no
resource definitions of theirs, does without. */}}
{{- define "macroscope.dask" -}}
{{- if or .Values.operator.enabled (has .Values.dask.mode (list "auto" "kubernetes")) }}true{{ end -}}
{{- end -}}

{{/* A quantity of CPU ("250m", "2") in cores. */}}
{{- define "macroscope.cores" -}}
{{- ternary (divf (trimSuffix "m" . | float64) 1000) (trimSuffix "m" . | float64) (hasSuffix "m" .) -}}
{{- end -}}

{{/* Ports at which pods ask for names. */}}
{{- define "macroscope.dnsPorts" -}}
{{- range .Values.networkPolicy.dnsPorts | default (list 53 5353) }}
- {port: {{ . }}, protocol: UDP}
- {port: {{ . }}, protocol: TCP}
{{- end }}
{{- end -}}

{{/* Port of the bucket's server. */}}
{{- define "macroscope.bucketPort" -}}
{{- $url := urlParse (default "https://s3.amazonaws.com" .Values.storage.bucket.endpointUrl) -}}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (ternary "443" "80" (eq $url.scheme "https")) -}}
{{- end -}}

{{- define "macroscope.dataVolume" -}}
{{- if eq .Values.storage.type "bucket" -}}
{name: data, emptyDir: {}}
{{- else -}}
{name: data, persistentVolumeClaim: {claimName: {{ default (printf "%s-data" (include "macroscope.fullname" .)) .Values.storage.volume.existingClaim | quote }}}}
{{- end -}}
{{- end -}}

{{/* The line of a claim that names its storage class: "-" is none at all, for a volume made by hand. */}}
{{- define "macroscope.storageClass" -}}
{{- with . -}}
storageClassName: {{ ternary "" . (eq . "-") | quote }}
{{- end -}}
{{- end -}}

{{/* A pod's securityContext. What is null is left to the platform (OpenShift gives each namespace its own). */}}
{{- define "macroscope.podSecurity" -}}
{{- $context := dict "runAsNonRoot" true "fsGroupChangePolicy" "OnRootMismatch" "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- range $key := list "runAsUser" "runAsGroup" "fsGroup" -}}
{{- with index $.Values.podSecurity $key }}{{ $_ := set $context $key (int64 .) }}{{ end -}}
{{- end -}}
{{- toYaml $context -}}
{{- end -}}

{{/* Where the pods of a component go, as JSON: what placement says of it, else what is said of all pods.
Pods of Jobs are "jobs". Call with (list . "component"). */}}
{{- define "macroscope.placement" -}}
{{- $root := index . 0 -}}
{{- $part := ternary "jobs" (index . 1) (has (index . 1) (list "register" "store" "cleanup" "test" "migrate")) -}}
{{- $own := index ($root.Values.placement | default dict) $part | default dict -}}
{{- $found := dict -}}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "priorityClassName" -}}
{{- with index (hasKey $own $key | ternary $own $root.Values) $key }}{{ $_ := set $found $key . }}{{ end -}}
{{- end -}}
{{- $replicas := dict "server" $root.Values.server.replicas "services" $root.Values.server.services.replicas "worker" $root.Values.worker.replicas -}}
{{- $selector := dict "matchLabels" (include "macroscope.selector" . | fromYaml) -}}
{{- $spread := list -}}
{{- if gt (int (index $replicas $part | default 1)) 1 -}}
{{- $spread = list (dict "maxSkew" 1 "topologyKey" "kubernetes.io/hostname" "whenUnsatisfiable" "ScheduleAnyway") -}}
{{- end -}}
{{- if hasKey $own "topologySpreadConstraints" }}{{ $spread = $own.topologySpreadConstraints }}{{ end -}}
{{- $constraints := list -}}
{{- range $spread }}{{ $constraints = append $constraints (merge (deepCopy .) (dict "labelSelector" $selector)) }}{{ end -}}
{{- with $constraints }}{{ $_ := set $found "topologySpreadConstraints" . }}{{ end -}}
{{- toJson $found -}}
{{- end -}}

{{/* What every pod of the chart begins with. Call with (list . "component" "service-account" token?). */}}
{{- define "macroscope.podHead" -}}
{{- $root := index . 0 -}}
serviceAccountName: {{ include "macroscope.fullname" $root }}-{{ index . 2 }}
automountServiceAccountToken: {{ index . 3 }}
enableServiceLinks: false
securityContext: {{- include "macroscope.podSecurity" $root | nindent 2 }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- range $key, $value := include "macroscope.placement" (list $root (index . 1)) | fromJson }}
{{ $key }}: {{- toYaml $value | nindent 2 }}
{{- end }}
{{- with index ($root.Values.extraInitContainers | default dict) (index . 1) }}
initContainers: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "macroscope.containerHead" -}}
image: {{ include "macroscope.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- define "macroscope.podMeta" -}}
{{- $root := index . 0 -}}
labels:
  {{- include "macroscope.selector" . | nindent 2 }}
  {{- with $root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := dict -}}
{{- if has (index . 1) (list "server" "services" "worker" "metrics") -}}
{{- /* another Secret makes other pods: the next upgrade restarts what reads it */ -}}
{{- with include "macroscope.secretsDigest" $root }}{{ $_ := set $annotations "macroscope/secrets" . }}{{ end -}}
{{- end -}}
{{- if eq (index . 1) "server" -}}
{{- with include "macroscope.passwordDigest" $root }}{{ $_ := set $annotations "macroscope/password" . }}{{ end -}}
{{- end -}}
{{- with merge $annotations ($root.Values.podAnnotations | default dict) }}
annotations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "macroscope.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "macroscope.volumes" -}}
- {name: tmp, emptyDir: {}}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Endpoints of the stand-in archives; the ports are those of emulators/serving.py. */}}
{{- define "macroscope.sampleServices" -}}
{{- $host := printf "%s-samples" (include "macroscope.fullname" .) -}}
{{- $base := int .Values.samples.basePort -}}
{{- $ftp := printf "%s:%d" $host $base -}}
{{- $http := dict -}}
{{- range $name, $offset := dict "mirror" 1 "epfl" 2 "empiar" 3 "omero" 4 "dvid" 5 "s3" 6 -}}
{{- $_ := set $http $name (printf "http://%s:%d" $host (add $base $offset | int)) -}}
{{- end -}}
{{- dict
  "EBI" (dict "ftp_server" $ftp "https_base_url" $http.mirror "api_base_url" (printf "%s/empiar/api" $http.empiar) "search_base_url" (printf "%s/ebisearch/ws/rest" $http.empiar))
  "EPFL" (dict "download_url" (printf "%s/groups/c/cv/cvlab-unit/www/data/%%20ElectronMicroscopy_Hippocampus/volumedata.tif" $http.epfl))
  "FLYEM" (dict "dvid_server" $http.dvid)
  "IDR" (dict "ftp_host" $ftp "https_base_url" $http.mirror "api_base_url" $http.omero)
  "OPENORGANELLE" (dict "s3_uri" "s3://janelia-cosem-datasets" "s3_endpoint_url" $http.s3)
  "SEARCH" (dict "biostudies_url" (printf "%s/biostudies/api/v1" $http.empiar))
  | toJson -}}
{{- end -}}

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
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* What network policies know a pod by: labels that no one overwrites on pods that the chart does not
make itself. Call with (list . "component"). */}}
{{- define "macroscope.peer" -}}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
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
{{- join "," (concat $own .Values.server.corsOrigins | uniq) -}}
{{- end -}}

{{/* Environment of everything that talks to the Prefect API. */}}
{{- define "macroscope.prefectEnv" -}}
- name: PREFECT_API_URL
  value: {{ include "macroscope.apiUrl" . | quote }}
- name: PREFECT_LOGGING_LEVEL
  value: {{ .Values.prefect.loggingLevel | quote }}
{{- include "macroscope.prefectSecretEnv" . }}
{{- with .Values.extraEnv }}
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

{{/* Port of the bucket's server. */}}
{{- define "macroscope.bucketPort" -}}
{{- $url := urlParse (default "https://s3.amazonaws.com" .Values.storage.bucket.endpointUrl) -}}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (ternary "443" "80" (eq $url.scheme "https")) -}}
{{- end -}}

{{- define "macroscope.dataVolume" -}}
{{- if eq .Values.storage.type "bucket" -}}
{name: data, emptyDir: {}}
{{- else -}}
{name: data, persistentVolumeClaim: {claimName: {{ default (printf "%s-data" (include "macroscope.fullname" .)) .Values.storage.volume.existingClaim }}}}
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
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $root.Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.priorityClassName }}
priorityClassName: {{ . }}
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
{{- with $root.Values.podAnnotations }}
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
  "EBI" (dict "ftp_server" $ftp "https_base_url" $http.mirror "api_base_url" (printf "%s/empiar/api" $http.empiar))
  "EPFL" (dict "download_url" (printf "%s/groups/c/cv/cvlab-unit/www/data/%%20ElectronMicroscopy_Hippocampus/volumedata.tif" $http.epfl))
  "FLYEM" (dict "dvid_server" $http.dvid)
  "IDR" (dict "ftp_host" $ftp "https_base_url" $http.mirror "api_base_url" $http.omero)
  "OPENORGANELLE" (dict "s3_uri" "s3://janelia-cosem-datasets" "s3_endpoint_url" $http.s3)
  | toJson -}}
{{- end -}}

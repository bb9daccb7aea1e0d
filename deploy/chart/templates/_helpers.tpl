{{- define "flashjob-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "flashjob-operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/*
Name of what has no namespace, or is in another than the release's. Two releases of one name may be in two namespaces, and namespace a-b
with release c gives the same words as namespace a with release b-c: the hash keeps them apart. 49 characters at most, as the longest
suffix is "-deviceplugins".
*/}}
{{- define "flashjob-operator.clusterName" -}}
{{- $words := printf "%s-%s" .Release.Namespace (include "flashjob-operator.fullname" .) | trunc 40 | trimSuffix "-" }}
{{- printf "%s-%s" $words (printf "%s/%s" .Release.Namespace .Release.Name | sha256sum | trunc 8) }}
{{- end }}

{{/*
Name of the ClusterRole of an operator that watches all namespaces. It is the same for every release, so that there can be one alone: two
such operators would flash one device at the same time, as neither knows of the other's locks.
*/}}
{{- define "flashjob-operator.allNamespaces" -}}
flashjob-operator-all-namespaces
{{- end }}

{{/*
Refuses a second installation that would not act, or would act against the first. It lists the Deployments of the release's
namespace, and reads one ClusterRole by name; `helm template` and GitOps tools that render without a cluster see nothing here.
*/}}
{{- define "flashjob-operator.refuseSecond" -}}
{{- range (lookup "apps/v1" "Deployment" .Release.Namespace "").items }}
{{- $labels := default dict .metadata.labels }}
{{- $isOperator := or (eq (get $labels "app.kubernetes.io/part-of") "flashjob-operator") (eq (get $labels "app.kubernetes.io/name") "flashjob-operator") }}
{{- if and $isOperator (ne (get $labels "app.kubernetes.io/instance") $.Release.Name) }}
{{- fail (printf "Deployment %s in namespace %s is an operator of another installation: both would share the Lease flashjob-operator, and one of them would never act; uninstall the other one, or delete its Deployment, or use another namespace" .metadata.name $.Release.Namespace) }}
{{- end }}
{{- end }}
{{- if and .Values.rbac.create (eq .Values.rbac.scope "Cluster") }}
{{- $role := lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" (include "flashjob-operator.allNamespaces" .) }}
{{- $annotations := default dict ($role.metadata).annotations }}
{{- $name := get $annotations "meta.helm.sh/release-name" }}
{{- $namespace := get $annotations "meta.helm.sh/release-namespace" }}
{{- if and $name (or (ne $name .Release.Name) (ne $namespace .Release.Namespace)) }}
{{- fail (printf "release %s in namespace %s already works on the FlashJobs of all namespaces, and two operators would flash one device at the same time: uninstall that release, or set rbac.scope to Namespaces in both, each with another watchNamespace" $name $namespace) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "flashjob-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "flashjob-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "flashjob-operator.labels" -}}
{{ include "flashjob-operator.selectorLabels" . }}
{{- /* The same whatever the values say: `kubectl flashjob` finds the operator by it. */}}
app.kubernetes.io/part-of: flashjob-operator
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "flashjob-operator.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "flashjob-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "flashjob-operator.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "flashjob-operator.configMap" -}}
{{- default (printf "%s-config" (include "flashjob-operator.fullname" .)) .Values.existingConfigMap }}
{{- end }}

{{/* Whether the chart makes the ConfigMap: "true", or nothing. */}}
{{- define "flashjob-operator.makesConfigMap" -}}
{{- $given := or .Values.plugins .Values.registries .Values.trust .Values.config .Values.caBundles .Values.files }}
{{- if and .Values.existingConfigMap $given }}
{{- fail "existingConfigMap is given, so plugins, registries, trust, config, caBundles and files count for nothing: put them into that ConfigMap, or leave existingConfigMap out" }}
{{- end }}
{{- if $given }}true{{ end }}
{{- end }}

{{/* The one namespace that is watched; empty: all. */}}
{{- define "flashjob-operator.watched" -}}
{{- if eq .Values.rbac.scope "Namespaces" }}
{{- default .Release.Namespace .Values.watchNamespace }}
{{- else if .Values.watchNamespace }}
{{- fail "watchNamespace is given and rbac.scope is Cluster: set rbac.scope to Namespaces, or leave watchNamespace out" }}
{{- end }}
{{- end }}
